"""Verbs of site owners: site init, ls, show, token create."""

from __future__ import annotations

import socket
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any

import typer
from syftmesh_core.errors import NotFound

from syftmesh.cli.account import Email, RecoveryOut, TokenFile, enter
from syftmesh.cli.device import on_device
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Fields, Table, moment_text
from syftmesh.cli.quantity import duration_s

SOCKETS = (("agent", "agent.sock"), ("runner", "runner.sock"))


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    site = group(app, "site", "Datasites of this machine.")
    verb(site, "init", example="syftmesh site init --email alice@hospital.example --recovery-out phrase.txt")(
        init
    )
    verb(site, "ls", example="syftmesh site ls --json")(ls)
    verb(site, "show", example="syftmesh site show alice@hospital.example")(show)
    token = group(site, "token", "Single-use rights by which a device joins.")
    verb(token, "create", example="syftmesh site token create --label profile --ttl 1h --out token")(
        token_create
    )
    return site


def init(
    frame: Frame, email: Email = None, token_file: TokenFile = None, recovery_out: RecoveryOut = None
) -> None:
    """Make a datasite of your own: account, devices of agent and runner, standard rule files.

    What is there already stays; a run that was cut off is finished by the next one.
    """
    from dataclasses import replace

    from syftmesh_client.site import SiteFolders, provision_site

    result = enter(frame, email, token_file=token_file, recovery_out=recovery_out)
    folders = SiteFolders.of(frame.state, result.email)
    made_before = folders.is_made

    async def provision(node: Any) -> None:
        await provision_site(node, folders)

    on_device(replace(frame, profile=result.email, server=result.server), provision)
    document = {
        "site": result.email,
        "server": result.server,
        "created": not made_before,
        "account_created": result.created,
    }
    frame.emit(document, f"The site {result.email} is {'there already' if made_before else 'made'}.")
    frame.note(f"next: syftmesh up --sites {result.email}")


def ls(frame: Frame) -> None:
    """List the datasites of this machine and whether they run."""
    base = frame.state / "sites"
    names = sorted(entry.name for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
    items = [{"site": name, **site_programs(frame.state, name)} for name in names]
    columns = ["site", *(name for name, _ in SOCKETS)]
    rows = [[item["site"], *(_running(bool(item[name])) for name in columns[1:])] for item in items]
    frame.emit({"items": items}, Table(columns, rows, "There is no site on this machine."))


def show(
    frame: Frame, site: Annotated[str, typer.Argument(metavar="SITE", help="E-mail of its owner.")]
) -> None:
    """Show one datasite: its devices, the datasets you may see and, when it is yours, what its programs say."""
    from syftmesh_core.principal import normalise_principal

    name = normalise_principal(site)
    with frame.client() as client:
        devices = list(client.keys.devices(name))
        datasets = [dataset.name for dataset in client.datasets.list(site=name)]
        status: object = None
        if name == client.email:
            try:
                status = client.site.status()
            except NotFound as error:
                frame.detail(error.message)
    local = site_programs(frame.state, name) if (frame.state / "sites" / name).is_dir() else None
    document = {"site": name, "devices": devices, "datasets": datasets, "local": local, "status": status}
    pairs = [("site", name), ("devices", len(devices)), ("datasets", datasets)]
    pairs += [(program, _running(bool(up))) for program, up in (local or {}).items()]
    frame.emit(document, Fields(pairs))


def token_create(
    frame: Frame,
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="Who may redeem it; you.")] = None,
    label: Annotated[str, typer.Option(help="Kind of device: profile, agent or runner.")] = "agent",
    ttl: Annotated[str, typer.Option(metavar="DURATION", help="How long it can be redeemed.")] = "1d",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the token to a new file of mode 0600."),
    ] = None,
) -> None:
    """Make a token that lets one device join, once."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    from syftmesh.cli.local import write_file

    ttl_s = max(1, round(duration_s(ttl)))

    async def create(node: Any) -> Any:
        request = pb.CreateJoinTokenRequest(principal=email or node.principal, label=label, ttl_seconds=ttl_s)
        return await node.session.identity.CreateJoinToken(request)

    answer = on_device(frame, create)
    token = answer.join_token
    document: dict[str, object] = {
        "token_id": token.token_id,
        "email": token.principal,
        "label": token.label,
        "expires": moment_text(token.expires_at.ToDatetime(tzinfo=UTC)),
    }
    if out is None:
        document["token"] = answer.secret
    else:
        write_file(out, f"{answer.secret}\n".encode(), mode=0o600)
        document["file"] = str(out)
    frame.emit(document)
    frame.note("The token works once and is not shown again.")


def site_programs(state: Path, site: str) -> dict[str, bool]:
    """Return which programs of a site of this machine answer on their sockets."""
    folder = state / "sites" / site
    return {program: answers(folder / program / name) for program, name in SOCKETS}


def answers(path: Path) -> bool:
    """Return whether somebody listens on the Unix socket `path`, or where its server put it when it is too long."""
    from syftmesh_kit.address import socket_path

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(socket_path(path)))
        except OSError:
            return False
        return True


def _running(up: bool) -> str:  # noqa: FBT001 - the value that is shown
    return "running" if up else "not running"
