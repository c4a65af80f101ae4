"""The bridge from blocking code to an event loop of its own, so that notebooks with a loop work too."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from syftmesh_core.errors import WrongState

T = TypeVar("T")


class Portal:
    """One event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="syftmesh", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether work can be run."""
        return not self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return what it returns; Ctrl-C cancels it and waits for its end.

        Raises:
            WrongState: CLIENT_CLOSED.
        """
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            work.close()
            raise WrongState("The client is closed: connect again.", reason="CLIENT_CLOSED")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            concurrent.futures.wait([future], timeout=5.0)
            raise

    def close(self) -> None:
        """Stop the loop; safe to call again."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_rest(), self._loop).result(timeout=10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_rest() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
