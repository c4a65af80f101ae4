"""Calls through routers that die at any step: nothing lost, nothing doubled, order kept per sender.

Time is virtual: the loop jumps to the next timer, so timeouts cost nothing. A crash ends the router's tasks at a
step of its own and leaves what was durable; the next one, of a higher epoch, goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_router.domain.acceptance import Acceptance
from syftmesh_router.domain.delivery import DeliveryTimes, SiteDelivery
from syftmesh_router.domain.device_book import DeviceBook
from syftmesh_router.domain.ending import Ending
from syftmesh_router.domain.envelope import CallMessage, Envelope
from syftmesh_router.domain.ports import StoredCall, Versioned
from syftmesh_router.domain.record import CallRecord, CallState, Reply

SITE = "bob@y.example"
TIMES = DeliveryTimes(direct_s=0.2, stored_s=5.0, retry_s=0.2, attempts=5)
NO_ATTEMPT_LIMIT = DeliveryTimes(direct_s=0.2, stored_s=5.0, retry_s=0.2, attempts=10_000)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:  # cancels what is left
        return runner.run(work)


class LoopClock:
    def now_ms(self) -> int:
        return 1_000_000 + int(asyncio.get_running_loop().time() * 1000)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class Disk:
    """What is durable: records, stored calls, replies, dead letters. Each step may be the router's last."""

    crash_at: frozenset[int] = frozenset()
    steps: int = 0
    crashed: asyncio.Event = field(default_factory=asyncio.Event)
    records: dict[str, tuple[CallRecord, int]] = field(default_factory=dict)
    calls: list[StoredCall] = field(default_factory=list)
    sequence: int = 0
    replies: dict[str, Reply] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def step(self) -> None:
        await asyncio.sleep(0.0005)
        if self.crashed.is_set():
            raise Unavailable("gone", reason="GONE")
        self.steps += 1
        if self.steps in self.crash_at:
            self.crashed.set()
            raise Unavailable("gone", reason="GONE")

    # Records
    async def get(self, call_id: str) -> Versioned | None:
        await self.step()
        found = self.records.get(call_id)
        return Versioned(*found) if found else None

    async def create(self, record: CallRecord) -> Versioned | None:
        await self.step()
        if record.call_id in self.records:
            return None
        self.records[record.call_id] = (record, 1)
        await self.step()
        return Versioned(record, 1)

    async def update(self, old: Versioned, record: CallRecord) -> Versioned | None:
        await self.step()
        if self.records[record.call_id][1] != old.revision:
            return None
        self.records[record.call_id] = (record, old.revision + 1)
        await self.step()
        return Versioned(record, old.revision + 1)

    def watch(self) -> AsyncIterator[CallRecord]:
        raise NotImplementedError

    # Log
    async def append(self, message: CallMessage) -> None:
        await self.step()
        if all(s.message.envelope.call_id != message.envelope.call_id for s in self.calls):
            self.sequence += 1
            self.calls.append(StoredCall(message, self.sequence))
        self.arrived.set()
        await self.step()

    async def next(self, site: str, sender: str, after: int) -> StoredCall | None:
        await self.step()
        mine = [s for s in self.calls if s.message.envelope.sender == sender and s.sequence > after]
        return mine[0] if mine else None

    async def remove(self, site: str, stored: StoredCall) -> None:
        await self.step()
        self.calls = [s for s in self.calls if s.sequence != stored.sequence]
        await self.step()

    async def bury(self, message: CallMessage) -> None:
        await self.step()
        self.dead.append(message.envelope.call_id)

    async def arrivals(self, site: str) -> AsyncGenerator[str, None]:
        seen = 0
        while True:
            self.arrived.clear()
            for stored in [s for s in self.calls if s.sequence > seen]:
                seen = stored.sequence
                yield stored.message.envelope.sender
            await self.arrived.wait()

    async def let_go(self, site: str) -> None:
        return

    # Replies
    async def put_first(self, caller: str, reply: Reply) -> Reply:
        return self.replies.setdefault(reply.call_id, reply)


