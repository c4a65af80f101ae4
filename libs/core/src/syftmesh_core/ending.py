"""A task group whose end cannot be missed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, Final, TypeVar

T = TypeVar("T")

AGAIN_S: Final = 1.0
"""Time that a cancelled task has to clean up before it is cancelled again, in seconds."""


class EndingGroup(asyncio.TaskGroup):
    """A `TaskGroup` that cancels again what a cancellation did not end.

    A cancellation is lost when it meets the very moment in which `asyncio.wait_for` of Python 3.11 gets what it
    waits for (https://github.com/python/cpython/issues/86296), and a loop that waits for the next message then
    goes on for ever. Call `end` before the block is left by an exception that is to end the group.
    """

    def __init__(self) -> None:
        super().__init__()
        self._members: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Add a task; as `TaskGroup.create_task`."""
        task = super().create_task(coro, name=name, context=context)
        self._members.add(task)
        task.add_done_callback(self._members.discard)
        return task

    def end(self) -> None:
        """Cancel every task now, and again each second until none is left."""
        for task in list(self._members):
            task.cancel()
        if self._members:
            asyncio.get_running_loop().call_later(AGAIN_S, self.end)
