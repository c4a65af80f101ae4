"""The bridge from blocking code to an event loop in a thread of its own, so that notebooks with a loop work too.

All portals of a process share one loop: gRPC wakes the loops of all threads for the events of each, and an event of
a loop that was closed is lost for the others.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

from syftmesh_core.errors import Cancelled, WrongState

T = TypeVar("T")
Last = Callable[[], Coroutine[Any, Any, None]]

_CANCEL_S: Final = 5.0
_CLOSE_S: Final = 10.0


class Portal:
    """What one client runs on the loop; may be used by several threads at once.

    It ends by `close`, when nobody holds it any more, or with the program.
    """

    def __init__(self) -> None:
        self._work = _Work(_thread())
        # Of the work, not of this object, which the finalizer must not hold; and the garbage collector, which
        # calls it anywhere, must not wait.
        self._finalizer = weakref.finalize(self, self._work.close, wait=False)
        self._finalizer.atexit = False  # type: ignore[misc]  # typeshed lacks its setter

    @property
    def is_open(self) -> bool:
        """Whether work can be run."""
        return self._finalizer.alive

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return what it returns; Ctrl-C cancels it and waits for its end.

        Raises:
            WrongState: CLIENT_CLOSED.
            Cancelled: The client was closed by another thread meanwhile.
        """
        return self._work.run(work)

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Give `items` one after the other; leaving the loop ends their source.

        Raises:
            WrongState: CLIENT_CLOSED.
        """

        async def following() -> tuple[T] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        async def end() -> None:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

        try:
            while (found := self.run(following())) is not None:
                yield found[0]
        finally:
            with suppress(WrongState):
                self.run(end())

    def finally_run(self, last: Last) -> None:
        """Let `last` be done when this ends."""
        self._work.last = last

    def close(self) -> None:
        """Cancel what runs and do what is to be done last; safe to call again, and from any thread."""
        self._finalizer.detach()
        self._work.close(wait=True)


class _Work:
    """The tasks of one portal, apart from it so that they do not keep it alive."""

    def __init__(self, thread: _Thread) -> None:
        self.last: Last | None = None
        self._thread = thread
        self._loop = thread.loop
        self._guard = threading.Lock()
        self._is_open = True
        self._tasks: set[asyncio.Task[Any]] = set()
        thread.open.add(self)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if _is_on(self._loop):
            work.close()
            raise WrongState("A blocking client cannot be used on its own loop.", reason="CLIENT_CLOSED")
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self._loop.create_task(work)
            begun.append(task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda ended: _settle(ended, outcome))

        def cancel() -> None:
            # Comes after `begin`, or that never was.
            if begun:
                begun[0].cancel()
            else:
                work.close()
                outcome.set_exception(_ended())

        try:
            self._schedule(begin)
            return outcome.result()
        except BaseException:
            if not outcome.done():  # this thread was interrupted or refused, the work did not end
                self._loop.call_soon_threadsafe(cancel)
                concurrent.futures.wait([outcome], timeout=_CANCEL_S)
            raise

    def close(self, *, wait: bool) -> None:
        with self._guard:
            if not self._is_open:
                return
            self._is_open = False
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if wait and not _is_on(self._loop):
            with suppress(concurrent.futures.TimeoutError):
                ending.result(timeout=_CLOSE_S)

    async def _end(self) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            if self.last is not None:
                await self.last()
        finally:
            self._thread.open.discard(self)

    def _schedule(self, step: Callable[[], None]) -> None:
        with self._guard:
            if not self._is_open:
                raise WrongState("The client is closed: connect again.", reason="CLIENT_CLOSED")
            self._loop.call_soon_threadsafe(step)


class _Thread:
    """The loop of this process, which runs until the process ends, and the work that is open on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_handle)
        self.open: set[_Work] = set()
        threading.Thread(target=self.loop.run_forever, name="syftmesh", daemon=True).start()
        atexit.register(self._close)

    def _close(self) -> None:
        for work in list(self.open):
            work.close(wait=True)


@cache
def _thread() -> _Thread:
    return _Thread()


def _is_on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _settle(ended: asyncio.Task[T], outcome: concurrent.futures.Future[T]) -> None:
    if ended.cancelled():
        outcome.set_exception(_ended())
    elif (failure := ended.exception()) is not None:
        outcome.set_exception(failure)
    else:
        outcome.set_result(ended.result())


def _ended() -> Cancelled:
    return Cancelled("The call was ended before it had an answer.")


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Where the program has loops of its own, gRPC wakes them all by one socket; all but the first find it empty.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