@dataclass
class Site:
    """The device's side: insert-or-ignore into an inbox, epochs never go back; answers may be lost."""

    lost: frozenset[int] = frozenset()
    device_id: str = "dev"
    apps: frozenset[str] = frozenset({"*"})
    inbox: list[str] = field(default_factory=list)
    deliveries: list[str] = field(default_factory=list)
    epoch: int = 0

    async def deliver(self, message: CallMessage, epoch: int, attempt: int, timeout_s: float) -> bool:
        call_id = message.envelope.call_id
        number = len(self.deliveries)
        self.deliveries.append(call_id)
        if number in self.lost and number % 2:  # lost on the way there
            await asyncio.sleep(timeout_s)
            return False
        await asyncio.sleep(0.002)
        if epoch < self.epoch:
            await asyncio.sleep(timeout_s)
            return False
        self.epoch = epoch
        if call_id not in self.inbox:
            self.inbox.append(call_id)
        if number in self.lost:  # stored, and RECEIVED lost on the way back
            await asyncio.sleep(timeout_s)
            return False
        return True


def call(
    number: int, sender: str, app: str = "chat", life_ms: int = 3_600_000, body: bytes = b"x"
) -> CallMessage:
    call_id = f"00000000-0000-7000-8000-{number:012d}"
    return CallMessage(
        Envelope(call_id, SITE, app, "say", sender, "dev", 1_000_000, 1_000_000 + life_ms), body
    )


def delivery(disk: Disk, link: Site | None, epoch: int, times: DeliveryTimes = TIMES) -> SiteDelivery:
    book = DeviceBook()
    if link is not None:
        book.put(link)
    ending = Ending(disk, disk, LoopClock(), lambda _: None)  # type: ignore[arg-type]
    return SiteDelivery(
        SITE,
        book=book,
        acceptance=Acceptance(disk, disk),
        records=disk,
        log=disk,
        ending=ending,
        clock=LoopClock(),
        epoch=lambda: 0 if disk.crashed.is_set() else epoch,
        times=times,
    )


async def _world(plan: list[tuple[str, bool]], crash_at: frozenset[int], lost: frozenset[int]) -> Any:
    disk, site = Disk(crash_at), Site(lost)
    messages = [call(n, sender) for n, (sender, _) in enumerate(plan)]
    acknowledged: dict[str, list[str]] = {"a@x.example": [], "b@x.example": []}
    current: list[SiteDelivery] = []

    async def routers() -> None:
        epoch = 0
        while True:
            epoch += 1
            disk.crashed.clear()
            holder = delivery(disk, site, epoch, NO_ATTEMPT_LIMIT)
            current[:] = [holder]
            running = asyncio.create_task(holder.run())
            await disk.crashed.wait()
            current.clear()
            running.cancel()
            with suppress(asyncio.CancelledError, MeshError):
                await running
            await asyncio.sleep(0.3)

    async def sender(name: str) -> None:
        for message, (who, direct) in zip(messages, plan, strict=True):
            if who != name:
                continue
            while True:
                try:
                    if current:
                        await current[0].submit(message, store=not direct)
                    elif disk.crashed.is_set():
                        raise Unavailable("nobody", reason="GONE")
                except Unavailable:
                    await asyncio.sleep(0.05)
                    continue
                if current:
                    acknowledged[name].append(message.envelope.call_id)
                    break
                await asyncio.sleep(0.05)

    keeping = asyncio.create_task(routers())
    await asyncio.sleep(0)
    async with asyncio.timeout(10_000):
        await asyncio.gather(*(sender(name) for name in acknowledged))
        while disk.calls:
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    return disk, site, messages, acknowledged


