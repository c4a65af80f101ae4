"""The key directory on a real nats-server and a real S3 server, with the client's own directory in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.crypto.v1 import crypto_pb2 as pb
from mesh.crypto.v1 import crypto_service_pb2 as rpc
from mesh.crypto.v1 import crypto_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_client.account import NewAccount, add_devices, create_account, remove_devices
from syftmesh_client.directory import DeviceDirectory
from syftmesh_client.keystore import KeyStore
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.errors import (
    Conflict,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import parse_list
from syftmesh_crypto.app import build
from syftmesh_crypto.settings import CryptoSettings
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.journal import read_journal
from syftmesh_kit.native import NatsAddress, NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier

pytestmark = pytest.mark.integration

ALICE, BOB = "alice@x.example", "bob@y.example"
CLOCK = SystemClock()
SIGNING = Ed25519PrivateKey.generate()


@dataclass
class Session:
    """What a device directory needs of a session."""

    crypto: Any


@dataclass
class Hub:
    address: str
    bus: Bus
    store: S3ObjectStore

    @asynccontextmanager
    async def session(self, principal: str = "") -> AsyncIterator[Session]:
        async def provide() -> str:
            if not principal:
                return ""
            return TokenIssuer(SIGNING, "k", "embedded", CLOCK).issue(principal, "dev-1")[0]

        channel = open_channel(self.address, token_provider=provide)
        try:
            yield Session(api.KeyDirectoryServiceStub(channel))
        finally:
            await channel.close()


@asynccontextmanager
async def nats_server(state: Path) -> AsyncIterator[NatsAddress]:
    nats = NatsServer(state / "nats")
    async with asyncio.TaskGroup() as tasks:
        try:
            yield await nats.start(tasks)
        finally:
            await nats.stop()


@asynccontextmanager
async def s3_server(state: Path) -> AsyncIterator[S3Config]:
    weed = SeaweedServer(state / "s3")
    async with asyncio.TaskGroup() as tasks:
        try:
            yield await weed.start(tasks)
        finally:
            await weed.stop()


@asynccontextmanager
async def serving(nats: NatsAddress, s3: S3Config | None = None, **settings: Any) -> AsyncIterator[Hub]:
    bus = await Bus.connect(nats.url, name="crypto", user=nats.user, password=nats.password)
    store = S3ObjectStore(s3 or S3Config("http://127.0.0.1:9", "none", "none"))
    if s3 is not None:
        await store.ensure_bucket()
    values = {"journal": s3 is not None, **settings}
    module = await build(CryptoSettings(**values), bus=bus, object_store=store, clock=CLOCK)
    verifier = TokenVerifier(StaticKeySet({"k": SIGNING.public_key()}), "embedded", CLOCK)
    interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
    host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.2)
    async with host.running() as address:
        await host.wait_ready()
        yield Hub(address, bus, store)
    await bus.close()


def _published(data: bytes) -> rpc.PublishDeviceListRequest:
    return rpc.PublishDeviceListRequest(device_list=pb.SignedDeviceList(device_list=data))


async def _reason(call: Any, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


def _more(account: NewAccount, previous: bytes, name: str) -> bytes:
    device = DeviceSecret.generate(account.device.principal, name, serves=True)
    return add_devices(parse_list(previous), account.device, [device.public()])


async def test_a_chain_is_published_listed_journaled_and_outlives_a_restart(tmp_path):
    alice = create_account(ALICE, CLOCK)
    second = _more(alice, alice.device_list, "agent-1")
    async with nats_server(tmp_path) as nats, s3_server(tmp_path) as s3:
        async with serving(nats, s3) as hub, hub.session(ALICE) as session, hub.session(BOB) as other:
            for version, data in enumerate((alice.device_list, second), start=1):
                assert (await session.crypto.PublishDeviceList(_published(data))).version == version
                state = await hub.bus.stream_state(subject.KEYLOG)
                journaled = [m async for m in read_journal(hub.store, subject.KEYLOG, state.epoch)]
                assert journaled[-1].decode(pb.SignedDeviceList).device_list == data
            assert (await session.crypto.PublishDeviceList(_published(second))).version == 2
            listed = await other.crypto.ListDevices(rpc.ListDevicesRequest(principal=ALICE))
            assert [item.device_list for item in listed.device_lists] == [alice.device_list, second]
            state = await hub.bus.stream_state(subject.KEYLOG)
            assert state.messages == 2
        async with serving(nats, s3) as hub, hub.session(BOB) as session:
            listed = await session.crypto.ListDevices(rpc.ListDevicesRequest(principal=ALICE, from_version=2))
            assert [item.device_list for item in listed.device_lists] == [second]


async def test_bad_lists_are_refused_with_their_reasons(tmp_path):
    alice, bob, stranger = (create_account(name, CLOCK) for name in (ALICE, BOB, ALICE))
    second = _more(alice, alice.device_list, "agent-1")
    async with (
        nats_server(tmp_path) as nats,
        serving(nats) as hub,
        hub.session(ALICE) as session,
        hub.session() as nobody,
    ):
        publish, look = session.crypto.PublishDeviceList, session.crypto.ListDevices
        assert await _reason(publish(_published(b"x")), InvalidInput) == "ENCODING_INVALID"
        assert await _reason(publish(_published(second)), IntegrityFailure) == "DEVICE_LIST_INVALID"
        foreign = publish(_published(bob.device_list))
        assert await _reason(foreign, PermissionDenied) == "PERMISSION_DENIED"
        missing = look(rpc.ListDevicesRequest(principal=ALICE))
        assert await _reason(missing, NotFound) == "PRINCIPAL_UNKNOWN"
        malformed = look(rpc.ListDevicesRequest(principal="*"))
        assert await _reason(malformed, InvalidInput) == "PRINCIPAL_INVALID"
        await publish(_published(alice.device_list))
        changed = publish(_published(stranger.device_list))
        assert await _reason(changed, IntegrityFailure) == "KEY_CHANGED"
        for call in (
            nobody.crypto.PublishDeviceList(_published(alice.device_list)),
            nobody.crypto.ListDevices(rpc.ListDevicesRequest(principal=ALICE)),
        ):
            assert await _reason(call, Unauthenticated) == "TOKEN_MISSING"


async def test_of_many_next_versions_at_once_one_wins(tmp_path):
    alice = create_account(ALICE, CLOCK)
    async with (
        nats_server(tmp_path) as nats,
        serving(nats) as one,
        serving(nats) as two,
        one.session(ALICE) as first,
        two.session(ALICE) as second,
    ):
        await first.crypto.PublishDeviceList(_published(alice.device_list))
        racing = [
            session.crypto.PublishDeviceList(
                _published(_more(alice, alice.device_list, f"agent-{number}-{place}"))
            )
            for number in range(4)
            for place, session in enumerate((first, second))
        ]
        results = await asyncio.gather(*racing, return_exceptions=True)
        lost = [result for result in results if isinstance(result, Conflict)]
        assert {error.reason for error in lost} == {"DEVICE_LIST_STALE"}
        assert len(lost) == len(racing) - 1
        chains = [
            await session.crypto.ListDevices(rpc.ListDevicesRequest(principal=ALICE))
            for session in (first, second)
        ]
        assert chains[0] == chains[1]
        assert len(chains[0].device_lists) == 2


async def test_a_directory_verifies_pins_and_follows_what_the_hub_brings(tmp_path):
    alice, bob = create_account(ALICE, CLOCK), create_account(BOB, CLOCK)
    mine = KeyStore.create(tmp_path / "alice", device=alice.device, own_root=alice.root_public)
    theirs = KeyStore.create(tmp_path / "bob", device=bob.device, own_root=bob.root_public)
    async with (
        nats_server(tmp_path) as nats,
        serving(nats) as hub,
        hub.session(ALICE) as session,
        hub.session(BOB) as other,
    ):
        own = DeviceDirectory(session, mine, CLOCK)
        assert await own.publish(alice.device_list) == 1
        directory = DeviceDirectory(other, theirs, CLOCK)
        keys = await directory.devices_of(ALICE)
        assert (keys.root, keys.version) == (alice.root_public, 1)
        assert await directory.serving_devices(ALICE) == ()
        assert theirs.pinned(ALICE) == alice.root_public
        with_agent = _more(alice, alice.device_list, agent_id := uuid7(CLOCK))
        await own.publish(with_agent)
        assert [d.device_id for d in await own.serving_devices(ALICE)] == [agent_id]
        assert (await directory.devices_of(ALICE)).version == 1
        assert (await directory.devices_of(ALICE, refresh=True)).version == 2
        await own.publish(remove_devices(parse_list(with_agent), alice.device, [agent_id]))
        assert (await directory.devices_of(ALICE, refresh=True)).find(agent_id) is None
    again = KeyStore.open(tmp_path / "bob")
    assert (again.pinned(ALICE), again.list_version(ALICE)) == (alice.root_public, 3)


async def test_what_is_not_built_says_so(tmp_path):
    async with nats_server(tmp_path) as nats, serving(nats) as hub, hub.session(ALICE) as session:
        stub = session.crypto
        for call in (
            stub.PublishBundle(rpc.PublishBundleRequest()),
            stub.ReplenishPrekeys(rpc.ReplenishPrekeysRequest()),
            stub.FetchBundles(rpc.FetchBundlesRequest()),
            stub.PublishGroup(rpc.PublishGroupRequest()),
            stub.PublishRulesCheckpoint(rpc.PublishRulesCheckpointRequest()),
            stub.PublishGrant(rpc.PublishGrantRequest()),
            stub.GetGrants(rpc.GetGrantsRequest()),
            stub.RequestGrant(rpc.RequestGrantRequest()),
            stub.GetTreeHead(rpc.GetTreeHeadRequest()),
            stub.GetInclusionProof(rpc.GetInclusionProofRequest()),
            stub.GetConsistencyProof(rpc.GetConsistencyProofRequest()),
            stub.GetEntries(rpc.GetEntriesRequest()),
            _first(stub.WatchKeys(rpc.WatchKeysRequest())),
        ):
            assert await _reason(call, Unimplemented) == "UNIMPLEMENTED"


async def _first(stream: Any) -> Any:
    async for item in stream:
        return item
    return None
