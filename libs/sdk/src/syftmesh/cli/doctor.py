"""The verb doctor: looks at everything that must hold, one line each."""

from __future__ import annotations

import logging
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from syftmesh_core.errors import MeshError

from syftmesh.cli import diagnosis, hub_diagnosis
from syftmesh.cli.account import CaFile
from syftmesh.cli.device import chosen_profile, on_device
from syftmesh.cli.diagnosis import Finding, Status
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.log import quiet_logs
from syftmesh.cli.output import Table
from syftmesh.cli.site import site_programs, socket_folder, socket_places

if TYPE_CHECKING:
    from syftmesh_client.trust import HubTrust

EXIT_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    example = "syftmesh doctor --json\nsyftmesh doctor --server https://hub.example --ca-file ca.pem"
    verb(app, "doctor", example=example)(doctor)


def doctor(
    frame: Frame,
    ca_file: CaFile = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also bus and store of the hub, from inside its cluster.")
    ] = False,
) -> None:
    """Look at state, hub, clock, login, isolation and versions: ok, warn or fail, and the next command.

    With --server and no profile only the hub is looked at. Exit 0 when nothing fails, else 1.
    """
    found = [*_local_findings(frame, cluster=cluster), *_mesh_findings(frame, ca_file, cluster=cluster)]
    if cluster:
        found += _cluster_findings(frame)
    found += _site_findings(frame)
    failed = any(finding.status is Status.FAIL for finding in found)
    rows = [[f.status, f.check, f.detail, f.next] for f in found]
    items = [{"check": f.check, "status": f.status.value, "detail": f.detail, "next": f.next} for f in found]
    frame.emit({"ok": not failed, "items": items}, Table(["status", "check", "detail", "next"], rows))
    if failed:
        frame.finish(EXIT_FAILED)


def _is_guest(frame: Frame, *, cluster: bool) -> bool:
    """Return whether nothing of this machine is asked about: only a hub that was named, or a cluster."""
    return (cluster or frame.server is not None) and not frame.state.is_dir()


def _is_pod(frame: Frame) -> bool:
    return socket_folder(frame.surroundings.environ) is not None


def _local_findings(frame: Frame, *, cluster: bool) -> list[Finding]:
    if _is_guest(frame, cluster=cluster):
        return []
    found = [
        diagnosis.state_finding(frame.state, in_pod=_is_pod(frame)),
        diagnosis.space_finding(frame.state),
    ]
    return found if _is_pod(frame) else [*found, diagnosis.sandbox_finding()]


def _site_findings(frame: Frame) -> list[Finding]:
    base = frame.state / "sites"
    names = sorted(entry.name for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
    if _is_pod(frame):
        from syftmesh.cli.site_diagnosis import pod_findings

        quiet_logs(frame.surroundings.stderr, verbose=frame.verbose)
        places = socket_places(frame, names[0] if names else "")
        pod = frame.surroundings.environ.get("HOSTNAME", "POD")
        return pod_findings(places["agent"], places["runner"], pod)
    sites = diagnosis.sites_finding({name: site_programs(frame, name) for name in names})
    return [] if sites is None else [sites]


def _cluster_findings(frame: Frame) -> list[Finding]:
    from syftmesh.cli.cluster_diagnosis import PREFIX, cluster_findings

    environ = frame.surroundings.environ
    if _is_pod(frame) and not any(name.startswith(PREFIX) for name in environ):
        return []  # a site sees neither bus nor store, and what it has is asked below
    # What the checks meet is told by their lines.
    quiet_logs(frame.surroundings.stderr, verbose=frame.verbose, least=logging.ERROR)
    return cluster_findings(environ, frame.surroundings.clock)


def _mesh_findings(frame: Frame, ca_file: Path | None, *, cluster: bool) -> list[Finding]:
    from syftmesh_client.profile import embedded_server
    from syftmesh_client.trust import HubTrust

    embedded = embedded_server(frame.state)
    trust = HubTrust() if ca_file is None else HubTrust.of_file(ca_file)
    try:
        profile = chosen_profile(frame)
    except MeshError as error:
        server = frame.server or embedded
        hint = error.hint or "syftmesh login --email EMAIL"
        login = [Finding("login", Status.WARN, error.message, hint)]
        if _is_guest(frame, cluster=cluster):
            login = []
        ask_login = False
    else:
        server, login, ask_login = frame.server or profile.server, [], True
        trust = HubTrust.of_folder(profile.folder, ca_file)
    if server is None:
        return [Finding("hub", Status.FAIL, "No mesh runs here and no hub is named.", "syftmesh up"), *login]
    findings, answers = _hub_findings(frame, server, trust)
    if answers and ask_login:
        login = [_login_finding(frame)]
    return findings + login


def _hub_findings(frame: Frame, server: str, trust: HubTrust) -> tuple[list[Finding], bool]:
    clock = frame.surroundings.clock
    way = [hub_diagnosis.dns_finding(server), hub_diagnosis.certificate_finding(server, trust, clock)]
    found = [finding for finding in way if finding is not None]
    if any(finding.status is Status.FAIL for finding in found):
        return found, False
    ask = frame.surroundings.ask_hub or partial(diagnosis.ask_hub, trust=trust)
    findings, answers = diagnosis.hub_findings(server, ask, clock, version("syftmesh"))
    return found + findings, answers


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
