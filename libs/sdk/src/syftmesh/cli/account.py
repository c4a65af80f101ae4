"""Verbs of people: login, logout, whoami, profiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from syftmesh_core.errors import InvalidInput, MeshError
from syftmesh_core.principal import normalise_principal

from syftmesh.cli.device import chosen_profile, on_device
from syftmesh.cli.entry import Entry, enter, named_email
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.login_person import send_code
from syftmesh.cli.output import Fields, Table

Email = Annotated[str | None, typer.Option("--email", metavar="EMAIL", help="Who you are.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="File of mode 0600 with a join token.")
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Certificates (PEM) that the hub's must come from; kept in the profile.",
    ),
]
CodeFile = Annotated[
    Path | None,
    typer.Option(
        "--code-file", metavar="FILE", help="File of mode 0600 with the code from the e-mail; - is stdin."
    ),
]
Provider = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="Log in by this provider of the hub.")
]
RecoveryOut = Annotated[
    Path | None,
    typer.Option(
        "--recovery-out", metavar="FILE", help="New file (0600) for the recovery phrase of a new account."
    ),
]

_WHOAMI_S: Final = 5.0


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    verb(
        app,
        "login",
        example="syftmesh login --email carol@lab.example\n"
        "syftmesh login --email carol@lab.example --server https://mesh.example\n"
        "syftmesh login --email carol@lab.example --server https://mesh.example --ca-file ca.pem --token-file token\n"
        "syftmesh login --flwr --sites alice@hospital.example,bob@clinic.example --dataset breast-cancer",
    )(login)
    verb(app, "logout", example="syftmesh logout --profile carol@lab.example")(logout)
    verb(app, "whoami", example="syftmesh whoami --json")(whoami)
    verb(app, "profiles", example="syftmesh profiles --json")(profiles)


def login(  # noqa: PLR0913 - one for each option
    frame: Frame,
    email: Email = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    recovery_out: RecoveryOut = None,
    code_file: CodeFile = None,
    send: Annotated[
        bool,
        typer.Option("--send-code", help="Have a code sent and end: for scripts; --code-file comes then."),
    ] = False,
    provider: Provider = None,
    flwr: Annotated[bool, typer.Option("--flwr", help="Also log in Flower's own program, flwr.")] = False,
    sites: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="With --flwr: the sites of its runs; else `flwr run` names them."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --flwr and --sites: the dataset of its runs.")
    ] = None,
) -> None:
    """Log in on this machine; make the account when there is none.

    On a mesh of this machine that is all. Elsewhere a join token lets one in, or a code that the hub sends by
    e-mail and that is asked for on the terminal, or a page of a provider.

    A new account has a recovery phrase of 24 words: the only way back when all devices are lost. It is shown once
    on a terminal, or written to the file of --recovery-out; where neither is there, to recovery/EMAIL.txt in
    the state folder.
    """
    federation = _federation(sites, dataset, flwr=flwr)
    entry = Entry(token_file, ca_file, recovery_out, code_file, provider)
    _check_ways(entry, send=send)
    if send:
        _send_code(frame, email, entry)
        return
    result = enter(frame, email, entry)
    document: dict[str, object] = {"email": result.email, "server": result.server, "created": result.created}
    made = " with a new account" if result.created else ""
    lines = [f"Logged in as {result.email} at {result.server}{made}."]
    if flwr:
        document["flower"] = flower = _log_in_flower(frame, result, federation)
        lines.append(f"Flower's program has the connection {flower['connection']} to {flower['address']}.")
    frame.emit(document, *lines)
    if flwr:
        frame.note(
            "Its token ends soon (after 15 minutes, where the hub says nothing else): then repeat this."
        )
        frame.note("next: syftmesh fl serve, and in another terminal: flwr run APP syftmesh --stream")


def _federation(sites: str | None, dataset: str | None, *, flwr: bool) -> str | None:
    """Return the name of the federation that the options name, None without them."""
    if sites is None and dataset is None:
        return None
    names = [normalise_principal(name.strip()) for name in (sites or "").split(",") if name.strip()]
    if not (flwr and names and dataset):
        raise InvalidInput(
            "--sites and --dataset are given both, and with --flwr.",
            reason="RUN_INVALID",
            metadata={"field": "sites"},
            hint="syftmesh login --flwr --sites a@x.example,b@y.example --dataset NAME",
        )
    from syftmesh.flower_address import federation_name

    return federation_name(dataset, names)


def _log_in_flower(frame: Frame, result: Any, federation: str | None) -> dict[str, object]:
    from syftmesh_client.trust import CA_FILE

    from syftmesh.cli.flower_login import CONNECTION, flower_home, write_connection, write_token
    from syftmesh.flower_address import flower_address

    async def ask(node: Any) -> tuple[str, str | None]:
        # Flower's program keeps it in a file of its own: no more than its own service should take it.
        return await node.session.token_for("superlink"), node.well_known.flower_address

    as_who = replace(frame, profile=result.email, server=result.server)
    kept = chosen_profile(as_who).folder / CA_FILE
    token, announced = on_device(as_who, ask)
    found = flower_address(result.server, announced)
    home = flower_home(frame.surroundings.environ)
    write_token(home, found.address, token)
    config = write_connection(
        home,
        found.address,
        insecure=found.insecure,
        federation=federation,
        ca_file=kept if kept.exists() else None,
    )
    return {
        "connection": CONNECTION,
        "address": found.address,
        "insecure": found.insecure,
        "federation": federation,
        "config": str(config),
    }


def _check_ways(entry: Entry, *, send: bool) -> None:
    given = {
        "--token-file": entry.token_file,
        "--code-file": entry.code_file,
        "--provider": entry.provider,
        "--send-code": send or None,
    }
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InvalidInput(f"{' and '.join(named)} are different logins: give one.", reason="USAGE")


def _send_code(frame: Frame, email: str | None, entry: Entry) -> None:
    who = named_email(frame, email)
    server = send_code(frame, entry.of_person(who))
    frame.emit({"email": who, "server": server}, f"{server} has sent a code to {who}.")
    frame.note("next: write the code into a file of mode 0600, then syftmesh login --code-file FILE")


def logout(frame: Frame) -> None:
    """End this machine's login; keys and profile stay, so that `syftmesh login` brings it back."""
    profile = chosen_profile(frame)

    async def end(node: Any) -> None:
        await node.session.logout()

    told = True
    try:
        on_device(frame, end)
    except MeshError as error:
        if error.reason == "NOT_LOGGED_IN":
            pass
        elif error.code == "UNAVAILABLE":
            told = _forget(profile)
            frame.note(
                "The hub could not be told; the tokens are forgotten here and end there by themselves."
            )
        else:
            raise
    document = {"email": profile.email, "server": profile.server, "hub_told": told}
    frame.emit(document, f"Logged out {profile.email}.")


