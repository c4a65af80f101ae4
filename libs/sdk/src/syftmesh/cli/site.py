"""Verbs of site owners: site init, ls, show."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from syftmesh_core.errors import NotFound

from syftmesh.cli import site_token
from syftmesh.cli.account import CaFile, Email, RecoveryOut, TokenFile
from syftmesh.cli.entry import Entry
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Fields, Table
from syftmesh.cli.site_making import make_site, wait_s

SOCKETS_VARIABLE = "SYFTMESH_SITE_SOCKETS"
SOCKETS = (("agent", "agent.sock"), ("runner", "runner.sock"))


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    site = group(app, "site", "Datasites of this machine.")
    verb(
        site,
        "init",
        example="syftmesh site init --email alice@hospital.example --recovery-out phrase.txt\n"
        "syftmesh site init --email alice@hospital.example --server https://hub.example --ca-file ca.pem "
        "--token-file token",
    )(init)
    verb(site, "ls", example="syftmesh site ls --json")(ls)
    verb(site, "show", example="syftmesh site show alice@hospital.example")(show)
    site_token.register(site)
    return site


def init(
    frame: Frame,
    email: Email = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    recovery_out: RecoveryOut = None,
    wait: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait for a hub that is away; 0: not at all.")
    ] = "0",
) -> None:
    """Make a datasite of your own: account, devices of agent and runner, standard rule files.

    What is there already stays; a run that was cut off is finished by the next one. At a hub elsewhere agent and
    runner get what they log in with; the token of --token-file is needed the first time alone.
    """
    entry = Entry(token_file=token_file, ca_file=ca_file, recovery_out=recovery_out)
    made = make_site(frame, email, entry, wait_s=wait_s(wait))
    before = "there already" if made["created"] is False else "made"
    frame.emit(made, f"The site {made['site']} is {before}.")
    if made["is_local"]:
        frame.note(f"next: syftmesh up --sites {made['site']}")


def ls(frame: Frame) -> None:
    """List the datasites of this machine and whether they run."""
    base = frame.state / "sites"
    names = sorted(entry.name for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
    items = [{"site": name, **site_programs(frame, name)} for name in names]
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
        devices = [device for device in client.keys.devices(name) if device.listed]
        datasets = [dataset.name for dataset in client.datasets.list(site=name)]
        status: object = None
        if name == client.email:
            try:
                status = client.site.status()
            except NotFound as error:
                frame.detail(error.message)
    local = site_programs(frame, name) if (frame.state / "sites" / name).is_dir() else None
    document = {"site": name, "devices": devices, "datasets": datasets, "local": local, "status": status}
    pairs = [("site", name), ("devices", len(devices)), ("datasets", datasets)]
    pairs += [(program, _running(bool(up))) for program, up in (local or {}).items()]
    frame.emit(document, Fields(pairs))


def site_programs(frame: Frame, site: str) -> dict[str, bool]:
    """Return which programs of a site of this machine answer on their sockets.

    The sockets lie with the programs' state, or where ``SYFTMESH_SITE_SOCKETS`` says, as in a pod.
    """
    return {program: answers(place) for program, place in socket_places(frame, site).items()}


def socket_places(frame: Frame, site: str) -> dict[str, Path]:
    """Return the sockets of a site by program."""
    named = socket_folder(frame.surroundings.environ)
    folder = frame.state / "sites" / site
    return {program: (named or folder / program) / name for program, name in SOCKETS}


def socket_folder(environ: Mapping[str, str]) -> Path | None:
    """Return where a site's sockets lie when not with its programs' state."""
    named = environ.get(SOCKETS_VARIABLE)
    return Path(named) if named else None


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