@settings(max_examples=120, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["a@x.example", "b@x.example"]), st.booleans()), min_size=1, max_size=12
    ),
    crash_at=st.frozensets(st.integers(1, 120), max_size=6),
    lost=st.frozensets(st.integers(0, 20), max_size=8),
)
def test_every_acknowledged_call_arrives_once_and_in_order(plan, crash_at, lost):
    disk, site, messages, acknowledged = run(_world(plan, crash_at, lost))
    ids = [m.envelope.call_id for m in messages]
    assert sorted(site.inbox) == sorted(ids)  # nothing lost, nothing that was not sent
    assert len(set(site.inbox)) == len(site.inbox)
    for name, sent in acknowledged.items():
        mine = [m.envelope.call_id for m in messages if m.envelope.sender == name]
        assert [i for i in site.inbox if i in set(mine)] == sent == mine
    # A call that was delivered directly by a router that then died is noted by its reply at the latest.
    states = {record.state for record, _ in disk.records.values()}
    assert states <= ({CallState.DELIVERED, CallState.PENDING} if crash_at else {CallState.DELIVERED})
    assert disk.dead == []


def _simple(scenario: Any) -> Any:
    async def inside() -> Any:
        disk = Disk()
        return await scenario(disk)

    return run(inside())


async def _until(check: Any) -> None:
    async with asyncio.timeout(1000):
        while not check():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("direct", [True, False])
def test_online_call_is_delivered_and_only_a_send_is_stored(direct):
    async def scenario(disk: Disk) -> None:
        site = Site()
        holder = delivery(disk, site, 1)
        running = asyncio.create_task(holder.run())
        record = await holder.submit(call(1, "a@x.example"), store=not direct)
        assert record.state is (CallState.DELIVERED if direct else CallState.PENDING)
        await _until(lambda: site.inbox)
        assert disk.sequence == (0 if direct else 1)
        running.cancel()

    _simple(scenario)


def test_direct_path_is_closed_while_a_call_of_the_sender_is_stored():
    async def scenario(disk: Disk) -> None:
        await Acceptance(disk, disk).store(call(1, "a@x.example"))
        site = Site()
        holder = delivery(disk, site, 1)
        # Nothing runs yet that delivers what is stored: the new call must wait behind it.
        assert (await holder.submit(call(2, "a@x.example"), store=False)).state is CallState.PENDING
        assert (await holder.submit(call(3, "b@x.example"), store=False)).state is CallState.DELIVERED
        running = asyncio.create_task(holder.run())
        await _until(lambda: len(site.inbox) == 3)
        assert [i[-1] for i in site.inbox] == ["3", "1", "2"]
        running.cancel()

    _simple(scenario)


def test_call_that_missed_received_keeps_its_place_before_the_next():
    async def scenario(disk: Disk) -> None:
        site = Site(lost=frozenset({1}))
        site.deliveries.append("placeholder")  # so that the first delivery is number 1: lost on the way there
        holder = delivery(disk, site, 1)
        running = asyncio.create_task(holder.run())
        first = asyncio.create_task(holder.submit(call(1, "a@x.example"), store=False))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(holder.submit(call(2, "a@x.example"), store=False))
        await asyncio.gather(first, second)
        await _until(lambda: len(site.inbox) == 2)
        assert [i[-1] for i in site.inbox] == ["1", "2"]
        running.cancel()

    _simple(scenario)


def test_app_whose_device_is_away_holds_up_only_its_own_calls():
    async def scenario(disk: Disk) -> None:
        site = Site()
        holder = delivery(disk, site, 1)
        holder.book.claim(frozenset({"rds"}))
        running = asyncio.create_task(holder.run())
        for number, app in enumerate(("rds", "chat", "rds", "chat")):
            await holder.submit(call(number, "a@x.example", app), store=True)
        await _until(lambda: len(site.inbox) == 2)
        assert [i[-1] for i in site.inbox] == ["1", "3"]
        runner = Site(device_id="runner", apps=frozenset({"rds"}))
        holder.book.put(runner)
        await _until(lambda: len(runner.inbox) == 2)
        assert [i[-1] for i in runner.inbox] == ["0", "2"]
        running.cancel()

    _simple(scenario)


