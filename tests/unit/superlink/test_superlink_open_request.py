"""Requests of Flower's clients that are held for an answer end with the right of who made them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import pytest
from syftmesh_core.errors import Unauthenticated
from syftmesh_kit.caller import Caller
from syftmesh_kit.testing import FakeClock, FakeRandom
from syftmesh_kit.token import Revocation
from syftmesh_superlink.servicer.front import Front
from syftmesh_superlink.servicer.open_request import OpenRequests
from syftmesh_superlink.servicer.upstream import Answer

BOB, CARL = Caller("bob@y.example", "dev-b", "t1"), Caller("carl@z.example", "dev-c", "t2")


class Holding:
    """Holds every request until it may answer."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.waiting = 0

    async def answer_to(self, principal: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.waiting += 1
        await self.may.wait()
        return Answer(200, "application/protobuf", principal.encode())


@pytest.mark.parametrize(
    "revocation",
    [Revocation(principal=BOB.principal), Revocation(device_id="dev-b"), Revocation(token_id="t1")],
    ids=["person", "device", "token"],
)
async def test_a_held_request_ends_with_its_revocation_and_others_go_on(revocation: Revocation) -> None:
    handler = Holding()
    callers = {"bob": BOB, "carl": CARL}
    front = Front({"/v1/fleet/": handler}, callers.__getitem__, FakeClock(), FakeRandom())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://front") as client:
        held = {
            name: asyncio.create_task(
                client.post("/v1/fleet/pull-messages", headers={"authorization": f"Bearer {name}"})
            )
            for name in callers
        }
        while handler.waiting < 2:
            await asyncio.sleep(0)
        front.end_revoked(revocation)
        front.end_revoked(revocation)
        refused = await held["bob"]
        assert (refused.status_code, refused.json()["reason"]) == (401, "TOKEN_REVOKED")
        assert not held["carl"].done()
        handler.may.set()
        assert (await held["carl"]).content == CARL.principal.encode()


async def test_a_cancellation_of_another_cause_stays_one() -> None:
    requests = OpenRequests()

    async def hold() -> None:
        with requests.of(BOB):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    requests.end(Revocation(principal=CARL.principal))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    requests.end(Revocation(principal=BOB.principal))  # over: nothing is left to end


async def test_what_was_revoked_is_told_so() -> None:
    requests = OpenRequests()

    async def hold() -> None:
        with requests.of(BOB):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    requests.end(Revocation(principal=BOB.principal))
    with pytest.raises(Unauthenticated) as caught:
        await task
    assert caught.value.reason == "TOKEN_REVOKED"
