"""The journal between a real nats-server and a real S3 server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, LimitExceeded
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.journal import Journaler, JournalMetrics, read_journal, wait_journaled
from syftmesh_kit.journal_format import object_prefix, parse_range
from syftmesh_kit.lease import Lease
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.stream import StreamSpec
from syftmesh_kit.testing import FakeClock, FakeObjectStore

pytestmark = pytest.mark.integration


@pytest.fixture
async def stream(bus: Bus, unique: str) -> str:
    await bus.ensure_kv(topology.bucket(subject.KV_JOURNAL))
    await bus.ensure_stream(StreamSpec(unique, (f"{unique}.>",)))
    return unique


@pytest.fixture
def store(s3: S3Config) -> S3ObjectStore:
    return S3ObjectStore(s3)


async def fill(bus: Bus, stream: str, start: int, count: int) -> None:
    for number in range(start, start + count):
        await bus.publish(
            f"{stream}.{number % 7}", StringValue(value=str(number)), headers={"x-number": str(number)}
        )


@asynccontextmanager
async def journaling(
    bus: Bus, store: S3ObjectStore | FakeObjectStore, stream: str, term_s: float = 2.0
) -> AsyncIterator[CollectorRegistry]:
    registry = CollectorRegistry()
    journaler = Journaler(bus, store, stream, SystemClock(), JournalMetrics(registry), term_s=term_s)
    task = asyncio.create_task(journaler.run())
    try:
        yield registry
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def numbers(store: S3ObjectStore | FakeObjectStore, stream: str) -> list[int]:
    return [int(message.decode(StringValue).value) async for message in read_journal(store, stream, 1)]


async def test_what_is_acknowledged_is_journaled_within_a_second(
    bus: Bus, store: S3ObjectStore, stream: str
) -> None:
    async with journaling(bus, store, stream):
        await wait_for_holder(bus, store, stream)
        await fill(bus, stream, 1, 50)
        await wait_journaled(bus, stream, 51, timeout_s=1.5)
        assert await numbers(store, stream) == list(range(51))
        last = [message async for message in read_journal(store, stream, 1)][-1]
        assert (last.subject, last.headers["x-number"], last.sequence) == (f"{stream}.1", "50", 51)


async def wait_for_holder(bus: Bus, store: S3ObjectStore, stream: str) -> None:
    await fill(bus, stream, 0, 1)
    await wait_journaled(bus, stream, 1, timeout_s=10)


async def test_the_next_journaler_goes_on_behind_the_last_object(
    bus: Bus, store: S3ObjectStore, stream: str
) -> None:
    await fill(bus, stream, 0, 20)
    async with journaling(bus, store, stream):
        await wait_journaled(bus, stream, 20, timeout_s=10)
    await fill(bus, stream, 20, 20)
    async with journaling(bus, store, stream):
        await wait_journaled(bus, stream, 40, timeout_s=10)
    ranges = [parse_range(info.key) async for info in store.list(object_prefix(stream, 1))]
    assert [first for first, _ in ranges] == [1] + [last + 1 for _, last in ranges[:-1]]
    assert ranges[-1][1] == 40
    assert await numbers(store, stream) == list(range(40))


async def test_a_journaler_killed_before_it_told_its_position_is_continued(
    bus: Bus, store: S3ObjectStore, stream: str
) -> None:
    await fill(bus, stream, 0, 10)
    async with journaling(bus, store, stream):
        await wait_journaled(bus, stream, 10, timeout_s=10)
    # As after kill -9 between the object and the lease: objects are there, the position is not.
    await bus.kv(subject.KV_JOURNAL).delete(subject.kv_key(stream))
    await fill(bus, stream, 10, 5)
    async with journaling(bus, store, stream):
        await wait_journaled(bus, stream, 15, timeout_s=10)
    assert await numbers(store, stream) == list(range(15))


async def test_a_silent_holder_is_replaced_after_its_term(
    bus: Bus, store: S3ObjectStore, stream: str
) -> None:
    dead = Lease(bus.kv(subject.KV_JOURNAL), subject.kv_key(stream), "dead", SystemClock(), term_s=1.0)
    assert await dead.try_acquire()
    await fill(bus, stream, 0, 3)
    async with journaling(bus, store, stream, term_s=1.0):
        await wait_journaled(bus, stream, 3, timeout_s=10)
    assert not await dead.renew()


async def test_two_journalers_write_one_journal(bus: Bus, store: S3ObjectStore, stream: str) -> None:
    async with journaling(bus, store, stream), journaling(bus, store, stream):
        await fill(bus, stream, 0, 60)
        await wait_journaled(bus, stream, 60, timeout_s=10)
    assert await numbers(store, stream) == list(range(60))


async def test_an_absent_store_delays_the_journal_and_shows_as_lag(bus: Bus, stream: str) -> None:
    store = FakeObjectStore()
    async with journaling(bus, store, stream) as registry:
        store.away = True
        await fill(bus, stream, 0, 5)
        with pytest.raises(DeadlineExceeded) as caught:
            await wait_journaled(bus, stream, 5, timeout_s=2.5)
        assert caught.value.reason == "JOURNAL_LAGS"
        assert (registry.get_sample_value("syftmesh_journal_lag_seconds", {"stream": stream}) or 0) > 0.5
        store.away = False
        await wait_journaled(bus, stream, 5, timeout_s=10)
    assert await numbers(store, stream) == list(range(5))


async def test_a_bus_that_is_full_delays_the_journal_and_ends_nothing(
    bus: Bus, store: S3ObjectStore, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    async def is_full(self: Lease) -> bool:
        nonlocal refused
        refused += 1
        raise LimitExceeded("The stream is full.", reason="STREAM_FULL")

    await fill(bus, stream, 1, 3)
    monkeypatch.setattr(Lease, "try_acquire", is_full)
    async with asyncio.timeout(20), journaling(bus, store, stream):
        while refused < 2:
            await asyncio.sleep(0.05)
        assert await numbers(store, stream) == []
        monkeypatch.undo()
        await wait_journaled(bus, stream, 3, timeout_s=10)
    assert await numbers(store, stream) == [1, 2, 3]


async def test_a_missing_object_is_a_gap_and_a_changed_one_is_corrupt(bus: Bus, stream: str) -> None:
    store = FakeObjectStore()
    for start in (0, 5):
        await fill(bus, stream, start, 5)
        async with journaling(bus, store, stream):
            await wait_journaled(bus, stream, start + 5, timeout_s=10)
    first, second = sorted(store.objects)
    kept = store.objects[first]
    store.objects[first] = kept[:-40] + b"x" + kept[-39:]
    with pytest.raises(IntegrityFailure) as caught:
        await numbers(store, stream)
    assert caught.value.reason == "JOURNAL_CORRUPT"
    del store.objects[first]
    with pytest.raises(IntegrityFailure) as caught:
        await numbers(store, stream)
    assert caught.value.reason == "JOURNAL_GAP"
    assert second


async def test_a_stream_behind_its_journal_is_not_journaled(bus: Bus, stream: str) -> None:
    store = FakeObjectStore()
    await fill(bus, stream, 0, 5)
    async with journaling(bus, store, stream):
        await wait_journaled(bus, stream, 5, timeout_s=10)
    await bus.jetstream.delete_stream(stream)
    await bus.ensure_stream(StreamSpec(stream, (f"{stream}.>",)))
    await fill(bus, stream, 100, 2)
    before = dict(store.objects)
    async with journaling(bus, store, stream):
        await asyncio.sleep(1.5)
    assert store.objects == before


async def test_lease_has_one_holder_and_counts_terms(bus: Bus, stream: str) -> None:
    bucket, key = bus.kv(subject.KV_JOURNAL), subject.kv_key(stream)
    clock = FakeClock()
    one, two = (Lease(bucket, key, name, clock) for name in ("one", "two"))
    assert await one.try_acquire()
    assert not await two.try_acquire()
    assert await one.renew({"at": 7})
    assert (one.is_held, two.is_held) == (True, False)
    clock.advance(8.1)
    assert not one.is_held
    assert not await two.try_acquire()  # it has not yet seen a whole term of silence itself
    clock.advance(10)
    assert await two.try_acquire()
    assert (two.term, two.value) == (2, {"at": 7})
    assert not await one.renew()
    await two.release()
    assert await one.try_acquire()
