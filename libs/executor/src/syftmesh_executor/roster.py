"""The runs that an executor has under way: each id once, ended from outside by its future."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from syftmesh_core.errors import NotFound, WrongState

from syftmesh_executor.port import EndReason


class Roster:
    """Which runs are under way, and whether new ones are taken."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[EndReason]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def check(self, run_id: str) -> None:
        """Return when the run may begin.

        Raises:
            WrongState: EXECUTOR_CLOSED, or RUN_EXISTS while it is under way already.
        """
        if self._closed:
            raise WrongState("this executor is closed", reason="EXECUTOR_CLOSED")
        if run_id in self._running:
            raise WrongState(
                f"run {run_id} is running already", reason="RUN_EXISTS", metadata={"run_id": run_id}
            )

    def has(self, run_id: str) -> bool:
        """Whether the run is under way."""
        return run_id in self._running

    @contextmanager
    def entry(self, run_id: str) -> Iterator[asyncio.Future[EndReason]]:
        """Hold the run under way for the block; gives the future by which it is ended from outside."""
        ending: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self._running[run_id] = ending
        self._idle.clear()
        try:
            yield ending
        finally:
            del self._running[run_id]
            if not self._running:
                self._idle.set()

    def cancel(self, run_id: str) -> None:
        """End a run; one that is not under way, or ending already, stays as it is."""
        ending = self._running.get(run_id)
        if ending is not None and not ending.done():
            ending.set_result(EndReason.CANCELLED)

    async def close(self) -> None:
        """Take no more runs, end every one and wait for them."""
        self._closed = True
        for run_id in list(self._running):
            self.cancel(run_id)
        await self._idle.wait()


def unknown_run(run_id: str) -> NotFound:
    """Return the error of a run that does not go on."""
    return NotFound(f"run {run_id} does not go on here", reason="RUN_UNKNOWN", metadata={"run_id": run_id})