def whoami(frame: Frame) -> None:
    """Show who a command without --profile acts for, and at which hub; what the hub says of it, when it answers."""
    from syftmesh_client.keystore import KeyStore

    profile = chosen_profile(frame)
    device = KeyStore.open(profile.folder).device
    has_tokens = (profile.folder / "tokens.json").is_file()
    said = _said_of_me(frame) if has_tokens else None
    document = {
        "email": profile.email,
        "server": frame.server or profile.server,
        "device_id": device.device_id,
        "logged_in": has_tokens,
        "issuer": said.issuer if said is not None else None,
        "administrator": said.administrator if said is not None else None,
    }
    frame.emit(document, Fields([(name, value) for name, value in document.items() if value is not None]))


def _said_of_me(frame: Frame) -> Any:
    """Return the hub's answer to WhoAmI, None when there is none."""
    from mesh.identity.v1 import identity_service_pb2 as rpc

    async def ask(node: Any) -> Any:
        return await node.session.identity.WhoAmI(rpc.WhoAmIRequest(), timeout=_WHOAMI_S)

    try:
        return on_device(frame, ask)
    except MeshError as error:
        frame.note(f"The hub does not say who you are there: {error.message}")
        return None


def profiles(frame: Frame) -> None:
    """List the people who have logged in on this machine."""
    from syftmesh_client.profile import ProfileStore

    store = ProfileStore(frame.state)
    found = store.list()
    current = None
    if found:
        try:
            current = store.choose(frame.profile).email
        except MeshError as error:
            frame.detail(error.message)
    items = [{"email": p.email, "server": p.server, "current": p.email == current} for p in found]
    rows = [list(item.values()) for item in items]
    frame.emit(
        {"items": items},
        Table(["email", "server", "current"], rows, "Nobody has logged in on this machine."),
    )


def _forget(profile: Any) -> bool:
    (profile.folder / "tokens.json").unlink(missing_ok=True)
    return False
