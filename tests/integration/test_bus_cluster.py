"""The bus as a cluster of three servers: every stream in three copies, and one server lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_kit.bus import Bus
from syftmesh_kit.process import ChildProcess, find_binary, free_ports
from syftmesh_kit.stream import KvSpec, StreamSpec

pytestmark = pytest.mark.integration

SPEC = StreamSpec("S", ("s.>",))


class Cluster:
    """Three servers that know one another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(6)
        self.clients, self.routes = ports[:3], ports[3:]
        self.children: dict[int, ChildProcess] = {}
        self.url = ",".join(f"nats://127.0.0.1:{port}" for port in self.clients)

    async def start(self, number: int, tasks: asyncio.TaskGroup) -> None:
        config = self.folder / f"{number}.conf"
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.routes)
        config.write_text(
            f"""server_name: n{number}
listen: 127.0.0.1:{self.clients[number]}
jetstream {{ store_dir: "{self.folder / str(number)}", sync_interval: always }}
cluster {{ name: mesh, listen: "127.0.0.1:{self.routes[number]}", routes: [{routes}] }}
"""
        )

        async def is_listening() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.clients[number])
            except OSError:
                return False
            writer.close()
            return True

        self.children[number] = ChildProcess(
            f"nats-{number}",
            [find_binary("nats-server"), "-c", str(config)],
            ready=is_listening,
            log_path=self.folder / f"{number}.log",
            start_timeout_s=10.0,
        )
        await self.children[number].start(tasks)


@asynccontextmanager
async def servers(folder: Path, count: int = 3) -> AsyncIterator[tuple[Cluster, asyncio.TaskGroup]]:
    cluster = Cluster(folder)
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await cluster.start(number, tasks)
        try:
            yield cluster, tasks
        finally:
            for child in cluster.children.values():
                await child.stop()


async def _declared(bus: Bus, spec: StreamSpec | KvSpec = SPEC) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await bus.ensure_stream(spec)
            except MeshError:  # members find one another first
                await asyncio.sleep(0.2)
            else:
                return


async def _replicas(bus: Bus, stream: str) -> int:
    return int((await bus.jetstream.stream_info(stream)).config.num_replicas or 0)


async def test_streams_have_three_copies_and_outlive_a_server(tmp_path: Path) -> None:
    async with servers(tmp_path) as (cluster, _):
        bus = await Bus.connect(cluster.url, name="test")
        await _declared(bus)
        assert await _replicas(bus, "S") == 1
        bus.replicas = 3
        await _declared(bus)
        await _declared(bus, KvSpec("b"))
        assert [await _replicas(bus, name) for name in ("S", "KV_b")] == [3, 3]
        for number in range(10):
            await bus.publish(f"s.{number}", StringValue(value="x"), message_id=str(number), timeout_s=20)
        info = await bus.jetstream.stream_info("S")
        leader = int((info.cluster.leader or "n0").removeprefix("n")) if info.cluster else 0
        os.kill(cluster.children[leader].pid, signal.SIGKILL)
        ack = await bus.publish("s.last", StringValue(value="x"), message_id="last", timeout_s=60)
        assert ack.sequence == 11
        assert (await bus.stream_state("S")).messages == 11
        await bus.close()


async def test_copies_that_have_no_servers_yet_are_waited_for(tmp_path: Path) -> None:
    async with servers(tmp_path, count=2) as (cluster, tasks):
        bus = await Bus.connect(cluster.url, name="test")
        bus.replicas = 3
        async with asyncio.timeout(60):
            while True:
                with pytest.raises(Unavailable) as caught:
                    await bus.ensure_stream(SPEC)
                if caught.value.reason == "STREAM_AWAY":
                    break
                await asyncio.sleep(0.2)
        await cluster.start(2, tasks)
        await _declared(bus)
        assert await _replicas(bus, "S") == 3
        await bus.close()
