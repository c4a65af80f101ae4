"""The verb doctor: looks at everything that must hold, one line each."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from syftmesh_core.errors import MeshError, Unimplemented

from syftmesh.cli import diagnosis
from syftmesh.cli.device import chosen_profile, on_device
from syftmesh.cli.diagnosis import Finding, Status
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.output import Table
from syftmesh.cli.site import site_programs

EXIT_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    verb(app, "doctor", example="syftmesh doctor --json")(doctor)


def doctor(
    frame: Frame,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also what a cluster needs.", hidden=True)
    ] = False,
) -> None:
    """Look at state, mesh, clock, login, sandbox and versions: ok, warn or fail, and the next command.

    Exit 0 when nothing fails, else 1.
    """
    if cluster:
        raise Unimplemented("The checks of a cluster come with the charts.")
    found = [
        diagnosis.state_finding(frame.state),
        diagnosis.space_finding(frame.state),
        diagnosis.sandbox_finding(),
        *_mesh_findings(frame),
    ]
    base = frame.state / "sites"
    names = sorted(entry.name for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
    sites = diagnosis.sites_finding({name: site_programs(frame, name) for name in names})
    if sites is not None:
        found.append(sites)
    failed = any(finding.status is Status.FAIL for finding in found)
    rows = [[f.status, f.check, f.detail, f.next] for f in found]
    items = [{"check": f.check, "status": f.status.value, "detail": f.detail, "next": f.next} for f in found]
    frame.emit({"ok": not failed, "items": items}, Table(["status", "check", "detail", "next"], rows))
    if failed:
        frame.finish(EXIT_FAILED)


def _mesh_findings(frame: Frame) -> list[Finding]:
    from syftmesh_client.profile import embedded_server

    embedded = embedded_server(frame.state)
    try:
        profile = chosen_profile(frame)
    except MeshError as error:
        server = frame.server or embedded
        login = [Finding("login", Status.WARN, error.message, error.hint or "syftmesh login --email EMAIL")]
    else:
        server, login = frame.server or profile.server, []
    if server is None:
        return [Finding("hub", Status.FAIL, "No mesh runs here and no hub is named.", "syftmesh up"), *login]
    ask = frame.surroundings.ask_hub or diagnosis.ask_hub
    findings, answers = diagnosis.hub_findings(server, ask, frame.surroundings.clock, version("syftmesh"))
    if answers and not login:
        login = [_login_finding(frame)]
    return findings + login


def _login_finding(frame: Frame) -> Finding:
    async def prove(node: Any) -> str:
        from mesh.identity.v1 import identity_service_pb2 as pb

        answer = await node.session.identity.WhoAmI(pb.WhoAmIRequest())
        return str(answer.principal)

    try:
        principal = on_device(frame, prove)
    except MeshError as error:
        return Finding("login", Status.FAIL, error.message, error.hint or "syftmesh login --email EMAIL")
    return Finding("login", Status.OK, f"the hub knows this device as {principal}")
