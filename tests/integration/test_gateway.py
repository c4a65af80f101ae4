"""The gateway over real sockets: HTTP, objects through it to a real S3 server, and the gRPC forwarder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from mesh.identity.v1 import identity_service_pb2 as identity_rpc
from mesh.identity.v1 import identity_service_pb2_grpc as identity_api
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1 import rpc_service_pb2_grpc as rpc_api
from prometheus_client import CollectorRegistry
from syftmesh_client.wellknown import discover
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import (
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    NotFound,
    Unavailable,
    Unimplemented,
)
from syftmesh_gateway.app import GatewayModule, build
from syftmesh_gateway.settings import GatewaySettings
from syftmesh_kit.channel import open_channel
from syftmesh_kit.errors import DETAILS_KEY
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.native import SeaweedServer
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.server import ServiceHost

pytestmark = pytest.mark.integration

CLOCK = SystemClock()
MIB = 1024 * 1024


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[GatewayModule]:
    """A running gateway; its store does not answer unless said."""
    values = {"http_port": 0, "s3_endpoint": "http://127.0.0.1:9", "drain_s": 1.0, **settings}
    module = await build(GatewaySettings(**values), clock=CLOCK)
    interceptor = ServerInterceptor(verifier=None, metrics=RpcMetrics(CollectorRegistry()))
    host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.2)
    async with host.running():
        await host.wait_ready()
        yield module


@asynccontextmanager
async def backend(*modules: Any, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    names = frozenset(
        f"/mesh.{service}/{method}"
        for service, method in (
            ("identity.v1.IdentityService", "WhoAmI"),
            ("identity.v1.IdentityService", "GetKeySet"),
            ("identity.v1.IdentityService", "ListSites"),
            ("rpc.v1.RpcService", "Serve"),
            ("rpc.v1.RpcService", "Subscribe"),
        )
    )
    interceptor = ServerInterceptor(
        verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=names
    )
    host = ServiceHost(modules, interceptor=interceptor, address=address, check_interval_s=0.2, drain_s=0.5)
    async with host.running() as bound:
        await host.wait_ready()
        yield bound


class _Module:
    """A service module around one servicer."""

    def __init__(self, name: str, service: str, add: Any, servicer: Any) -> None:
        self.name, self._service, self._add, self._servicer = name, service, add, servicer

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        self._add(self._servicer, server)
        return (self._service,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def drain(self) -> None:
        pass


class Identity(identity_api.IdentityServiceServicer):
    """Answers in ways that show what was forwarded."""

    async def WhoAmI(self, request: Any, context: Any) -> Any:  # noqa: N802
        seen = dict(context.invocation_metadata())
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        return identity_rpc.WhoAmIResponse(principal=seen.get("authorization", ""), device_id=seen["x-echo"])

    async def GetKeySet(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotFound(
            "nothing here", reason="DEVICE_UNKNOWN", metadata={"value": "é"}, hint="look elsewhere"
        )

    async def ListSites(self, request: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.sleep(30)


class Rpc(rpc_api.RpcServiceServicer):
    """Echoes frames."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Serve(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            async for _ in requests:
                yield rpc.ServeResponse()
        finally:
            self.ended.set()

    async def Subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        for _ in range(3):
            yield rpc.SubscribeResponse()
        raise Unavailable("later", reason="STARTING")


def identity_module() -> _Module:
    service = "mesh.identity.v1.IdentityService"
    return _Module("identity", service, identity_api.add_IdentityServiceServicer_to_server, Identity())


def rpc_module(servicer: Rpc) -> _Module:
    return _Module("router", "mesh.rpc.v1.RpcService", rpc_api.add_RpcServiceServicer_to_server, servicer)


@asynccontextmanager
async def forwarded(servicer: Rpc | None = None) -> AsyncIterator[str]:
    """The address of a forwarder in front of two backends."""
    async with (
        backend(identity_module()) as identity,
        backend(rpc_module(servicer or Rpc())) as router,
        gateway(backends={"identity": identity, "rpc": router}, forward_listen="127.0.0.1:0") as module,
    ):
        yield f"127.0.0.1:{module.forward_port}"


