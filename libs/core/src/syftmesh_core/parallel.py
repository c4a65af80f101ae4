"""Several waits at once, with the failure of one raised as itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from syftmesh_core.errors import MeshError

T = TypeVar("T")


async def in_parallel(calls: Iterable[Coroutine[Any, Any, T]], *, at_once: int) -> list[T]:
    """Return the results of all `calls` in their order, at most `at_once` of them under way.

    Raises:
        MeshError: That of the first call to fail; the others are cancelled.
    """
    permits = asyncio.Semaphore(at_once)
    waiting = list(calls)
    tasks: list[asyncio.Task[T]] = []
    failure: BaseException | None = None

    async def permitted(call: Coroutine[Any, Any, T]) -> T:
        async with permits:
            return await call

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(permitted(call)) for call in waiting]
    except* MeshError as failed:
        failure = failed.exceptions[0]
    finally:
        for call in waiting:
            call.close()  # one that never began; of a finished one this does nothing
    if failure is not None:
        raise failure
    return [task.result() for task in tasks]