def test_fifth_failed_delivery_buries_the_call_and_lets_the_next_pass():
    async def scenario(disk: Disk) -> None:
        site = Site(lost=frozenset(range(1, 11, 2)))

        async def deaf(message: CallMessage, epoch: int, attempt: int, timeout_s: float) -> bool:
            site.deliveries.append(f"{message.envelope.call_id[-1]}/{attempt}")
            return message.envelope.call_id.endswith("2")

        site.deliver = deaf  # type: ignore[method-assign]
        holder = delivery(disk, site, 1)
        running = asyncio.create_task(holder.run())
        await holder.submit(call(1, "a@x.example"), store=True)
        await holder.submit(call(2, "a@x.example"), store=True)
        await _until(lambda: not disk.calls)
        assert site.deliveries == ["1/1", "1/2", "1/3", "1/4", "1/5", "2/1"]
        record, _ = disk.records[call(1, "a@x.example").envelope.call_id]
        assert (record.state, record.failure_reason) == (CallState.FAILED, "CALL_UNDELIVERABLE")
        assert [i[-1] for i in disk.dead] == ["1"]
        running.cancel()

    _simple(scenario)


def test_stored_call_past_its_expiry_ends_without_delivery():
    async def scenario(disk: Disk) -> None:
        await Acceptance(disk, disk).store(call(1, "a@x.example", life_ms=1000))
        await asyncio.sleep(2)
        site = Site()
        holder = delivery(disk, site, 1)
        running = asyncio.create_task(holder.run())
        await _until(lambda: not disk.calls)
        assert site.deliveries == []
        assert disk.records[call(1, "").envelope.call_id][0].state is CallState.EXPIRED
        running.cancel()

    _simple(scenario)


def test_app_that_nobody_serves_ends_at_once_also_when_sent():
    async def scenario(disk: Disk) -> None:
        holder = delivery(disk, Site(apps=frozenset({"rds"})), 1)
        for number, store in enumerate((True, False)):
            record = await holder.submit(call(number, "a@x.example"), store=store)
            assert (record.state, record.failure_reason) == (CallState.NOT_FOUND, "APP_UNKNOWN")
        assert disk.sequence == 0

    _simple(scenario)


def test_lost_lease_closes_the_direct_path():
    async def scenario(disk: Disk) -> None:
        holder = delivery(disk, Site(), 0)
        with pytest.raises(Unavailable) as caught:
            await holder.submit(call(1, "a@x.example"), store=False)
        assert caught.value.reason == "NOT_HOLDER"

    _simple(scenario)


def test_stored_call_of_another_replica_does_not_overtake_a_direct_one_on_its_way():
    async def scenario(disk: Disk) -> None:
        site = Site()
        quick = site.deliver

        async def slow_first(message: CallMessage, epoch: int, attempt: int, timeout_s: float) -> bool:
            if message.envelope.call_id.endswith("1"):
                await asyncio.sleep(0.1)
            return await quick(message, epoch, attempt, timeout_s)

        site.deliver = slow_first  # type: ignore[method-assign]
        holder = delivery(disk, site, 1)
        running = asyncio.create_task(holder.run())
        first = asyncio.create_task(holder.submit(call(1, "a@x.example"), store=False))
        await asyncio.sleep(0.02)
        await Acceptance(disk, disk).store(call(2, "a@x.example"))
        await first
        await _until(lambda: len(site.inbox) == 2)
        assert [i[-1] for i in site.inbox] == ["1", "2"]
        running.cancel()

    _simple(scenario)


class FailsFirst(Disk):
    """A log that is away at the first look, before anything could be done."""

    is_there: bool = False

    async def arrivals(self, site: str) -> AsyncGenerator[str, None]:
        if not self.is_there:
            self.is_there = True
            raise Unavailable("away", reason="GONE")
        async for sender in Disk.arrivals(self, site):
            yield sender


def test_what_waits_is_delivered_though_the_log_failed_before_its_worker_began() -> None:
    async def story() -> list[str]:
        disk, site = FailsFirst(), Site()
        holder = delivery(disk, site, 1)
        await holder.submit(call(1, "a@x.example"), store=True)
        with pytest.raises(ExceptionGroup):
            await holder.run()
        running = asyncio.create_task(holder.run())
        async with asyncio.timeout(100):
            while disk.calls:
                await asyncio.sleep(0.1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return site.inbox

    assert run(story()) == [call(1, "a@x.example").envelope.call_id]
