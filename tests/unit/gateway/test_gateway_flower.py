"""Flower's clients at the gateway: which requests are passed on, what of them, and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from syftmesh_gateway.adapters.flower_proxy import MAX_BODY_BYTES, MAX_OPEN, FlowerProxy
from syftmesh_gateway.app import build
from syftmesh_gateway.domain.host import host_rule
from syftmesh_gateway.domain.status import Addresses
from syftmesh_gateway.servicer import Edge, build_app
from syftmesh_gateway.settings import GatewaySettings
from syftmesh_kit.testing import FakeClock, FakeRandom

PORT = 8080


class Superlink:
    """The superlink service: remembers requests and answers when it may."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.may = asyncio.Event()
        self.may.set()
        self.away = False

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        self.requests.append(request)
        await self.may.wait()
        headers = {"content-type": "application/protobuf", "set-cookie": "a=b", "www-authenticate": "Bearer"}
        return httpx.Response(401, stream=httpx.ByteStream(b"answer"), headers=headers)


@pytest.fixture
async def parts() -> AsyncIterator[tuple[Superlink, httpx.AsyncClient, FlowerProxy]]:
    """The service, a client of the gateway before it, and the proxy."""
    superlink, proxy = Superlink(), FlowerProxy("http://superlink/")
    await proxy._client.aclose()
    proxy._client = httpx.AsyncClient(transport=httpx.MockTransport(superlink))
    unneeded: Any = None
    edge = Edge(
        addresses=Addresses("i", "g", False, None, "1"),
        probe=unneeded,
        objects=unneeded,
        hosts=host_rule(PORT),
        registry=CollectorRegistry(),
        clock=FakeClock(),
        random=FakeRandom(),
        max_object_bytes=1,
        flower=proxy,
    )
    transport = httpx.ASGITransport(build_app(edge), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client:
        yield superlink, client, proxy
    await proxy.close()


async def test_a_request_is_passed_on_with_what_concerns_flower(parts: Any) -> None:
    superlink, client, _ = parts
    headers = {
        "authorization": "Bearer t",
        "flwr-task-token": "x",
        "content-type": "application/protobuf",
        "x-a": "1",
    }
    answer = await client.post("/v1/runtime/push-messages", content=b"body", headers=headers)
    assert (answer.status_code, answer.content) == (401, b"answer")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers
    request = superlink.requests[0]
    assert (str(request.url), request.content) == ("http://superlink/v1/runtime/push-messages", b"body")
    assert (request.headers["authorization"], request.headers["flwr-task-token"]) == ("Bearer t", "x")
    assert "x-a" not in request.headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/", "/v1/fleet/a/b", "/v1/fleet/a%2fb", "/v1/fleet/%2e%2e", "/v1/fleet/A", "/v1/fleet/a?x=1/..",
        "/v1/other/a", "/v1/fleet", "/private/claim", "/docs", "/openapi.json", f"/v1/fleet/{'a' * 65}",
    ],
)  # fmt: skip
async def test_nothing_else_reaches_the_service(parts: Any, path: str) -> None:
    superlink, client, _ = parts
    answer = await client.post(path)
    assert all("?" not in str(request.url) for request in superlink.requests)
    if "?" not in path:
        assert answer.status_code == 404
        assert superlink.requests == []


async def test_only_posts_reach_the_service(parts: Any) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert (await parts[1].request(method, "/v1/fleet/get-run")).status_code == 404
    assert parts[0].requests == []


async def test_pages_of_other_origins_and_hosts_reach_nothing(parts: Any) -> None:
    superlink, client, _ = parts
    assert (
        await client.post("/v1/control/start-run", headers={"origin": "http://evil.example"})
    ).status_code == 403
    assert (await client.post("/v1/control/start-run", headers={"host": "evil.example"})).status_code == 421
    assert superlink.requests == []


async def test_a_body_too_large_is_refused_whether_announced_or_not(parts: Any) -> None:
    superlink, client, proxy = parts

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"x" * (1024 * 1024)

    for content in (b"x" * (MAX_BODY_BYTES + 1), chunks()):
        answer = await client.post("/v1/fleet/push-object", content=content)
        assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")
    assert superlink.requests == []
    assert (await client.post("/v1/fleet/push-object", content=b"x" * MAX_BODY_BYTES)).status_code == 401
    assert proxy._open == 0


async def test_a_service_that_is_away_makes_flowers_clients_try_again(parts: Any) -> None:
    superlink, client, proxy = parts
    superlink.away = True
    answer = await client.post("/v1/fleet/get-run")
    assert (answer.status_code, answer.json()["reason"]) == (503, "SUPERLINK_AWAY")
    assert proxy._open == 0


async def test_requests_that_wait_do_not_take_the_whole_port(parts: Any) -> None:
    superlink, client, proxy = parts
    superlink.may.clear()
    waiting = [asyncio.ensure_future(client.post("/v1/fleet/pull-messages")) for _ in range(MAX_OPEN)]
    while len(superlink.requests) < MAX_OPEN:
        await asyncio.sleep(0)
    answer = await client.post("/v1/fleet/pull-messages")
    assert (answer.status_code, answer.json()["reason"]) == (503, "BUSY")
    superlink.may.set()
    assert {found.status_code for found in await asyncio.gather(*waiting)} == {401}
    assert proxy._open == 0


async def test_a_client_that_goes_away_ends_its_request(parts: Any) -> None:
    superlink, _, proxy = parts
    superlink.may.clear()
    gone = asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def body() -> AsyncIterator[bytes]:
        yield b""

    async def ask() -> Response:
        return await proxy.pass_on("/v1/fleet/pull-messages", {}, body(), receive)

    asking = asyncio.ensure_future(ask())
    while not superlink.requests:
        await asyncio.sleep(0)
    gone.set()
    done, _ = await asyncio.wait({asking}, timeout=5)
    assert done
    assert asking.exception() is not None
    assert proxy._open == 0


async def test_a_hub_without_flower_has_no_such_routes() -> None:
    module = await build(GatewaySettings(http_port=0), clock=FakeClock())
    assert module._flower is None
    assert module._addresses().document()["flower"] is None
    told = await build(GatewaySettings(advertised_flower="hub:80"), clock=FakeClock())
    assert told._addresses().document()["flower"] == "hub:80"
