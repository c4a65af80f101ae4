"""A real nats-server, a real S3 server, replicas of the services that decide by rules, and people with devices."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.crypto.v1 import crypto_service_pb2_grpc as crypto_api
from mesh.permissions.v1 import permissions_service_pb2_grpc as permissions_api
from mesh.sync.v1 import sync_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_client.directory import DeviceDirectory
from syftmesh_client.files import FileClient
from syftmesh_client.keystore import KeyStore
from syftmesh_client.revision import RevisionMemory
from syftmesh_core.clock import SystemClock, system_random
from syftmesh_core.errors import Conflict
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import sign_first_list
from syftmesh_core.identity.phrase import AccountRoot
from syftmesh_crypto.app import build as build_crypto
from syftmesh_crypto.settings import CryptoSettings
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.message import StreamMessage
from syftmesh_kit.native import NatsAddress, NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_permissions.app import build as build_permissions
from syftmesh_permissions.settings import PermissionsSettings
from syftmesh_sync.app import SyncModule, build
from syftmesh_sync.settings import SyncSettings

ALICE, BOB = "alice@site.example", "bob@x.example"
CLOCK = SystemClock()
SIGNING = Ed25519PrivateKey.generate()


@dataclass
class Session:
    sync: Any
    crypto: Any
    permissions: Any


@dataclass
class Desk:
    """One device: its session and its file client."""

    session: Session
    files: FileClient
    keystore: KeyStore
    directory: DeviceDirectory


@dataclass
class Servers:
    nats: NatsServer
    address: NatsAddress
    s3: S3Config


@dataclass
class Hub:
    address: str
    module: SyncModule
    bus: Bus
    store: S3ObjectStore
    verifier: TokenVerifier


class LateBus:
    """A bus whose readers of the file log are behind by what `lag_s` says; all else is the bus itself.

    Each service that is built on it falls behind by itself, and never out of order.
    """

    def __init__(self, bus: Bus, lag_s: Callable[[], float]) -> None:
        self._bus = bus
        self._lag_s = lag_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def ordered_consumer(self, stream: str, **options: Any) -> AsyncIterator[StreamMessage]:
        async with aclosing(self._bus.ordered_consumer(stream, **options)) as messages:
            async for message in messages:
                if stream == subject.FILES:
                    await asyncio.sleep(self._lag_s())
                yield message


@asynccontextmanager
async def servers(state: Path) -> AsyncIterator[Servers]:
    nats, weed = NatsServer(state / "nats"), SeaweedServer(state / "s3")
    async with asyncio.TaskGroup() as tasks:
        try:
            yield Servers(nats, await nats.start(tasks), await weed.start(tasks))
        finally:
            await nats.stop()
            await weed.stop()


@asynccontextmanager
async def hub(
    given: Servers, *, lag_s: Callable[[], float] | None = None, more: Any = None, **settings: Any
) -> AsyncIterator[Hub]:
    """One replica of sync and permissions (and the key directory beside them).

    Args:
        given: The servers.
        lag_s: How far the replica is behind, drawn at each message; None for not at all.
        more: Makes one more module of bus and store.
        settings: Settings of sync.
    """
    address = given.address
    bus = await Bus.connect(address.url, name="sync", user=address.user, password=address.password)
    late: Any = bus if lag_s is None else LateBus(bus, lag_s)
    store = S3ObjectStore(given.s3)
    parts: dict[str, Any] = {"bus": late, "object_store": store, "clock": CLOCK}
    module = await build(SyncSettings(**settings), **parts)
    crypto = await build_crypto(CryptoSettings(journal=False), **parts)
    permissions = await build_permissions(PermissionsSettings(), **parts)
    modules = [module, crypto, permissions, *([await more(bus, store)] if more else [])]
    verifier = TokenVerifier(StaticKeySet({"k": SIGNING.public_key()}), "embedded", CLOCK)
    interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
    host = ServiceHost(modules, interceptor=interceptor, check_interval_s=0.2)
    async with host.running() as target:
        await host.wait_ready()
        yield Hub(target, module, bus, store, verifier)
    await bus.close()


@asynccontextmanager
async def channel_to(target: str, principal: str, device_id: str) -> AsyncIterator[Any]:
    async def provide() -> str:
        return TokenIssuer(SIGNING, "k", "embedded", CLOCK).issue(principal, device_id)[0]

    channel = open_channel(
        target,
        token_provider=provide if principal else None,
        idempotent_methods=["/mesh.sync.v1.SyncService/*"],
    )
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def session(target: str, principal: str, device_id: str) -> AsyncIterator[Session]:
    async with channel_to(target, principal, device_id) as channel:
        yield Session(
            api.SyncServiceStub(channel),
            crypto_api.KeyDirectoryServiceStub(channel),
            permissions_api.PermissionServiceStub(channel),
        )


class People:
    """Accounts and key stores that outlive a hub."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stores: dict[str, KeyStore] = {}
        self._first: dict[str, bytes] = {}

    def keystore(self, principal: str, name: str) -> KeyStore:
        key = f"{principal}/{name}"
        if key not in self._stores:
            self._create(principal)
        return self._stores[key]

    def first_list(self, principal: str) -> bytes:
        return self._first[principal]

    def _create(self, principal: str) -> None:
        admin = DeviceSecret.generate(principal, str(uuid.uuid4()), admin=True)
        runner = DeviceSecret.generate(principal, str(uuid.uuid4()), serves=True)
        account = AccountRoot(os.urandom(32))
        self._first[principal] = sign_first_list(principal, [admin.public(), runner.public()], account)
        root = account.public_key
        for name, device in (("admin", admin), ("runner", runner)):
            folder = self._folder / f"{principal}-{name}"
            self._stores[f"{principal}/{name}"] = KeyStore.create(folder, device=device, own_root=root)


@asynccontextmanager
async def desk(
    people: People, target: str, principal: str, name: str = "admin", memory: RevisionMemory | None = None
) -> AsyncIterator[Desk]:
    """One device at one replica, with a memory of revisions of its own unless one is given."""
    keystore = people.keystore(principal, name)
    async with (
        session(target, principal, keystore.device.device_id) as connected,
        httpx.AsyncClient(trust_env=False, timeout=10.0) as http,
    ):
        directory = DeviceDirectory(connected, keystore, CLOCK)
        with suppress(Conflict):
            await directory.publish(people.first_list(principal))
        kept = memory or RevisionMemory()
        files = FileClient(connected, directory, keystore, CLOCK, system_random, http, memory=kept)
        yield Desk(connected, files, keystore, directory)
        if memory is None:
            kept.close()
