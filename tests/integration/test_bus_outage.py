"""The bus while nats-server is killed and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.msg import Msg
from syftmesh_core.errors import Unavailable
from syftmesh_kit.bus import Bus
from syftmesh_kit.message import Outgoing
from syftmesh_kit.native import NatsServer
from syftmesh_kit.stream import StreamSpec

pytestmark = pytest.mark.integration

SPEC = StreamSpec("S", ("s.>",), atomic_batches=True)


def text(value: object) -> StringValue:
    return StringValue(value=str(value))


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[tuple[NatsServer, Bus]]:
    server = NatsServer(state)
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        bus = await Bus.connect(address.url, name="test", user=address.user, password=address.password)
        try:
            await bus.ensure_stream(SPEC)
            yield server, bus
        finally:
            await bus.close()
            await server.stop()


async def kill(server: NatsServer, bus: Bus) -> None:
    generation = bus.generation
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while bus.generation == generation:
            await asyncio.sleep(0.02)


async def test_nothing_acknowledged_is_lost_and_nothing_doubled_over_kills(tmp_path: Path) -> None:
    acknowledged: list[int] = []

    async def write(bus: Bus, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            await bus.publish(f"s.{number}", text(number), message_id=str(number), timeout_s=20)
            acknowledged.append(number)
            number += 1

    async with running(tmp_path) as (server, bus):
        seen: list[int] = []
        stop = asyncio.Event()

        async def read() -> None:
            async with aclosing(bus.ordered_consumer("S")) as messages:
                async for message in messages:
                    assert message.sequence == len(seen) + 1
                    seen.append(int(message.decode(StringValue).value))

        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(read())
            writer = tasks.create_task(write(bus, stop))
            for _ in range(2):
                await asyncio.sleep(0.5)
                await kill(server, bus)
            await asyncio.sleep(0.3)
            stop.set()
            await writer
            async with asyncio.timeout(20):
                while len(seen) < len(acknowledged):
                    await asyncio.sleep(0.05)
            reader.cancel()
        assert len(acknowledged) > 20
        assert seen == acknowledged == list(range(len(acknowledged)))


async def test_pull_consumer_goes_on_after_a_kill(tmp_path: Path) -> None:
    async with running(tmp_path) as (server, bus):
        await bus.publish("s.a", text(1))
        async with aclosing(bus.pull_consumer("S", "worker")) as deliveries:
            await (await anext(deliveries)).ack()
            await kill(server, bus)
            await bus.publish("s.a", text(2), message_id="2")
            async with asyncio.timeout(20):
                delivery = await anext(deliveries)
                if delivery.message.sequence == 1:  # its acknowledgement was not on disk yet
                    await delivery.ack()
                    delivery = await anext(deliveries)
            assert delivery.message.decode(StringValue).value == "2"
            await delivery.ack()


async def test_subscriptions_and_the_barrier_survive_a_kill(tmp_path: Path) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"yes")

    async with running(tmp_path) as (server, bus):
        states: list[bool] = []
        bus.on_state(lambda connected: states.append(connected))
        await bus.subscribe("ask", answer)
        await kill(server, bus)
        await bus.ready()
        assert (await bus.request("ask", text(""))).data == b"yes"
        assert states == [False, True]


async def test_batch_of_an_operation_waits_for_the_server(tmp_path: Path) -> None:
    async with running(tmp_path) as (server, bus):
        os.kill(server.pid, signal.SIGKILL)
        batch = [Outgoing(f"s.{n}", text(n), expected_last=0) for n in range(10)]
        assert (await bus.publish_batch(batch, operation_id="op", timeout_s=20)).sequence == 10


async def test_bus_that_is_away_is_typed_and_quick(tmp_path: Path) -> None:
    async with running(tmp_path) as (server, bus):
        await server.stop()
        async with asyncio.timeout(5):
            while bus.is_connected:
                await asyncio.sleep(0.02)
        with pytest.raises(Unavailable) as caught:
            await bus.publish("s.a", text(1), timeout_s=0.3)
        assert caught.value.reason == "BUS_UNREACHABLE"


async def test_no_server_at_all_is_typed() -> None:
    with pytest.raises(Unavailable) as caught:
        await Bus.connect("nats://127.0.0.1:1", name="test", connect_timeout_s=0.5)
    assert caught.value.reason == "BUS_UNREACHABLE"
