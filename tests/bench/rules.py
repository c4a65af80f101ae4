"""How soon three replicas of sync and of permissions decide by a change of rules or groups.

Nobody polls, for that would be most of the load: streams of sync say what changed, and permissions is asked for an
answer no older than the change.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
from bench.child import end, module
from bench.measure import Row, alone, percentile
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mesh.common.v1 import common_pb2
from mesh.crypto.v1 import crypto_service_pb2_grpc as crypto_api
from mesh.permissions.v1 import permissions_pb2
from mesh.permissions.v1 import permissions_service_pb2 as permissions_rpc
from mesh.permissions.v1 import permissions_service_pb2_grpc as permissions_api
from mesh.sync.v1 import sync_pb2
from mesh.sync.v1 import sync_service_pb2 as sync_rpc
from mesh.sync.v1 import sync_service_pb2_grpc as sync_api
from syftmesh_client.directory import DeviceDirectory
from syftmesh_client.files import FileClient
from syftmesh_client.keystore import KeyStore
from syftmesh_core.clock import SystemClock, system_random
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import sign_first_list
from syftmesh_core.identity.phrase import AccountRoot
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.keyset import KeySetPublisher
from syftmesh_kit.native import NatsAddress, NatsServer, SeaweedServer
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3Config
from syftmesh_kit.token import TokenIssuer

CLOCK: Final = SystemClock()
OWNER: Final = "alice@site.example"
READER: Final = "bob@x.example"
SECRET: Final = f"{OWNER}/for/x"
RULES: Final = f"{OWNER}/for/syft.pub.yaml"
GROUPS: Final = f"{OWNER}/syft.groups.yaml"
REPLICAS: Final = 3
CHANGES: Final = 100
LIMIT_MS: Final = 100.0

Sees = Callable[[bool], Awaitable[None]]
"""Returns once a replica has said that the reader may read the file, or that it may not."""


async def check(folder: Path, count: int) -> list[Row]:
    """Change rules, then groups; each sample ends when the last of six replicas decides anew."""
    changes = max(CHANGES, count)
    async with _mesh(folder) as mesh:
        await mesh.files.write(RULES, _rules(READER))
        await mesh.files.write(SECRET, b"x")
        by_rule = await _samples(mesh, RULES, _rules(READER), _rules("nobody@x.example"), changes)
        await mesh.files.write(GROUPS, _groups(READER))
        await mesh.files.write(RULES, _rules("group:team"))
        await _seen(mesh.replicas, readable=True)
        by_group = await _samples(mesh, GROUPS, _groups(READER), _groups("nobody@x.example"), changes)
    return [_row("rules", by_rule), _row("groups", by_group)]


def _row(what: str, samples: list[float]) -> Row:
    name = f"change of {what} at {REPLICAS} replicas of sync and permissions, from its acknowledgement, p95"
    row = alone(name, "ms", [percentile(samples, 0.95)], LIMIT_MS)
    return Row(**{**_fields(row), "spread": (min(samples), max(samples)), "samples": len(samples)})


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _rules(reader: str) -> bytes:
    return f"rules: [{{pattern: '**', access: {{read: ['{reader}']}}}}]\n".encode()


def _groups(member: str) -> bytes:
    return f"groups: {{team: [{member}]}}\n".encode()


@dataclass(frozen=True)
class _Mesh:
    """The owner's files at the first replica, and what each replica says."""

    files: FileClient
    replicas: list[Sees]


async def _samples(mesh: _Mesh, path: str, granting: bytes, taking: bytes, changes: int) -> list[float]:
    samples = []
    for number in range(changes):
        grants = number % 2 == 1
        await mesh.files.write(path, (granting if grants else taking) + f"# {number}\n".encode())
        samples.append(await _seen(mesh.replicas, readable=grants))
    return samples


async def _seen(replicas: list[Sees], *, readable: bool) -> float:
    """Return after how many milliseconds the last replica decides so."""
    started_s = time.perf_counter()
    await asyncio.gather(*(sees(readable) for sees in replicas))
    return (time.perf_counter() - started_s) * 1000


@asynccontextmanager
async def _mesh(folder: Path) -> AsyncIterator[_Mesh]:
    signing = Ed25519PrivateKey.generate()
    nats, weed = NatsServer(folder / "nats"), SeaweedServer(folder / "s3")
    async with asyncio.TaskGroup() as tasks:
        try:
            address, s3 = await nats.start(tasks), await weed.start(tasks)
            bus = await Bus.connect(address.url, name="bench", user=address.user, password=address.password)
            keys = await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_KEYS))
            await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_REVOKED))
            await KeySetPublisher(keys).publish("k", signing.public_key())
            async with AsyncExitStack() as stack:
                names = ["crypto", *["sync"] * REPLICAS, *["permissions"] * REPLICAS]
                targets = [
                    await stack.enter_async_context(_service(name, folder, address, s3)) for name in names
                ]
                yield await _opened(stack, folder, signing, targets, tasks)
            await bus.close()
        finally:
            await nats.stop()
            await weed.stop()


