"""Mutual TLS of our own servers: who may connect, and certificates that are replaced while they run."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from syftmesh_core.errors import InvalidInput, Unauthenticated, Unavailable
from syftmesh_kit.channel import open_channel
from syftmesh_kit.health import LIVE, health_port
from syftmesh_kit.http_server import HttpServer
from syftmesh_kit.interceptor import RpcMetrics, ServerInterceptor
from syftmesh_kit.process import free_ports
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.testing_authority import TestAuthority
from syftmesh_kit.tls import TlsIdentity

pytestmark = pytest.mark.integration


class NoModule:
    """A service that is ready and serves nothing but health."""

    name = "none"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        return ()

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def drain(self) -> None:
        pass


class World:
    """An authority, another one, and certificates of both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.foreign = TestAuthority(), TestAuthority("foreign")
        self.server = self.authority.issue(folder / "server", "sync")
        self.gateway = self.authority.issue(folder / "gateway", "gateway")
        self.router = self.authority.issue(folder / "router", "router")
        # Trusts the server, but is not trusted by it.
        self.stranger = self.foreign.issue(folder / "stranger", "gateway", trusted=self.authority.pem)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@asynccontextmanager
async def serving(identity: TlsIdentity, peers: frozenset[str] = frozenset()) -> AsyncIterator[str]:
    interceptor = ServerInterceptor(verifier=None, metrics=RpcMetrics(CollectorRegistry()), peers=peers)
    host = ServiceHost(
        [NoModule()],
        interceptor=interceptor,
        credentials=identity.server_credentials(),
        check_interval_s=0.1,
        drain_s=0.2,
    )
    async with host.running() as address:
        await host.wait_ready()
        yield address


async def check(address: str, tls: grpc.ChannelCredentials | None) -> int:
    channel = open_channel(address, tls=tls)
    try:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=3)).status
    finally:
        await channel.close()


async def test_only_certificates_of_the_own_authority_are_answered(world: World) -> None:
    async with serving(world.server) as address:
        serving_status = health_pb2.HealthCheckResponse.SERVING
        assert await check(address, world.gateway.channel_credentials()) == serving_status
        assert await check(address, world.router.channel_credentials()) == serving_status
        anonymous = grpc.ssl_channel_credentials(world.authority.pem)
        for credentials in (None, anonymous, world.stranger.channel_credentials()):
            with pytest.raises(Unavailable):
                await check(address, credentials)


async def test_a_server_of_another_authority_is_not_called(world: World) -> None:
    async with serving(world.foreign.issue(world.folder / "false", "sync")) as address:
        with pytest.raises(Unavailable):
            await check(address, world.gateway.channel_credentials())


async def test_only_named_peers_are_answered(world: World) -> None:
    async with serving(world.server, frozenset({"gateway", "tools"})) as address:
        await check(address, world.gateway.channel_credentials())
        with pytest.raises(Unauthenticated) as caught:
            await check(address, world.router.channel_credentials())
        assert caught.value.reason == "PEER_REFUSED"


async def _shown(address: str, client: TlsIdentity) -> bytes:
    """Return the certificate that the server shows."""
    host, _, port = address.rpartition(":")
    context = client.client_context()
    context.set_alpn_protocols(["h2"])

    def look() -> bytes:
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                return secured.getpeercert(binary_form=True) or b""

    return ssl.DER_cert_to_PEM_cert(await asyncio.to_thread(look)).encode()


async def test_a_renewed_certificate_is_shown_without_a_restart(world: World) -> None:
    async with serving(world.server) as address:
        first = world.server.cert_file.read_bytes()
        assert await _shown(address, world.gateway) == first
        kept = world.server.key_file.read_bytes()
        world.server.key_file.write_bytes(b"half written")
        assert await _shown(address, world.gateway) == first
        world.server.key_file.write_bytes(kept)
        world.authority.issue(world.server.cert_file.parent, "sync")
        second = await _shown(address, world.gateway)
        assert second == world.server.cert_file.read_bytes() != first
        await check(address, world.gateway.channel_credentials())


async def test_health_alone_is_answered_without_a_certificate() -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    async with health_port(address) as servicer, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status = health_pb2.HealthCheckResponse

        async def asked(name: str) -> int:
            request = health_pb2.HealthCheckRequest(service=name)
            return (await stub.Check(request, timeout=3, wait_for_ready=True)).status

        assert (await asked(LIVE), await asked("")) == (status.SERVING, status.NOT_SERVING)
        await servicer.set("", status.SERVING)
        assert await asked("") == status.SERVING
        reflection = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflection(b"", timeout=3)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(Unavailable) as busy:
            async with health_port(address):
                pass
        assert busy.value.reason == "PORT_IN_USE"


@asynccontextmanager
async def http(identity: TlsIdentity, peers: frozenset[str] = frozenset()) -> AsyncIterator[str]:
    server = HttpServer("127.0.0.1", 0, 1.0, tls=identity, peers=peers)
    async with asyncio.TaskGroup() as tasks:
        follower = asyncio.create_task(asyncio.sleep(0))
        await server.start(PlainTextResponse("here"), tasks)
        yield f"https://localhost:{server.port}/"
        await server.stop()
        await follower
        for task in asyncio.all_tasks():
            if task.get_coro().__qualname__ == "follow":
                task.cancel()


async def _get(url: str, verify: ssl.SSLContext) -> str:
    async with httpx.AsyncClient(verify=verify, trust_env=False) as client:
        return (await client.get(url)).text


async def test_http_is_answered_to_named_peers_alone(world: World) -> None:
    anonymous = ssl.create_default_context(cadata=world.authority.pem.decode())
    async with http(world.server, frozenset({"gateway"})) as url:
        for _ in range(2):
            assert await _get(url, world.gateway.client_context()) == "here"
        for context in (anonymous, world.router.client_context(), world.stranger.client_context()):
            with pytest.raises(httpx.TransportError):
                await _get(url, context)
        with pytest.raises(httpx.TransportError):
            await _get(url.replace("https", "http"), anonymous)
        assert await _get(url, world.gateway.client_context()) == "here"


async def test_http_takes_any_certificate_of_the_authority_when_no_peer_is_named(world: World) -> None:
    async with http(world.server) as url:
        assert await _get(url, world.router.client_context()) == "here"


async def test_http_does_not_start_on_damaged_files(world: World) -> None:
    world.server.cert_file.write_bytes(b"")
    server = HttpServer("127.0.0.1", 0, 1.0, tls=world.server)
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(InvalidInput) as caught:
            await server.start(PlainTextResponse("here"), tasks)
        await server.stop()
    assert caught.value.reason == "TLS_FILES_INVALID"
