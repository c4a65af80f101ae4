"""The sync service and the bus are killed amid changes of rules and groups: what was acknowledged stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mesh.sync.v1 import sync_service_pb2_grpc as api
from syftmesh_client.directory import DeviceDirectory
from syftmesh_client.files import FileClient
from syftmesh_client.revision import RevisionMemory
from syftmesh_core.clock import system_random
from syftmesh_core.errors import Conflict, DeadlineExceeded, Unavailable
from syftmesh_core.path import parse_path
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_kit import subject, topology
from syftmesh_kit.filelog import object_key
from syftmesh_kit.keyset import KeySetPublisher
from syftmesh_kit.process import free_ports

sys.path.insert(0, str(Path(__file__).parent))
from file_mesh import ALICE, CLOCK, SIGNING, Hub, People, Servers, Session, channel_to, desk, hub, servers

pytestmark = pytest.mark.integration

RULES = f"{ALICE}/for/syft.pub.yaml"
GROUPS = f"{ALICE}/syft.groups.yaml"
KILLS = 6


class SyncProcess:
    """The sync service as a process of its own, started again at the same address each time it is killed."""

    def __init__(self, given: Servers, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._log = folder / "sync.log"
        settings = {
            "LISTEN": self.target,
            "NATS_URL": given.address.url,
            "NATS_USER": given.address.user,
            "NATS_PASSWORD": given.address.password,
            "S3_ENDPOINT": given.s3.endpoint,
            "S3_ACCESS_KEY": given.s3.access_key,
            "S3_SECRET_KEY": given.s3.secret_key,
            "JOURNAL": "false",
        }
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        self._environment = {**kept, **{f"SYFTMESH_SYNC_{name}": value for name, value in settings.items()}}
        self._child: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "syftmesh_sync", env=self._environment, stdout=log, stderr=log
            )
        async with grpc.aio.insecure_channel(self.target) as channel, asyncio.timeout(40):
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()


@asynccontextmanager
async def owner(people: People, process: SyncProcess, directory_at: Hub) -> AsyncIterator[FileClient]:
    """The owner's file client at the process; the key directory is at a replica that is not killed."""
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(desk(people, directory_at.address, ALICE))
        device = beside.keystore.device.device_id
        channel = await stack.enter_async_context(channel_to(process.target, ALICE, device))
        session = Session(api.SyncServiceStub(channel), beside.session.crypto, beside.session.permissions)
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=10.0))
        memory = RevisionMemory()
        stack.callback(memory.close)
        keys = DeviceDirectory(session, beside.keystore, CLOCK)
        yield FileClient(session, keys, beside.keystore, CLOCK, system_random, http, memory=memory)


@dataclass
class Acknowledged:
    """What the owner was told is stored: by path the revision and the bytes."""

    newest: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    count: int = 0

    async def keep_changing(self, files: FileClient, path: str, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            member = f"m{number}@x.example"
            data = (
                f"groups: {{team: [{member}]}}\n"
                if path == GROUPS
                else f"rules: [{{pattern: '**', access: {{read: [{member}]}}}}]\n"
            ).encode()
            try:
                record = await files.write(path, data)
            except (Unavailable, DeadlineExceeded, Conflict):
                await asyncio.sleep(0.05)
                continue
            self.newest[path] = (record.revision, data)
            self.count += 1


async def _check(acknowledged: Acknowledged, replica: Hub) -> None:
    site = replica.module.log.site(ALICE)
    for path, (revision, data) in acknowledged.newest.items():
        entry = site.live(path)
        assert entry is not None
        assert entry.revision >= revision, f"{path} is at {entry.revision}, acknowledged was {revision}"
        stored = await replica.store.get(object_key(ALICE, entry.object_id))
        if entry.revision == revision:
            assert stored == data
        if parse_path(path).is_groups_file:
            assert site.tree.groups == parse_groups(stored).resolved
        else:
            file = site.tree.rules_in(("for",))
            assert (file.revision, file.rules) == (entry.revision, parse_ruleset(stored))
    assert site.fence > 0


@pytest.mark.parametrize("killed", ["sync", "bus"])
async def test_no_acknowledged_rule_or_group_is_lost(tmp_path: Path, killed: str) -> None:
    people, acknowledged, stop = People(tmp_path), Acknowledged(), asyncio.Event()
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        beside = await stack.enter_async_context(hub(given, journal=False))
        keys = await beside.bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_KEYS))
        await beside.bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_REVOKED))
        await KeySetPublisher(keys).publish("k", SIGNING.public_key())
        process = SyncProcess(given, tmp_path)
        stack.push_async_callback(process.kill)
        await process.start()
        files = await stack.enter_async_context(owner(people, process, beside))
        async with asyncio.timeout(110), asyncio.TaskGroup() as tasks:
            for path in (RULES, GROUPS):
                tasks.create_task(acknowledged.keep_changing(files, path, stop))
            for _ in range(KILLS if killed == "sync" else KILLS // 2):
                reached = acknowledged.count
                while acknowledged.count < reached + 3:
                    await asyncio.sleep(0.005)
                if killed == "sync":
                    await process.kill()
                    await process.start()
                else:
                    await _kill_bus(given)
            reached = acknowledged.count
            while acknowledged.count < reached + 3:
                await asyncio.sleep(0.05)
            stop.set()
        last = (await beside.bus.stream_state(subject.FILES)).last_sequence
        assert await beside.module.log.wait_for(last, 10)
        await _check(acknowledged, beside)
        fresh = await stack.enter_async_context(hub(given, journal=False))
        await _check(acknowledged, fresh)
        assert set(acknowledged.newest) == {RULES, GROUPS}


async def _kill_bus(given: Servers) -> None:
    killed = given.nats.pid
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(20):
        while given.nats.pid in (0, killed):
            await asyncio.sleep(0.05)