async def _opened(
    stack: AsyncExitStack,
    folder: Path,
    signing: Ed25519PrivateKey,
    targets: list[str],
    tasks: asyncio.TaskGroup,
) -> _Mesh:
    crypto, syncs, permissions = targets[0], targets[1 : 1 + REPLICAS], targets[1 + REPLICAS :]
    device = DeviceSecret.generate(OWNER, str(uuid.uuid4()), admin=True)
    account = AccountRoot(os.urandom(32))
    keystore = KeyStore.create(folder / "keys", device=device, own_root=account.public_key)
    http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=10.0))

    def channel(target: str, principal: str) -> Any:
        async def provide() -> str:
            return TokenIssuer(signing, "k", "embedded", CLOCK).issue(principal, device.device_id)[0]

        opened = open_channel(target, token_provider=provide)
        stack.push_async_callback(opened.close)
        return opened

    sync = _Commits(sync_api.SyncServiceStub(channel(syncs[0], OWNER)))
    session = _Session(
        sync,
        crypto_api.KeyDirectoryServiceStub(channel(crypto, OWNER)),
    )
    directory = DeviceDirectory(session, keystore, CLOCK)
    await directory.publish(sign_first_list(OWNER, [device.public()], account))
    files = FileClient(session, directory, keystore, CLOCK, system_random, http)
    watchers = [_Watcher(channel(target, READER)) for target in syncs]
    for watcher in watchers:
        stack.callback(tasks.create_task(watcher.run()).cancel)
    decisions = [_decision(channel(target, READER), sync) for target in permissions]
    return _Mesh(files, [watcher.sees for watcher in watchers] + decisions)


@dataclass(frozen=True)
class _Session:
    sync: Any
    crypto: Any


class _Commits:
    """The stub of sync, which keeps the place of the newest commit."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.newest = common_pb2.ConsistencyToken()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    async def CommitFiles(self, request: Any) -> Any:  # noqa: N802 - the name is that of gRPC
        answer = await self._stub.CommitFiles(request)
        cursor = answer.cursor
        self.newest = common_pb2.ConsistencyToken(epoch=cursor.epoch, sequence=cursor.sequence)
        return answer


class _Watcher:
    """The reader's stream of changes at one replica."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = sync_api.SyncServiceStub(channel)
        self._readable = False
        self._told = asyncio.Condition()

    async def run(self) -> None:
        async for batch in self._stub.WatchChanges(sync_rpc.WatchChangesRequest(prefixes=[SECRET])):
            async with self._told:
                for change in batch.changes:
                    self._readable = change.kind == sync_pb2.CHANGE_KIND_UPDATED
                self._told.notify_all()

    async def sees(self, readable: bool) -> None:  # noqa: FBT001 - what is waited for
        async with self._told:
            await self._told.wait_for(lambda: self._readable is readable)


def _decision(channel: Any, commits: _Commits) -> Sees:
    stub: Any = permissions_api.PermissionServiceStub(channel)
    question = permissions_pb2.Question(path=SECRET, level=permissions_pb2.LEVEL_READ)

    async def sees(readable: bool) -> None:  # noqa: FBT001 - what is waited for
        request = permissions_rpc.CheckPermissionRequest(question=question, at_least=commits.newest)
        answer = await stub.CheckPermission(request)
        if answer.decision.allowed is not readable:
            raise AssertionError("a replica answers by what was before the change that it says to have seen")

    return sees


@asynccontextmanager
async def _service(name: str, folder: Path, nats: NatsAddress, s3: S3Config) -> AsyncIterator[str]:
    """Run one replica as a process of its own and give its address once it is ready."""
    (port,) = free_ports(1)
    target = f"127.0.0.1:{port}"
    settings = {
        "LISTEN": target,
        "NATS_URL": nats.url,
        "NATS_USER": nats.user,
        "NATS_PASSWORD": nats.password,
        "S3_ENDPOINT": s3.endpoint,
        "S3_ACCESS_KEY": s3.access_key,
        "S3_SECRET_KEY": s3.secret_key,
        "JOURNAL": "false",
        "LOG_LEVEL": "warning",
    }
    own = {f"SYFTMESH_{name.upper()}_{key}": value for key, value in settings.items()}
    with (folder / "services.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *module(f"syftmesh_{name}"), env={**os.environ, **own}, stdout=log, stderr=log
        )
    try:
        async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(60):
            stub = health_pb2_grpc.HealthStub(channel)
            while not await _serves(stub):
                await asyncio.sleep(0.1)
        yield target
    finally:
        await end(process)


async def _serves(stub: Any) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
