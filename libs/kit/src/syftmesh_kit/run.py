"""The frame of every ``__main__``: signals, exit codes, and the last line of a failure."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
from syftmesh_core.errors import MeshError

ServiceMain = Callable[[asyncio.Event], Awaitable[None]]


def run_service(main: ServiceMain) -> int:
    """Run `main` until it returns, and return the exit code of the process.

    `main` gets an event that SIGTERM and SIGINT set: it then drains and returns. A second signal
    ends at once.

    Returns:
        0 after a drain; a MeshError's own exit code (2 for settings, whose variable the message names); 1
        for a defect; 130 when a second signal cut the drain short.
    """
    try:
        asyncio.run(_run(main))
    except MeshError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        return _exit_code(group)
    except Exception:  # noqa: BLE001 - see the next line
        # The outermost frame: log it and say so in the exit code.
        structlog.get_logger("syftmesh").exception("service.failed")
        return 1
    return 0


def _exit_code(group: BaseExceptionGroup[BaseException]) -> int:
    """Complain of what a task group ended with, and return the exit code."""
    known, rest = group.split(MeshError)
    if rest is not None and rest.subgroup(Exception) is not None:
        structlog.get_logger("syftmesh").error("service.failed", exc_info=group)
        return 1
    if rest is not None:
        return 130
    if known is None:
        return 1
    first = _first(known)
    _complain(first)
    return first.exit_code


async def _run(main: ServiceMain) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await main(stop)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _first(group: BaseExceptionGroup[MeshError]) -> MeshError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, MeshError):
        raise TypeError("a group of MeshErrors holds nothing else")
    return error


def _complain(error: MeshError) -> None:
    print(error.message, file=sys.stderr)  # noqa: T201 - whoever starts the process reads this, log or not
    if error.hint:
        print(error.hint, file=sys.stderr)  # noqa: T201
