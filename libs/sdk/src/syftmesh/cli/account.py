"""Verbs of people: login, logout, whoami, profiles."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from syftmesh_core.errors import InvalidInput, MeshError
from syftmesh_core.principal import normalise_principal

from syftmesh.cli.device import chosen_profile, on_device
from syftmesh.cli.frame import Frame, verb
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
RecoveryOut = Annotated[
    Path | None,
    typer.Option(
        "--recovery-out", metavar="FILE", help="New file (0600) for the recovery phrase of a new account."
    ),
]


@dataclass(frozen=True, slots=True)
class Entry:
    """What somebody brings to a login.

    Attributes:
        token_file: A join token.
        ca_file: What proves the hub.
        recovery_out: Where the phrase of a new account goes.
    """

    token_file: Path | None = None
    ca_file: Path | None = None
    recovery_out: Path | None = None


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    verb(
        app,
        "login",
        example="syftmesh login --email carol@lab.example\n"
        "syftmesh login --email carol@lab.example --server https://mesh.example --ca-file ca.pem --token-file token\n"
        "syftmesh login --flwr --sites alice@hospital.example,bob@clinic.example --dataset breast-cancer",
    )(login)
    verb(app, "logout", example="syftmesh logout --profile carol@lab.example")(logout)
    verb(app, "whoami", example="syftmesh whoami --json")(whoami)
    verb(app, "profiles", example="syftmesh profiles --json")(profiles)


def login(
    frame: Frame,
    email: Email = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    recovery_out: RecoveryOut = None,
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

    A new account has a recovery phrase of 24 words: the only way back when all devices are lost. It is shown once
    on a terminal, or written to the file of --recovery-out; where neither is there, to recovery/EMAIL.txt in
    the state folder.
    """
    federation = _federation(sites, dataset, flwr=flwr)
    entry = Entry(token_file=token_file, ca_file=ca_file, recovery_out=recovery_out)
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
        return await node.session.access_token(), node.well_known.flower_address

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


def enter(frame: Frame, email: str | None, entry: Entry) -> Any:
    """Log in by `syftmesh.login`, see to the recovery phrase and return the LoginResult.

    Raises:
        InvalidInput: EMAIL_MISSING, PRINCIPAL_INVALID.
        MeshError: As `syftmesh.login`.
    """
    from syftmesh.cli.log import quiet_logs

    named = email or frame.profile or _only_profile(frame)
    if named is None:
        raise InvalidInput(
            "Say who you are.", reason="EMAIL_MISSING", hint="syftmesh login --email you@example.org"
        )
    who = normalise_principal(named)
    quiet_logs(frame.surroundings.stderr, verbose=frame.verbose)
    # Always by way of a file: a login that is cut off after the keys were made must not take the phrase along.
    target = entry.recovery_out or _phrase_file(frame, who)
    before = target.exists()
    try:
        result = frame.log_in(
            frame.server,
            email=who,
            token_file=entry.token_file,
            recovery_out=target,
            ca_file=entry.ca_file,
            state=frame.state,
        )
    except BaseException:
        if not before and target.exists():
            _note_phrase(frame, who, target)
        raise
    if result.created and entry.recovery_out is None and frame.can_ask and not frame.json:
        _show_phrase(frame, target)
    elif result.created:
        _note_phrase(frame, who, target)
    return result


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
    """Show who a command without --profile acts for, and at which hub."""
    from syftmesh_client.keystore import KeyStore

    profile = chosen_profile(frame)
    device = KeyStore.open(profile.folder).device
    document = {
        "email": profile.email,
        "server": frame.server or profile.server,
        "device_id": device.device_id,
        "logged_in": (profile.folder / "tokens.json").is_file(),
    }
    frame.emit(document, Fields(list(document.items())))


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


def _only_profile(frame: Frame) -> str | None:
    from syftmesh_client.profile import ProfileStore

    found = ProfileStore(frame.state).list()
    return found[0].email if len(found) == 1 else None


def _phrase_file(frame: Frame, email: str) -> Path:
    folder = frame.state / "recovery"
    names = itertools.chain([f"{email}.txt"], (f"{email}.{number}.txt" for number in itertools.count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def _note_phrase(frame: Frame, email: str, place: Path) -> None:
    frame.note(f"The recovery phrase of {email} is in {place}: move it to a safe place off this machine.")


def _show_phrase(frame: Frame, place: Path) -> None:
    words = place.read_text("ascii").split()
    frame.note("Recovery phrase, shown once. Write it down and keep it off this machine:")
    for start in range(0, len(words), 6):
        numbered = (f"{at + 1:2}. {words[at]:<9}" for at in range(start, min(start + 6, len(words))))
        frame.note("  " + " ".join(numbered))
    place.unlink()
    with suppress(OSError):  # it holds the phrases of others
        place.parent.rmdir()


def _forget(profile: Any) -> bool:
    (profile.folder / "tokens.json").unlink(missing_ok=True)
    return False
