"""``syftmesh demo``; everything but Typer and the frame is imported when it runs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from syftmesh.cli.frame import Frame, verb
from syftmesh_core.errors import Cancelled

if TYPE_CHECKING:
    from syftmesh_standalone.demo.program import DemoOptions


def register(app: typer.Typer) -> None:
    """Add the command ``demo`` to `app`."""
    verb(app, "demo", example="syftmesh demo\nsyftmesh demo --json --keep")(demo)


def demo(
    frame: Frame,
    processes: Annotated[
        bool, typer.Option("--processes", help="Give each service a process of its own.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the state folder in place.")] = False,
) -> None:
    """Tell the whole story on real data: two data owners, a scientist, review, sandbox, release, proof.

    It runs on a state of its own, a temporary one unless --state names an empty folder.
    """
    from syftmesh.cli.log import quiet_logs

    from syftmesh_standalone.demo.program import DemoOptions

    quiet_logs(frame.surroundings.stderr, verbose=frame.verbose)
    # SYFTMESH_STATE is where this user's real mesh lives: only an option names the demo's folder.
    options = DemoOptions(_named_state(frame), processes, keep)
    try:
        found = asyncio.run(_run(frame, options))
    except asyncio.CancelledError as error:
        raise Cancelled("The demo was stopped.", reason="INTERRUPTED") from error
    if frame.json:
        frame.emit(found)


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
