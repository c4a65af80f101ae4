"""``syftmesh demo``; everything but Typer and the frame is imported when it runs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from syftmesh.cli.frame import Frame, verb
from syftmesh_core.errors import Cancelled, InvalidInput
from syftmesh_core.quote import quoted

if TYPE_CHECKING:
    from syftmesh_standalone.demo.program import DemoOptions


def register(app: typer.Typer) -> None:
    """Add the command ``demo`` to `app`."""
    verb(
        app,
        "demo",
        example="syftmesh demo\nsyftmesh demo --json --keep\nsyftmesh demo --cluster --charts charts",
    )(demo)


def demo(
    frame: Frame,
    processes: Annotated[
        bool, typer.Option("--processes", help="Give each service a process of its own.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the state folder, and what is on the cluster, in place.")
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Install hub and sites on the cluster of kubectl, and tell it there."),
    ] = False,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="NAME", help="Of the namespaces on the cluster.")
    ] = "demo",
    charts: Annotated[
        Path, typer.Option("--charts", metavar="DIR", help="Folder with the charts syftmesh and datasite.")
    ] = Path("charts"),
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--values", metavar="CHART=FILE", help="Values for syftmesh or datasite; may be repeated."
        ),
    ] = None,
    hub_url: Annotated[
        str | None,
        typer.Option("--hub-url", metavar="URL", help="Where the hub is reached; else by a port-forward."),
    ] = None,
) -> None:
    """Tell the whole story on real data: two data owners, a scientist, review, sandbox, release, proof.

    It runs on a state of its own, a temporary one unless --state names an empty folder. With --cluster hub and sites
    get namespaces of their own, which are taken away in the end.
    """
    from syftmesh.cli.log import quiet_logs

    from syftmesh_standalone.demo.cluster.installation import ClusterOptions
    from syftmesh_standalone.demo.program import DemoOptions

    quiet_logs(frame.surroundings.stderr, verbose=frame.verbose)
    # SYFTMESH_STATE is where this user's real mesh lives: only an option names the demo's folder.
    place = ClusterOptions(prefix, charts, _values(values or []), hub_url)
    options = DemoOptions(_named_state(frame), processes, keep, place if cluster else None)
    try:
        found = asyncio.run(_run(frame, options))
    except asyncio.CancelledError as error:
        raise Cancelled("The demo was stopped.", reason="INTERRUPTED") from error
    if frame.json:
        frame.emit(found)


def _values(named: list[str]) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for text in named:
        chart, _, file = text.partition("=")
        if chart not in {"syftmesh", "datasite"} or not Path(file).is_file():
            raise InvalidInput(
                f"{quoted(text)} names no values: give syftmesh=FILE or datasite=FILE.",
                reason="VALUES_INVALID",
                metadata={"values": quoted(text)},
            )
        found[chart] = (*found.get(chart, ()), Path(file))
    return found


def _named_state(frame: Frame) -> Path | None:
    ours = frame.surroundings.environ.get("SYFTMESH_STATE")
    named = frame.state_option
    return None if named is not None and ours is not None and str(named) == ours else named


async def _run(frame: Frame, options: DemoOptions) -> dict[str, object]:
    from syftmesh_standalone.demo.program import run_demo

    task = asyncio.current_task()
    if task is not None:
        # As Ctrl-C: the mesh is ended in order, and the exit code says that somebody asked for it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    out = frame.surroundings.stderr if frame.json else frame.surroundings.stdout

    def tell(line: str) -> None:
        out.write(line + "\n")
        out.flush()

    return await run_demo(options, tell)
