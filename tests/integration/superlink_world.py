"""A real nats-server, the superlink service and Flower's SuperLink behind it, played on by hand."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from mesh.federated.v1 import federated_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetPublisher
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_kit.topology import bucket
from syftmesh_superlink.app import SuperlinkModule, build
from syftmesh_superlink.settings import SuperlinkSettings

ANNA, BOB, CARL, EVE = "anna@x.example", "bob@y.example", "carl@z.example", "eve@e.example"
CLOCK = SystemClock()
KEY = Ed25519PrivateKey.generate()
ISSUER = TokenIssuer(KEY, "k1", "embedded", CLOCK)
PROJECT = """
[project]
name = "tiny"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "anna"
[tool.flwr.app.components]
serverapp = "tiny.server:app"
clientapp = "tiny.client:app"
[tool.flwr.app.config]
num-server-rounds = 2
rate = 0.5
"""


def token_of(principal: str) -> str:
    """Return an access token."""
    return ISSUER.issue(principal, "dev")[0]


def tiny_fab(project: str = PROJECT) -> bytes:
    """Return a small app bundle."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("pyproject.toml", project)
        archive.writestr("tiny/server.py", "app = None\n")
        archive.writestr("tiny/client.py", "app = None\n")
    return data.getvalue()


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[NatsAddress]:
    """A nats-server of one's own."""
    server = NatsServer(folder / "nats")
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        try:
            yield address
        finally:
            await server.stop()


@dataclass
class Hub:
    """The service under test."""

    grpc: str
    module: SuperlinkModule

    @property
    def http(self) -> str:
        """Return the address of Flower's APIs."""
        return f"127.0.0.1:{self.module.http_port}"

    @asynccontextmanager
    async def stub(self, principal: str) -> AsyncIterator[Any]:
        """A gRPC client."""

        async def provide() -> str:
            return token_of(principal)

        channel = open_channel(self.grpc, token_provider=provide)
        try:
            yield api.FederationServiceStub(channel)
        finally:
            await channel.close()

    async def post(
        self, path: str, message: Any = None, principal: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send one of Flower's requests."""
        sent = {"content-type": "application/protobuf", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if principal is not None:
            sent["authorization"] = f"Bearer {token_of(principal)}"
        body = message.SerializeToString() if message is not None else b""
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
            return await client.post(f"http://{self.http}{path}", content=body, headers=sent)


@asynccontextmanager
async def hub(nats: NatsAddress, folder: Path) -> AsyncIterator[Hub]:
    """Run the service on a bus and a state folder."""
    bus = await Bus.connect(nats.url, name="superlink", user=nats.user, password=nats.password)
    try:
        for name in (subject.KV_IDENTITY_KEYS, subject.KV_IDENTITY_REVOKED):
            await bus.ensure_kv(bucket(name))
        await KeySetPublisher(bus.kv(subject.KV_IDENTITY_KEYS)).publish("k1", KEY.public_key())
        module = await build(SuperlinkSettings(state_dir=folder, drain_s=1.0), bus=bus, clock=CLOCK)
        verifier = TokenVerifier(StaticKeySet({"k1": KEY.public_key()}), "embedded", CLOCK)
        interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
        host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.1, drain_s=3.0)
        async with host.running() as bound:
            async with asyncio.timeout(10):
                await host.wait_ready()
            yield Hub(bound, module)
    finally:
        await bus.close()


async def create(
    stub: Any, *sites: str, rounds: int = 1, minimum: int = 0, config: str = "", fab: bytes | None = None
) -> pb.Run:
    """Create a run."""
    run = pb.Run(sites=sites, dataset="tiny", rounds=rounds, minimum_sites=minimum, run_config_json=config)
    return (await stub.CreateRun(rpc.CreateRunRequest(run=run, bundle=fab or tiny_fab()))).run


async def report(stub: Any, run_id: str, state: int, reason: str = "") -> pb.Run:
    """Report a site's state."""
    request = rpc.ReportSiteRequest(run_id=run_id, state=state, reason=reason)
    return (await stub.ReportSite(request)).run


async def approved_run(found: Hub, *sites: str, minimum: int = 0) -> str:
    """Create a run of Anna's that every site approved, and return its id."""
    async with found.stub(ANNA) as anna:
        run_id = (await create(anna, *sites, minimum=minimum)).run_id
    for site in sites:
        async with found.stub(site) as stub:
            await report(stub, run_id, pb.SITE_STATE_APPROVED)
    return run_id


async def acquire(found: Hub, run_id: str) -> str:
    """Return the task token of Anna's run."""
    async with found.stub(ANNA) as anna:
        return (await anna.AcquireServerTask(rpc.AcquireServerTaskRequest(run_id=run_id))).task_token
