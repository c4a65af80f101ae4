"""The bus on a real nats-server: barrier, requests, publishing, conflicts, batches, limits."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from nats.aio.msg import Msg
from syftmesh_core.errors import Conflict, InvalidInput, LimitExceeded, NotFound, Unavailable
from syftmesh_kit.bus import Bus
from syftmesh_kit.consumer import ConsumerSettings
from syftmesh_kit.durability import assert_sync_always
from syftmesh_kit.message import Outgoing, decode_payload
from syftmesh_kit.native import NatsAddress
from syftmesh_kit.stream import KvSpec, StreamSpec

pytestmark = pytest.mark.integration


def text(value: str) -> StringValue:
    return StringValue(value=value)


async def answer(message: Msg) -> None:
    await message.respond(b"here")


def spec(name: str, **settings: object) -> StreamSpec:
    return StreamSpec(name, (f"{name}.>",), **settings)  # type: ignore[arg-type]


async def test_server_says_that_it_syncs_always(nats_url: NatsAddress) -> None:
    await assert_sync_always(nats_url.monitor_url)


async def test_ready_is_a_barrier_for_requests_from_another_connection(
    nats_url: NatsAddress, bus: Bus, unique: str
) -> None:
    other = await Bus.connect(nats_url.url, name="other", user=nats_url.user, password=nats_url.password)
    refused = 0
    for number in range(300):
        subject = f"{unique}.{number}"
        subscription = await bus.subscribe(subject, answer)
        await bus.ready()
        try:
            await other.client.request(subject, b"", timeout=2)  # the raw client: no retry hides a miss
        except Exception:  # noqa: BLE001 - counted, whatever it is
            refused += 1
        await subscription.unsubscribe()
    await other.close()
    assert refused == 0


async def test_request_waits_for_a_responder_that_starts_late(bus: Bus, unique: str) -> None:
    async def late() -> None:
        await asyncio.sleep(0.2)
        await bus.subscribe(unique, answer)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(late())
        reply = await bus.request(unique, text("anybody?"), timeout_s=3)
    assert reply.data == b"here"


async def test_request_without_a_responder_is_typed(bus: Bus, unique: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await bus.request(unique, text(""), timeout_s=0.2)
    assert caught.value.reason == "NO_RESPONDER"


async def test_messages_carry_type_and_are_decoded_by_it(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    await bus.publish(f"{unique}.a", text("hello"), headers={"x-more": "1"})
    found = await bus.last_message(f"{unique}.a")
    assert found is not None
    assert found.decode(StringValue).value == "hello"
    assert found.headers["x-more"] == "1"
    assert found.sequence == 1
    assert found.time_ms > 1_700_000_000_000
    with pytest.raises(InvalidInput) as caught:
        found.decode(BytesValue)
    assert caught.value.reason == "MESSAGE_MALFORMED"
    with pytest.raises(InvalidInput):
        decode_payload({"mesh-type": "google.protobuf.StringValue"}, b"\xff\xff", StringValue)


async def test_same_message_id_is_stored_once(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    first = await bus.publish(f"{unique}.a", text("1"), message_id="m1")
    second = await bus.publish(f"{unique}.a", text("1"), message_id="m1")
    assert (first.sequence, first.duplicate) == (1, False)
    assert (second.sequence, second.duplicate) == (1, True)
    assert (await bus.stream_state(unique)).messages == 1


async def test_lost_compare_and_set_is_a_conflict_that_names_the_winner(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    await bus.publish(f"{unique}.a", text("1"), expected_last=0)
    with pytest.raises(Conflict) as caught:
        await bus.publish(f"{unique}.a", text("2"), expected_last=0)
    assert caught.value.reason == "WRONG_LAST_SEQUENCE"
    assert caught.value.metadata["actual"] == "1"


async def test_repeated_compare_and_set_of_the_same_operation_is_success(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    await bus.publish(f"{unique}.a", text("1"), expected_last=0, operation_id="op-1")
    again = await bus.publish(f"{unique}.a", text("1"), expected_last=0, operation_id="op-1")
    assert (again.sequence, again.duplicate) == (1, True)
    with pytest.raises(Conflict):
        await bus.publish(f"{unique}.a", text("1"), expected_last=0, operation_id="op-2")


async def test_one_of_sixteen_writers_wins(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))

    async def write(number: int) -> bool:
        try:
            await bus.publish(f"{unique}.a", text(str(number)), expected_last=0, operation_id=str(number))
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(write(number) for number in range(16)))) == 1


async def test_batch_of_500_is_stored_whole(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique, atomic_batches=True))
    batch = [Outgoing(f"{unique}.{n}", text(str(n)), expected_last=0) for n in range(500)]
    ack = await bus.publish_batch(batch, operation_id="op")
    assert ack.sequence == 500
    again = await bus.publish_batch(batch, operation_id="op")
    assert (again.sequence, again.duplicate) == (500, True)
    assert (await bus.stream_state(unique)).messages == 500


async def test_batch_of_one_is_stored(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique, atomic_batches=True))
    assert (await bus.publish_batch([Outgoing(f"{unique}.a", text("1"))])).sequence == 1


async def test_batch_with_one_wrong_expectation_stores_nothing(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique, atomic_batches=True))
    await bus.publish(f"{unique}.7", text("there already"))
    batch = [Outgoing(f"{unique}.{n}", text(str(n)), expected_last=0) for n in range(10)]
    with pytest.raises(Conflict) as caught:
        await bus.publish_batch(batch, operation_id="op")
    assert caught.value.reason == "WRONG_LAST_SEQUENCE"
    assert (await bus.stream_state(unique)).messages == 1


async def test_batch_to_a_stream_without_batches_stores_nothing(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    with pytest.raises(InvalidInput):
        await bus.publish_batch([Outgoing(f"{unique}.{n}", text("")) for n in range(3)])
    assert (await bus.stream_state(unique)).messages == 0


@pytest.mark.parametrize("count", [0, 501])
async def test_batch_size_is_limited(bus: Bus, unique: str, count: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bus.publish_batch([Outgoing(f"{unique}.a", text(""))] * count)
    assert caught.value.reason == "BATCH_SIZE"


async def test_message_above_the_limit_is_typed(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    with pytest.raises(LimitExceeded) as caught:
        await bus.publish(f"{unique}.a", text("x" * 1_100_000))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


async def test_full_stream_refuses_new_messages_and_keeps_the_old(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique, max_bytes=4096))

    async def fill() -> None:
        for _ in range(10):
            await bus.publish(f"{unique}.a", text("x" * 1000))

    with pytest.raises(LimitExceeded) as caught:
        await fill()
    assert caught.value.reason == "STREAM_FULL"
    assert (await bus.stream_state(unique)).first_sequence == 1


async def test_publish_to_no_stream_is_typed(bus: Bus, unique: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await bus.publish(f"{unique}.a", text(""), timeout_s=0.3)
    assert caught.value.reason == "STREAM_AWAY"
    with pytest.raises(NotFound):
        await bus.stream_state(unique)
    assert await bus.last_message(f"{unique}.a") is None


async def test_ensuring_again_keeps_epoch_and_messages_and_updates_limits(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique), first_sequence=100, epoch=3)
    await bus.publish(f"{unique}.a", text("1"))
    state = await bus.ensure_stream(spec(unique, max_messages_per_subject=5))
    assert (state.epoch, state.last_sequence, state.messages) == (3, 100, 1)
    info = await bus.jetstream.stream_info(unique)
    assert info.config.max_msgs_per_subject == 5
    assert info.config.storage == "file"
    assert info.config.discard == "new"


async def test_ordered_consumer_gives_the_past_then_the_present(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    for number in range(3):
        await bus.publish(f"{unique}.{number}", text(str(number)))
    seen: list[tuple[int, str, int]] = []
    async with aclosing(bus.ordered_consumer(unique, from_sequence=2)) as messages:
        async for message in messages:
            seen.append((message.sequence, message.decode(StringValue).value, message.pending))
            if message.sequence == 3:
                await bus.publish(f"{unique}.9", text("9"))
            if message.sequence == 4:
                break
    assert seen == [(2, "1", 1), (3, "2", 0), (4, "9", 0)]


async def test_ordered_consumer_starts_with_the_newest_per_subject(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    for value in ("a1", "b1", "a2"):
        await bus.publish(f"{unique}.{value[0]}", text(value))
    seen = []
    async with aclosing(bus.ordered_consumer(unique, newest_only=True)) as messages:
        async for message in messages:
            seen.append(message.decode(StringValue).value)
            if message.pending == 0:
                break
    assert seen == ["b1", "a2"]


async def test_pull_consumer_repeats_what_was_not_settled(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    for value in ("ack", "nak", "term"):
        await bus.publish(f"{unique}.a", text(value))
    seen: list[tuple[str, int]] = []
    async with aclosing(bus.pull_consumer(unique, "worker")) as deliveries:
        async for delivery in deliveries:
            value = delivery.message.decode(StringValue).value
            seen.append((value, delivery.message.deliveries))
            if value == "ack" or delivery.message.deliveries == 2:
                await delivery.ack()
            elif value == "nak":
                await delivery.nak()
            else:
                await delivery.term()
            if len(seen) == 4:
                break
    assert seen == [("ack", 1), ("nak", 1), ("term", 1), ("nak", 2)]


async def test_pull_consumer_redelivers_after_the_wait(bus: Bus, unique: str) -> None:
    await bus.ensure_stream(spec(unique))
    await bus.publish(f"{unique}.a", text("1"))
    settings = ConsumerSettings(ack_wait_s=0.3)
    async with aclosing(bus.pull_consumer(unique, "worker", settings=settings)) as deliveries:
        assert (await anext(deliveries)).message.deliveries == 1
        assert (await anext(deliveries)).message.deliveries == 2


async def test_kv_compare_and_set(bus: Bus, unique: str) -> None:
    kv = await bus.ensure_kv(KvSpec(unique))
    assert await kv.get("a.b") is None
    revision = await kv.create("a.b", b"1")
    with pytest.raises(Conflict) as caught:
        await kv.create("a.b", b"2")
    assert caught.value.reason == "KV_CONFLICT"
    second = await kv.update("a.b", b"2", revision)
    with pytest.raises(Conflict):
        await kv.update("a.b", b"3", revision)
    with pytest.raises(Conflict):
        await kv.delete("a.b", revision=revision)
    found = await kv.get("a.b")
    assert found is not None
    assert (found.value, found.revision) == (b"2", second)


async def test_kv_deleted_key_can_be_created_again(bus: Bus, unique: str) -> None:
    kv = await bus.ensure_kv(KvSpec(unique))
    await kv.create("a", b"1")
    await kv.delete("a")
    assert await kv.get("a") is None
    assert await kv.keys() == []
    await kv.create("a", b"2")
    assert await kv.keys() == ["a"]
    await kv.purge("a")
    assert await kv.get("a") is None


async def test_kv_key_with_a_life_of_its_own_expires(bus: Bus, unique: str) -> None:
    kv = await bus.ensure_kv(KvSpec(unique, key_ttl=True))
    await kv.create("a", b"1", ttl_s=1)
    await kv.put("b", b"1")
    async with asyncio.timeout(5):
        while await kv.get("a") is not None:
            await asyncio.sleep(0.1)
    assert await kv.keys() == ["b"]
    await kv.create("a", b"2", ttl_s=1)


async def test_kv_lists_by_prefix_and_watches(bus: Bus, unique: str) -> None:
    kv = await bus.ensure_kv(KvSpec(unique))
    for key in ("x.1", "x.2", "y.1"):
        await kv.put(key, key.encode())
    assert await kv.keys("x") == ["x.1", "x.2"]
    assert await kv.keys("z") == []
    seen = []
    async with aclosing(kv.watch("x")) as entries:
        async for entry in entries:
            seen.append((entry.key, entry.value, entry.pending))
            if len(seen) == 2:
                await kv.delete("x.1")
            if len(seen) == 3:
                break
    assert seen == [("x.1", b"x.1", 1), ("x.2", b"x.2", 0), ("x.1", None, 0)]


@pytest.mark.parametrize("key", ["", ".a", "a.", "a..b", "a b", "alice@x.org", "a.*", ">", "ä"])
async def test_kv_refuses_keys_that_are_no_tokens(bus: Bus, unique: str, key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bus.kv(unique).get(key)
    assert caught.value.reason == "KEY_INVALID"
