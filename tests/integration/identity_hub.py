"""The identity service on a real nats-server, for tests that call it over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_client.login import login_local
from syftmesh_client.token_file import StoredTokens
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.errors import MeshError, Unauthenticated, WrongState
from syftmesh_identity.app import build
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.server import ServiceHost, ServiceModule
from syftmesh_kit.token import TokenVerifier

ALICE, BOB, ADMIN = "alice@x.example", "bob@y.example", "admin@hub.example"
CLOCK = SystemClock()


class ShiftedClock(SystemClock):
    """The machine's clock, set forward by `shift_s`."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + int(self.shift_s * 1000)


@dataclass
class Hub:
    address: str
    nats: NatsAddress
    state: Path
    bus: Bus

    @property
    def local_token(self) -> str:
        return (self.state / "local.token").read_text().strip()

    async def login(
        self, principal: str = ALICE, label: str = "profile", device_id: str = ""
    ) -> StoredTokens:
        return await login_local(
            self.address,
            local_token=self.local_token,
            principal=principal,
            device_id=device_id or uuid7(CLOCK),
            label=label,
        )

    @asynccontextmanager
    async def client(self, token: str = "") -> AsyncIterator[Any]:
        async def provide() -> str:
            return token

        channel = open_channel(self.address, token_provider=provide)
        try:
            yield api.IdentityServiceStub(channel)
        finally:
            await channel.close()


@asynccontextmanager
async def nats_server(state: Path) -> AsyncIterator[NatsAddress]:
    server = NatsServer(state / "nats")
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        try:
            yield address
        finally:
            await server.stop()


@asynccontextmanager
async def serving(
    nats: NatsAddress,
    state: Path,
    *,
    address: str = "127.0.0.1:0",
    clock: SystemClock = CLOCK,
    **settings: Any,
) -> AsyncIterator[Hub]:
    bus = await Bus.connect(nats.url, name="identity", user=nats.user, password=nats.password)
    values = {"signing_key_file": state / "signing.pem", "local_token_file": state / "local.token"}
    module = await build(IdentitySettings(**{**values, **settings}), bus=bus, clock=clock)
    async with hosted(module, bus, address=address, clock=clock, public=module.public_methods) as bound:
        yield Hub(bound, nats, state, bus)
    await bus.close()


@asynccontextmanager
async def hosted(
    module: ServiceModule,
    bus: Bus,
    *,
    address: str = "127.0.0.1:0",
    clock: SystemClock = CLOCK,
    public: frozenset[str] = frozenset(),
) -> AsyncIterator[str]:
    """Serve any service as a process of its own does: it follows keys and revocations by itself."""
    keys = KeySetWatcher(bus)
    verifier = TokenVerifier(keys, "embedded", clock)
    keys.on_retired(verifier.forget_key)
    revocations = RevocationWatcher(bus, verifier)
    interceptor = ServerInterceptor(
        verifier=verifier, metrics=RpcMetrics(CollectorRegistry()), public_methods=public
    )
    host = ServiceHost([module], interceptor=interceptor, address=address, check_interval_s=0.2)
    async with asyncio.TaskGroup() as tasks:
        followers = [tasks.create_task(keys.run()), tasks.create_task(revocations.run())]
        async with host.running() as bound:
            await host.wait_ready()
            await until(keys.ready)
            await until(revocations.ready)
            yield bound
        for follower in followers:
            follower.cancel()


async def until(check: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                await check()
            except MeshError:
                await asyncio.sleep(0.02)
            else:
                return


@asynccontextmanager
async def running(state: Path, **settings: Any) -> AsyncIterator[Hub]:
    async with nats_server(state) as nats, serving(nats, state, **settings) as hub:
        yield hub


async def refusal(call: Any, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


async def is_revoked(stub: Any) -> None:
    """Return once the token is refused; a MeshError (try again) until then."""
    try:
        await stub.WhoAmI(rpc.WhoAmIRequest())
    except Unauthenticated as error:
        if error.reason == "TOKEN_REVOKED":
            return
    raise WrongState("still accepted")
