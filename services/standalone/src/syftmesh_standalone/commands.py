"""The commands of the embedded mesh, found by the entry point ``syftmesh.commands``.

Everything but Typer and the frame is imported when a command runs: ``syftmesh --help`` loads this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.output import Block, Fields, Table

from syftmesh_standalone.demo.command import register as register_demo

if TYPE_CHECKING:
    from syftmesh_core.errors import MeshError

    from syftmesh_standalone.info import MeshInfo
    from syftmesh_standalone.options import MeshOptions


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    verb(
        app,
        "up",
        example="syftmesh up --sites alice@hospital.example,bob@clinic.example\n"
        "syftmesh up --detach --port 0 --grpc-port 0 --state ./mesh",
    )(up)
    verb(app, "status", example="syftmesh status --json")(status)
    verb(app, "down", example="syftmesh down")(down)
    register_demo(app)


def up(
    frame: Frame,
    sites: Annotated[
        str, typer.Option(metavar="A,B", help="E-mails of sites to make and start; known ones start anyway.")
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is ready; it goes on.")] = False,
    processes: Annotated[
        bool, typer.Option("--processes", help="Give each service a process of its own.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            "--port", "--http-port", metavar="N", min=0, max=65535, help="HTTP port; 0: a free one."
        ),
    ] = 8080,
    grpc_port: Annotated[
        int, typer.Option("--grpc-port", metavar="N", min=0, max=65535, help="gRPC port; 0: a free one.")
    ] = 8081,
) -> None:
    """Run a whole mesh on this machine: the hub, and the sites of its data owners.

    Ctrl-C ends it; everything is kept in the state folder for the next time.
    """
    from syftmesh_standalone.options import MeshOptions, parse_sites

    options = MeshOptions(frame.state, parse_sites(sites), processes, port, grpc_port)
    if detach:
        from syftmesh_standalone.detach import start_detached

        _emit_ready(frame, options, start_detached(options, report=frame.note), detached=True)
        return
    _run_here(frame, options)


def status(frame: Frame) -> None:
    """Show the mesh that runs on the state folder: services, sites, and whether all is well (else exit code 6).

    Raises:
        Unavailable: MESH_DOWN, MESH_STARTING, MESH_DEGRADED.
    """
    import asyncio

    from syftmesh_core.errors import Unavailable

    from syftmesh_standalone.status import mesh_status

    found = asyncio.run(mesh_status(frame.state))
    info = found.info
    fields = [("server", info.server), ("gRPC", info.grpc), ("process", info.pid), ("version", info.version)]
    services = Table(["service", "state"], list(found.services.items()))
    sites = Table(
        ["site", "agent", "runner"], [[s.site, s.agent, s.runner] for s in found.sites], "No sites."
    )
    frame.emit(found.document(), Fields([*fields, ("started", info.started_at)]), services, sites)
    if not found.is_ok:
        wrong = [name for name, state in found.services.items() if state != "serving"]
        wrong += [site.site for site in found.sites if not site.is_ok]
        raise Unavailable(
            f"Not everything is well: {', '.join(wrong)}.",
            reason="MESH_DEGRADED",
            metadata={"parts": ",".join(wrong)},
            hint="Ask again in some seconds; hub/mesh.log in the state folder says more.",
        )


def down(frame: Frame) -> None:
    """End the mesh that runs on the state folder; nothing to end is fine."""
    from syftmesh_standalone.status import stop_mesh

    pid = stop_mesh(frame.state)
    said = "Nothing runs on this state." if pid is None else f"The mesh (process {pid}) has ended."
    frame.emit({"stopped": pid is not None, "pid": pid}, said)


def _run_here(frame: Frame, options: MeshOptions) -> None:
    from syftmesh_standalone.attended import run_attended

    failed: list[MeshError] = []
    code = run_attended(
        options,
        report=frame.note,
        on_ready=lambda info: _emit_ready(frame, options, info, detached=False),
        on_error=failed.append,
        verbose=frame.verbose,
    )
    if failed:
        raise failed[0]
    if code:
        frame.finish(code)


def _emit_ready(frame: Frame, options: MeshOptions, info: MeshInfo, *, detached: bool) -> None:
    from syftmesh_standalone.site_maker import recovery_file

    kept = {email: recovery_file(options.state, email) for email in info.sites}
    phrases = {email: str(path) for email, path in kept.items() if path.is_file()}
    lines = [f"SyftMesh is ready at {info.server}"]
    lines += [f"  site      {email}" for email in info.sites]
    lines += [f"  recovery  {path}: keep it off this machine" for path in phrases.values()]
    if not info.sites:
        lines.append("  make a site         syftmesh site init --email you@example.org")
    lines += [
        "  log in              syftmesh login --email carol@lab.example",
        "  see how it stands   syftmesh status",
        "  end it              " + ("syftmesh down" if detached else "Ctrl-C, or syftmesh down"),
    ]
    frame.emit({**info.document(), "recovery": phrases}, Block("\n".join(lines)))
