"""Publishing and looking up device lists over a log in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from mesh.crypto.v1 import crypto_pb2
from syftmesh_core.errors import (
    Conflict,
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from syftmesh_core.identity.phrase import AccountRoot
from syftmesh_crypto.adapters import key_log as adapter
from syftmesh_crypto.adapters.key_log import KeyLog
from syftmesh_crypto.domain import lookup, publish
from syftmesh_crypto.domain.lookup import LookUpDevices
from syftmesh_crypto.domain.publish import PublishDeviceList
from syftmesh_kit import subject


@pytest.fixture
async def log(bus) -> AsyncIterator[KeyLog]:
    log = KeyLog(bus)
    task = asyncio.create_task(log.run())
    yield log
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def publisher(log) -> PublishDeviceList:
    return PublishDeviceList(log)


@pytest.fixture
def look_up(log) -> LookUpDevices:
    return LookUpDevices(log)


async def test_a_published_chain_is_given_back_in_order(publisher, look_up, alice):
    first = alice.first()
    second = alice.following(first, alice.device("a-2"))
    assert await publisher.publish(alice.principal, first) == 1
    assert await publisher.publish(alice.principal, second) == 2
    assert await look_up.lists(alice.principal, 0) == [first, second]
    assert await look_up.lists("ALICE@X.example", 2) == [second]
    assert await look_up.lists(alice.principal, 3) == []


async def test_publishing_the_newest_version_again_succeeds_and_stores_nothing(publisher, bus, alice):
    first = alice.first()
    assert [await publisher.publish(alice.principal, first) for _ in range(3)] == [1, 1, 1]
    assert len(bus.messages) == 1


async def test_an_answer_lost_on_the_way_is_repaired_by_publishing_again(publisher, bus, alice):
    first = alice.first()
    bus.before_publish = lambda: bus.store(
        subject.keylog(alice.principal),
        crypto_pb2.SignedDeviceList(device_list=first),
        hashlib.sha256(first).hexdigest(),
    )
    assert await publisher.publish(alice.principal, first) == 1
    assert len(bus.messages) == 1


async def test_of_two_next_versions_the_second_is_stale(publisher, alice):
    first = alice.first()
    await publisher.publish(alice.principal, first)
    await publisher.publish(alice.principal, alice.following(first, alice.device("a-2")))
    with pytest.raises(Conflict) as caught:
        await publisher.publish(alice.principal, alice.following(first, alice.device("a-3")))
    assert caught.value.reason == "DEVICE_LIST_STALE"


async def test_a_race_lost_at_the_log_is_stale(publisher, bus, alice):
    first = alice.first()
    other = alice.following(first, alice.device("a-2"))
    await publisher.publish(alice.principal, first)
    bus.before_publish = lambda: bus.store(
        subject.keylog(alice.principal), crypto_pb2.SignedDeviceList(device_list=other)
    )
    with pytest.raises(Conflict) as caught:
        await publisher.publish(alice.principal, alice.following(first, alice.device("a-3")))
    assert caught.value.reason == "DEVICE_LIST_STALE"


async def test_an_older_version_is_stale(publisher, alice):
    first = alice.first()
    await publisher.publish(alice.principal, first)
    await publisher.publish(alice.principal, alice.following(first, alice.device("a-2")))
    with pytest.raises(Conflict):
        await publisher.publish(alice.principal, first)


async def test_nobody_publishes_the_list_of_another(publisher, bus, alice, bob):
    with pytest.raises(PermissionDenied) as caught:
        await publisher.publish(bob.principal, alice.first())
    assert caught.value.reason == "PERMISSION_DENIED"
    assert not bus.messages


@pytest.mark.parametrize("data", [b"", b"x", b"SyftMesh/v1/device-list-signed\0", bytes(5000)])
async def test_bytes_that_are_no_list_are_invalid_input(publisher, alice, data):
    with pytest.raises(InvalidInput) as caught:
        await publisher.publish(alice.principal, data)
    assert caught.value.reason == "ENCODING_INVALID"


async def test_a_changed_byte_is_refused_everywhere(publisher, bus, alice):
    first = alice.first()
    for place in range(60, len(first), 97):
        damaged = bytearray(first)
        damaged[place] ^= 1
        with pytest.raises((InvalidInput, IntegrityFailure, PermissionDenied)):
            await publisher.publish(alice.principal, bytes(damaged))
    assert not bus.messages


async def test_a_list_signed_by_a_device_without_admin_is_refused(publisher, alice):
    first = alice.first()
    agent = alice.device("a-2")
    second = alice.following(first, agent)
    await publisher.publish(alice.principal, first)
    await publisher.publish(alice.principal, second)
    admin_agent = type(agent).from_bytes(agent.to_bytes())
    forged = _signed_anyway(alice, second, admin_agent)
    with pytest.raises(IntegrityFailure) as caught:
        await publisher.publish(alice.principal, forged)
    assert caught.value.reason == "DEVICE_LIST_INVALID"


def _signed_anyway(person, previous, signer) -> bytes:
    from syftmesh_core.identity import device_list

    before = device_list.parse_list(previous)
    return device_list._sign(
        person.principal, before.version + 1, before.root_key, before.devices, before.digest, signer
    )


async def test_a_first_list_must_be_list_1(publisher, alice):
    with pytest.raises(IntegrityFailure) as caught:
        await publisher.publish(alice.principal, alice.following(alice.first()))
    assert caught.value.reason == "DEVICE_LIST_INVALID"


async def test_a_gap_in_the_chain_is_refused(publisher, alice):
    first = alice.first()
    second = alice.following(first, alice.device("a-2"))
    await publisher.publish(alice.principal, first)
    with pytest.raises(IntegrityFailure) as caught:
        await publisher.publish(alice.principal, alice.following(second))
    assert caught.value.reason == "DEVICE_LIST_INVALID"


async def test_a_new_root_is_refused(publisher, alice):
    await publisher.publish(alice.principal, alice.first())
    stranger = type(alice)(alice.principal, AccountRoot(bytes([9]) * 32), alice.admin)
    with pytest.raises(IntegrityFailure) as caught:
        await publisher.publish(alice.principal, stranger.first())
    assert caught.value.reason == "KEY_CHANGED"


async def test_unknown_and_malformed_principals(look_up):
    with pytest.raises(NotFound) as missing:
        await look_up.lists("nobody@x.example", 0)
    assert missing.value.reason == "PRINCIPAL_UNKNOWN"
    for name in ("", "nobody", "*@x.example", "a@b"):
        with pytest.raises(InvalidInput) as caught:
            await look_up.lists(name, 0)
        assert caught.value.reason == "PRINCIPAL_INVALID"


async def test_a_reader_behind_the_log_waits_for_it(publisher, look_up, bus, alice):
    await publisher.publish(alice.principal, alice.first())
    bus.lag.clear()
    second = alice.following(alice.first(), alice.device("a-2"))
    bus.store(subject.keylog(alice.principal), crypto_pb2.SignedDeviceList(device_list=second))
    asked = asyncio.create_task(look_up.lists(alice.principal, 0))
    await asyncio.sleep(0)
    assert not asked.done()
    bus.lag.set()
    assert len(await asked) == 2


async def test_a_reader_that_stays_behind_is_unavailable_not_stale(
    publisher, look_up, bus, alice, monkeypatch
):
    monkeypatch.setattr(adapter, "_CATCH_UP_S", 0.01)
    await publisher.publish(alice.principal, alice.first())
    bus.lag.clear()
    second = alice.following(alice.first(), alice.device("a-2"))
    bus.store(subject.keylog(alice.principal), crypto_pb2.SignedDeviceList(device_list=second))
    with pytest.raises(Unavailable):
        await look_up.lists(alice.principal, 0)


async def test_damaged_entries_never_reach_anybody(look_up, bus, alice, bob):
    bus.store(subject.keylog(bob.principal), crypto_pb2.SignedDeviceList(device_list=b"rubbish"))
    bus.store(subject.keylog(alice.principal), crypto_pb2.SignedDeviceList(device_list=bob.first()))
    for name in (alice.principal, bob.principal):
        with pytest.raises(IntegrityFailure) as caught:
            await look_up.lists(name, 0)
        assert caught.value.reason == "KEYLOG_DAMAGED"


async def test_a_chain_goes_on_behind_a_damaged_entry(publisher, look_up, bus, alice):
    first = alice.first()
    await publisher.publish(alice.principal, first)
    bus.store(subject.keylog(alice.principal), crypto_pb2.SignedDeviceList(device_list=b"rubbish"))
    second = alice.following(first, alice.device("a-2"))
    assert await publisher.publish(alice.principal, second) == 2
    assert await look_up.lists(alice.principal, 0) == [first, second]


async def test_the_log_is_not_ready_before_it_was_read(bus, alice):
    bus.store(subject.keylog(alice.principal), crypto_pb2.SignedDeviceList(device_list=alice.first()))
    log = KeyLog(bus)
    with pytest.raises(Unavailable):
        log.check()
    task = asyncio.create_task(log.run())
    assert (await log.chain(alice.principal)).newest.version == 1
    log.check()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_publish_is_acknowledged_only_after_the_journal(bus, alice):
    journaled: list[int] = []

    async def barrier(sequence: int) -> None:
        if not journaled:
            journaled.append(sequence)
            raise DeadlineExceeded("lags", reason="JOURNAL_LAGS")
        journaled.append(sequence)

    log = KeyLog(bus, barrier)
    task = asyncio.create_task(log.run())
    use_case = PublishDeviceList(log)
    with pytest.raises(DeadlineExceeded):
        await use_case.publish(alice.principal, alice.first())
    assert await use_case.publish(alice.principal, alice.first()) == 1
    assert journaled == [1, 1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_long_chains_come_in_pages(publisher, look_up, alice, monkeypatch):
    monkeypatch.setattr(lookup, "PAGE_BYTES", 1)
    first = alice.first()
    second = alice.following(first, alice.device("a-2"))
    await publisher.publish(alice.principal, first)
    await publisher.publish(alice.principal, second)
    assert await look_up.lists(alice.principal, 1) == [first]
    assert await look_up.lists(alice.principal, 2) == [second]


async def test_versions_are_limited(publisher, alice, monkeypatch):
    monkeypatch.setattr(publish, "MAX_VERSIONS", 1)
    first = alice.first()
    await publisher.publish(alice.principal, first)
    with pytest.raises(LimitExceeded) as caught:
        await publisher.publish(alice.principal, alice.following(first, alice.device("a-2")))
    assert caught.value.reason == "DEVICE_LIST_LIMIT"
