"""The frame of the programs here: one run, lines for people, an exit code for the Job."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from syftmesh_core.errors import InvalidInput, MeshError, mesh_error
from syftmesh_kit.telemetry import configure_telemetry


def say(line: str) -> None:
    """Print a line to whoever reads the log of the Job."""
    print(line, flush=True)  # noqa: T201 - the log of a Job is what it is for


def log_quietly() -> None:
    """Log errors alone: clients tell each of their tries, and the lines of a program say what comes of them."""
    configure_telemetry("cluster", json_lines=False, level="error")


def run_program(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `main` and return the exit code: 0 done, 2 for wrong settings, 1 for anything else.

    The last lines name reason, what is wrong and the next step; Kubernetes keeps them as the termination message
    of a container with ``terminationMessagePolicy: FallbackToLogsOnError``.
    """
    try:
        asyncio.run(main())
    except MeshError as error:
        _complain(error)
        return 2 if isinstance(error, InvalidInput) else 1
    except BaseExceptionGroup as group:
        known = mesh_error(group)
        if known is None:
            raise
        _complain(known)
        return 1
    return 0


def _complain(error: MeshError) -> None:
    print(f"{error.reason}: {error.message}", file=sys.stderr, flush=True)  # noqa: T201
    if error.hint:
        print(f"next: {error.hint}", file=sys.stderr, flush=True)  # noqa: T201
