"""Limits when many ask for one subject at the same moment: everybody is told the truth, and nobody gets too much."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import Conflict, LimitExceeded
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.limit import TRIES, Limiter, Quota, Ticket

SUBJECT = "192.0.2.7"
STEP_S = 0.001
"""What one turn of the loop stands for: reading and writing take one each, as long as they take at the store."""


def quota(limit: int) -> Quota:
    return Quota("code_address", limit, reason="TOO_MANY_CODES", message="Too many codes.")


class Crowd:
    """Takers at replicas of one service, which share nothing but the store; time passes by turns of the loop."""

    def __init__(self, world: Any, seed: int = 0) -> None:
        self.clock = world.clock
        self.usages = type(world.stores.devices)()
        self.slept_s: list[float] = []
        self._random = random.Random(seed)  # noqa: S311 - an example that repeats

    def replica(self) -> Limiter:
        return Limiter(
            self.usages,
            Fingerprint(b"f" * 32),
            self.clock,
            random=self._random.randbytes,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        for _ in range(1 + int(seconds / STEP_S)):
            await asyncio.sleep(0)

    async def take_all(self, takers: int, limit: int) -> tuple[list[Ticket], list[BaseException]]:
        found = await asyncio.gather(
            *(self.replica().take(quota(limit), SUBJECT) for _ in range(takers)), return_exceptions=True
        )
        return (
            [item for item in found if isinstance(item, Ticket)],
            [item for item in found if isinstance(item, BaseException)],
        )


@settings(max_examples=40, deadline=None)
@given(takers=st.integers(1, 80), limit=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_of_many_that_ask_at_once_as_many_get_a_place_as_there_are_and_the_others_the_true_reason(
    world_of: Any, takers: int, limit: int, seed: int
) -> None:
    crowd = Crowd(world_of(), seed)
    tickets, errors = asyncio.run(crowd.take_all(takers, limit))
    assert len(tickets) == min(takers, limit)
    assert [(type(error), getattr(error, "reason", "")) for error in errors] == [
        (LimitExceeded, "TOO_MANY_CODES")
    ] * (takers - len(tickets))
    (row,) = crowd.usages.rows.values()
    assert len(row.record.times_ms) == len(tickets)


async def test_a_crowd_of_hundreds_is_served_or_refused_by_the_limit(world: Any) -> None:
    tickets, errors = await Crowd(world).take_all(300, 200)
    assert len(tickets) == 200
    assert {type(error) for error in errors} == {LimitExceeded}


async def test_all_places_that_are_given_back_at_once_are_free_again(world: Any) -> None:
    crowd = Crowd(world)
    tickets, _ = await crowd.take_all(50, 50)
    await asyncio.gather(*(crowd.replica().give_back(ticket) for ticket in tickets))
    again, errors = await crowd.take_all(50, 50)
    assert (len(again), errors) == (50, [])


async def test_a_full_record_refuses_without_a_wait(world: Any) -> None:
    crowd = Crowd(world)
    await crowd.take_all(1, 1)
    before = len(crowd.slept_s)
    with pytest.raises(LimitExceeded):
        await crowd.replica().take(quota(1), SUBJECT)
    assert len(crowd.slept_s) == before


async def test_a_record_that_never_stops_changing_is_given_up_after_seconds(world: Any) -> None:
    crowd = Crowd(world)

    async def lost(*_: Any) -> bool:
        return False

    crowd.usages.create = lost
    with pytest.raises(Conflict) as caught:
        await crowd.replica().take(quota(1), SUBJECT)
    assert caught.value.reason == "CONFLICT"
    assert len(crowd.slept_s) == TRIES - 1
    assert sum(crowd.slept_s) < 10
    assert not crowd.usages.rows
