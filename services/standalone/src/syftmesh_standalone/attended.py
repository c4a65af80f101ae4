"""Runs the mesh as this process: its log, its signals, and an end at once when somebody insists."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

import structlog
from syftmesh_core.errors import MeshError, mesh_error
from syftmesh_kit.run import run_service
from syftmesh_kit.telemetry import configure_telemetry

from syftmesh_standalone.detach import LOG_FILE
from syftmesh_standalone.info import MeshInfo, remove_info
from syftmesh_standalone.mesh import run_mesh
from syftmesh_standalone.options import MeshOptions
from syftmesh_standalone.preflight import prepare_state

_LOG_BYTES: Final = 8 * 1024 * 1024
_EXIT_INTERRUPTED: Final = 130
_END_S: Final = 4.5
"""Everything ends within five seconds; what is left then is ended by force, which every store survives."""


def run_attended(
    options: MeshOptions,
    *,
    report: Callable[[str], None],
    on_ready: Callable[[MeshInfo], None],
    on_error: Callable[[MeshError], None] | None = None,
    verbose: bool = False,
) -> int:
    """Run the mesh until SIGTERM or SIGINT, which drain it; a second one ends it at once.

    Args:
        options: What to run.
        report: See `run_mesh`.
        on_ready: See `run_mesh`.
        on_error: Takes what the mesh fails with; None lets the frame of every service print it.
        verbose: Log to standard error instead of ``mesh.log``.

    Returns:
        The exit code, 0 after a drain.
    """

    async def main(stop: asyncio.Event) -> None:
        try:
            hub = await asyncio.to_thread(prepare_state, options.state)
            log = sys.stderr if verbose else await asyncio.to_thread(open_log, hub)
            configure_telemetry("mesh", stream=log)
            # Native servers look for configuration where they are started, and that may be anybody's folder.
            os.chdir(hub)
            await _attended(options, stop, report, on_ready)
        except BaseException as error:
            known = mesh_error(error)
            if known is None or on_error is None:
                raise
            on_error(known)

    return run_service(main)


def open_log(hub: Path) -> TextIO:
    """Return the log of the mesh, 0600, appended to; what got too long is put aside first."""
    path = hub / LOG_FILE
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "a", buffering=1, encoding="utf-8")


async def _attended(
    options: MeshOptions,
    stop: asyncio.Event,
    report: Callable[[str], None],
    on_ready: Callable[[MeshInfo], None],
) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run_mesh(options, stop, report=report, on_ready=on_ready))
        guard = tasks.create_task(_guard_end(stop, options.hub, report))
        try:
            await asyncio.wait({running})
            guard.cancel()
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            # The second signal. Every child dies with us, and every store survives that: see the tests.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_EXIT_INTERRUPTED)


async def _guard_end(stop: asyncio.Event, hub: Path, report: Callable[[str], None]) -> None:
    """End the process by force when it has not ended in time; from a thread, for the loop itself may be stuck."""
    await stop.wait()
    loop = asyncio.get_running_loop()
    timer = threading.Timer(_END_S, _end_by_force, (loop, hub, report))
    timer.daemon = True
    timer.start()
    try:
        await asyncio.Event().wait()
    finally:
        timer.cancel()


def _end_by_force(loop: asyncio.AbstractEventLoop, hub: Path, report: Callable[[str], None]) -> None:
    stuck = sorted(_place(task) for task in asyncio.all_tasks(loop))
    structlog.get_logger("syftmesh.mesh").error("mesh.end_forced", tasks=stuck)
    report(
        "a part did not end in time; the rest is ended by force, which loses nothing that was acknowledged"
    )
    remove_info(hub)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _place(task: asyncio.Task[object]) -> str:
    """Return where a task waits: its name, and file and line of its frames."""
    frames = [f"{Path(f.f_code.co_filename).name}:{f.f_lineno}" for f in task.get_stack()]
    return f"{task.get_name()} {' '.join(frames)}"