@asynccontextmanager
async def ours(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(address)
    yield channel
    await channel.close()


async def test_a_unary_call_passes_with_metadata_both_ways():
    async with forwarded() as address, grpc.aio.insecure_channel(address) as channel:
        metadata = (("authorization", "Bearer abc"), ("x-echo", "hello"))
        stub = identity_api.IdentityServiceStub(channel)
        call = stub.WhoAmI(identity_rpc.WhoAmIRequest(), metadata=metadata, timeout=5)
        answer = await call
        assert (answer.principal, answer.device_id) == ("Bearer abc", "hello")
        assert dict(await call.initial_metadata())["x-first"] == "1"
        assert dict(await call.trailing_metadata())["x-last-bin"] == b"\x00\xff"


async def test_an_error_passes_with_reason_metadata_and_hint():
    async with forwarded() as address:
        async with ours(address) as channel:
            stub = identity_api.IdentityServiceStub(channel)
            with pytest.raises(NotFound) as caught:
                await stub.GetKeySet(identity_rpc.GetKeySetRequest(), timeout=5)
            found = caught.value
            assert (found.message, found.reason, found.hint) == (
                "nothing here",
                "DEVICE_UNKNOWN",
                "look elsewhere",
            )
            assert found.metadata == {"value": "é"}
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await identity_api.IdentityServiceStub(channel).GetKeySet(
                    identity_rpc.GetKeySetRequest(), timeout=5
                )
            assert DETAILS_KEY in dict(raw.value.trailing_metadata())


async def test_streams_pass_in_both_directions_and_end_with_their_status():
    async with forwarded() as address, ours(address) as channel:
        stub = rpc_api.RpcServiceStub(channel)
        turn: asyncio.Queue[int] = asyncio.Queue()

        async def requests() -> AsyncIterator[Any]:
            while True:
                await turn.get()
                yield rpc.ServeRequest()

        turn.put_nowait(1)
        seen = 0
        async for _ in stub.Serve(requests(), timeout=10):
            seen += 1
            if seen == 5:
                break
            turn.put_nowait(seen)  # only after an answer: nothing is held back on the way
        assert seen == 5
        got: list[Any] = []
        with pytest.raises(Unavailable) as caught:
            await _collect(stub.Subscribe(rpc.SubscribeRequest(), timeout=5), got)
        assert (len(got), caught.value.reason) == (3, "STARTING")


async def _collect(stream: Any, into: list[Any]) -> None:
    async for item in stream:
        into.append(item)


async def test_a_cancelled_call_ends_at_the_backend():
    servicer = Rpc()
    async with forwarded(servicer) as address, grpc.aio.insecure_channel(address) as channel:
        call = rpc_api.RpcServiceStub(channel).Serve()
        await call.write(rpc.ServeRequest())
        await call.read()
        call.cancel()
        async with asyncio.timeout(5):
            await servicer.ended.wait()


async def test_the_deadline_passes():
    async with forwarded() as address, ours(address) as channel:
        started_s = CLOCK.monotonic_s()
        with pytest.raises(DeadlineExceeded):
            await identity_api.IdentityServiceStub(channel).ListSites(
                identity_rpc.ListSitesRequest(), timeout=0.3
            )
        assert CLOCK.monotonic_s() - started_s < 3


async def test_an_unknown_domain_or_method_is_unimplemented():
    async with forwarded() as address, ours(address) as channel:
        for method in (
            "/mesh.sync.v1.SyncService/ListFiles",
            "/mesh.identity.v1.IdentityService/Nothing",
            "/x.Y/Z",
        ):
            call = channel.unary_unary(method)
            with pytest.raises(Unimplemented):
                await call(b"", timeout=5)


async def test_a_backend_that_is_away_is_unavailable_and_comes_back():
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    async with (
        gateway(backends={"identity": address}, forward_listen="127.0.0.1:0") as module,
        ours(f"127.0.0.1:{module.forward_port}") as channel,
    ):
        stub = identity_api.IdentityServiceStub(channel)
        call_metadata = (("x-echo", "y"),)
        with pytest.raises(Unavailable):
            await stub.WhoAmI(identity_rpc.WhoAmIRequest(), metadata=call_metadata, timeout=5)
        async with backend(identity_module(), address=address):
            async with asyncio.timeout(10):
                while True:
                    try:
                        await stub.WhoAmI(identity_rpc.WhoAmIRequest(), metadata=call_metadata, timeout=5)
                    except Unavailable:
                        await asyncio.sleep(0.05)
                    else:
                        break


async def test_health_page_and_addresses_over_http():
    async with (
        backend(identity_module()) as identity,
        gateway(backends={"identity": identity}, advertised_grpc="127.0.0.1:1234") as module,
    ):
        base = f"http://127.0.0.1:{module.http_port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            answer = await client.get("/healthz")
            assert answer.status_code == 503
            assert answer.json()["parts"] == {"identity": "serving", "object store": "not_serving"}
            assert "not ready" in (await client.get("/")).text
            assert (await client.get("/metrics")).status_code == 200
            refused = await client.get("/", headers={"host": "rebound.example"})
            assert (refused.status_code, refused.json()["reason"]) == (421, "HOST_REFUSED")
            assert "server" not in answer.headers
        found = await discover(base)
        assert (found.issuer, found.grpc_address, found.grpc_tls) == ("embedded", "127.0.0.1:1234", False)


async def test_discovery_tells_a_hub_from_anything_else():
    async with gateway() as module:
        with pytest.raises(InvalidInput):
            await discover(f"127.0.0.1:{module.http_port}")
        with pytest.raises(IntegrityFailure):
            # Host refused: an answer, and not a hub's own
            async with httpx.AsyncClient(trust_env=False, headers={"host": "x"}) as client:
                await discover(f"http://127.0.0.1:{module.http_port}", http=client)
    with pytest.raises(Unavailable):
        await discover(f"http://127.0.0.1:{free_ports(1)[0]}")


@asynccontextmanager
async def stored(state: Path) -> AsyncIterator[tuple[S3ObjectStore, httpx.AsyncClient]]:
    """A real store whose pre-signed addresses lead through the gateway."""
    (port,) = free_ports(1)
    weed = SeaweedServer(state / "s3")
    async with asyncio.TaskGroup() as tasks:
        config = await weed.start(tasks)
        try:
            base = f"http://127.0.0.1:{port}"
            store = S3ObjectStore(
                S3Config(
                    config.endpoint,
                    config.access_key,
                    config.secret_key,
                    config.bucket,
                    url_base=f"{base}/objects",
                )
            )
            await store.ensure_bucket()
            async with (
                gateway(http_port=port, s3_endpoint=config.endpoint),
                httpx.AsyncClient(trust_env=False, timeout=30) as client,
            ):
                yield store, client
        finally:
            await weed.stop()


async def test_objects_pass_through_by_presigned_addresses(tmp_path):
    body = os.urandom(16 * MIB)
    digest = hashlib.sha256(body).digest()
    key = f"packs/mfwgsy3f/{digest.hex()}"
    async with stored(tmp_path) as (store, client):
        put = store.presign_put(key, size_bytes=len(body), sha256=digest, ttl_s=60)
        assert "/objects/" in put.url
        wrong = await client.put(put.url, content=body[:-1] + b"x", headers=put.headers)
        assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")
        short = await client.put(put.url, content=body[:10], headers={**put.headers, "content-length": "10"})
        assert short.status_code == 403
        assert (await client.put(put.url, content=body, headers=put.headers)).status_code == 200
        assert await store.get(key) == body
        again = await client.put(put.url, content=body, headers=put.headers)
        assert (again.status_code, again.json()["reason"]) == (412, "OBJECT_EXISTS")
        get = store.presign_get(key, ttl_s=60)
        assert (await client.get(get.url)).content == body
        part = await client.get(get.url, headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, body[5:10])
        forged = await client.get(get.url.replace("X-Amz-Signature=", "X-Amz-Signature=0"))
        assert (forged.status_code, forged.json()["reason"]) == (403, "OBJECT_FORBIDDEN")
        other = await client.get(get.url.replace(digest.hex(), "00" * 32))
        assert other.status_code == 403
        health = await client.get(get.url.partition("/objects/")[0] + "/healthz")
        assert health.json() == {"status": "serving", "parts": {"object store": "serving"}}


async def test_many_uploads_at_once_do_not_fill_the_memory(tmp_path):
    body = os.urandom(16 * MIB)
    digest = hashlib.sha256(body).digest()
    async with stored(tmp_path) as (store, client):
        before = _resident_bytes()
        puts = [
            store.presign_put(f"packs/site/{number}", size_bytes=len(body), sha256=digest, ttl_s=60)
            for number in range(6)
        ]

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        answers = await asyncio.gather(
            *(
                client.put(
                    put.url, content=chunks(), headers={**put.headers, "content-length": str(len(body))}
                )
                for put in puts
            )
        )
        assert [answer.status_code for answer in answers] == [200] * 6
        assert _resident_bytes() - before < 3 * len(body)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_a_client_that_leaves_in_the_middle_leaves_no_object(tmp_path):
    body = os.urandom(MIB)
    digest = hashlib.sha256(body).digest()
    async with stored(tmp_path) as (store, client):
        put = store.presign_put("packs/site/half", size_bytes=len(body), sha256=digest, ttl_s=60)

        async def half() -> AsyncIterator[bytes]:
            yield body[: MIB // 2]
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            await client.put(put.url, content=half(), headers={**put.headers, "content-length": str(MIB)})
        await asyncio.sleep(0.3)
        assert await store.head("packs/site/half") is None
        assert (await client.put(put.url, content=body, headers=put.headers)).status_code == 200


async def test_a_port_in_use_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises((Unavailable, ExceptionGroup)) as caught:
            async with gateway(http_port=taken.getsockname()[1]):
                pass
    assert "PORT_IN_USE" in repr(caught.value)
