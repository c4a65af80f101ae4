"""A group ends also when one of its tasks lost the first cancellation."""

from __future__ import annotations

import asyncio

import pytest
from syftmesh_core import ending
from syftmesh_core.ending import EndingGroup


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.001)


class _Over(Exception):
    pass


async def test_a_task_that_lost_its_cancellation_is_cancelled_again() -> None:
    lost: list[int] = []

    async def deaf() -> None:
        for number in range(3):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(number)
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        try:
            async with EndingGroup() as tasks:
                tasks.create_task(deaf())
                await asyncio.sleep(0)
                tasks.end()
                raise _Over
        except* _Over:
            pass
    assert lost == [0, 1, 2]


async def test_a_task_that_has_ended_is_left_alone() -> None:
    async def done() -> int:
        return 7

    async with EndingGroup() as tasks:
        task = tasks.create_task(done(), name="short")
        assert await task == 7
        tasks.end()
    assert task.get_name() == "short"
