"""The gateway's HTTP application, called in process; the object store behind it is a function."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock, system_random
from syftmesh_gateway.adapters.object_proxy import ObjectProxy
from syftmesh_gateway.domain.host import host_rule
from syftmesh_gateway.domain.status import Addresses, Health
from syftmesh_gateway.servicer import Edge, build_app

SECRET = "feedfacefeedface"
QUERY = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
    f"&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={SECRET}"
)
OBJECT = f"/objects/syftmesh/packs/site/0011?{QUERY}"


async def _streamed(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass
class FakeProbe:
    parts: dict[str, bool] = field(default_factory=lambda: {"identity": True})

    async def health(self) -> Health:
        return Health(self.parts)


@dataclass
class Gateway:
    probe: FakeProbe
    seen: list[httpx.Request]
    answer: Callable[[httpx.Request], httpx.Response]
    client: httpx.AsyncClient


@pytest.fixture
def addresses() -> Addresses:
    return Addresses("embedded", "127.0.0.1:8081", False, None, "0.1.0")


@pytest.fixture
async def gateway(addresses: Addresses) -> AsyncIterator[Gateway]:
    async def handle(request: httpx.Request) -> httpx.Response:
        await request.aread()
        found.seen.append(request)
        return found.answer(request)

    store = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    probe = FakeProbe()
    edge = Edge(
        addresses=addresses,
        probe=probe,
        objects=ObjectProxy("http://store.internal:8333", "", store),
        hosts=host_rule(8080, ["hub.example"]),
        registry=CollectorRegistry(),
        clock=SystemClock(),
        random=system_random,
        max_object_bytes=1000,
    )
    transport = httpx.ASGITransport(build_app(edge), client=("127.0.0.1", 1))
    client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
    found = Gateway(probe, [], lambda request: httpx.Response(200, content=_streamed(b"body")), client)
    yield found
    await client.aclose()
    await store.aclose()


async def test_well_known_names_issuer_and_addresses(gateway):
    answer = await gateway.client.get("/.well-known/syftmesh.json")
    assert answer.json() == {
        "issuer": "embedded",
        "grpc": "127.0.0.1:8081",
        "grpc_tls": False,
        "flower": None,
        "version": "0.1.0",
    }


_BEHIND_PROXY = Addresses("https://hub.example", "self", True, "self", "0.1.0")


@pytest.mark.parametrize("addresses", [_BEHIND_PROXY])
@pytest.mark.parametrize(
    ("host", "seen"), [("hub.example", "hub.example:443"), ("hub.example:30443", "hub.example:30443")]
)
async def test_a_hub_behind_a_proxy_tells_the_address_it_was_reached_at(gateway, host, seen):
    answer = await gateway.client.get("/.well-known/syftmesh.json", headers={"host": host})
    assert (answer.json()["grpc"], answer.json()["flower"], answer.json()["grpc_tls"]) == (seen, seen, True)
    assert seen in (await gateway.client.get("/", headers={"host": host})).text
    refused = await gateway.client.get("/.well-known/syftmesh.json", headers={"host": "evil.example"})
    assert refused.json()["reason"] == "HOST_REFUSED"


@pytest.mark.parametrize("addresses", [_BEHIND_PROXY])
async def test_forwarding_headers_change_nothing(gateway):
    headers = {"host": "hub.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    answer = await gateway.client.get("/.well-known/syftmesh.json", headers=headers)
    assert answer.json()["grpc"] == "hub.example:443"


@pytest.mark.parametrize("addresses", [_BEHIND_PROXY])
async def test_behind_a_proxy_nobody_counts_as_near(gateway):
    answer = await gateway.client.get("/metrics")
    assert (answer.status_code, answer.json()["reason"]) == (403, "LOOPBACK_ONLY")


@pytest.mark.parametrize(("parts", "status"), [({"a": True}, 200), ({"a": True, "b": False}, 503)])
async def test_healthz_tells_the_state_of_what_is_behind(gateway, parts, status):
    gateway.probe.parts = parts
    answer = await gateway.client.get("/healthz", headers={"host": "10.1.2.3:8080"})
    assert answer.status_code == status


async def test_the_page_has_a_policy_that_allows_its_style_and_nothing_else(gateway):
    answer = await gateway.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; style-src 'sha256-" in answer.headers["content-security-policy"]
    assert "script" not in answer.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/nothing", "/objects/x"])
async def test_every_answer_has_the_security_headers(gateway, path):
    headers = (await gateway.client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "reason"),
    [
        ("GET", "/nothing", {}, 404, "ROUTE_UNKNOWN"),
        ("POST", "/healthz", {}, 405, "METHOD_REFUSED"),
        ("DELETE", OBJECT, {}, 405, "METHOD_REFUSED"),
        ("GET", "/", {"host": "evil.example"}, 421, "HOST_REFUSED"),
        ("GET", "/", {"origin": "http://evil.example"}, 403, "ORIGIN_REFUSED"),
        ("GET", OBJECT, {"host": "evil.example"}, 421, "HOST_REFUSED"),
        ("GET", "/objects/syftmesh/x", {}, 403, "PRESIGN_REQUIRED"),
        ("GET", "/objects/syftmesh", {}, 400, "OBJECT_KEY_INVALID"),
        ("PUT", OBJECT, {"transfer-encoding": "chunked"}, 411, "LENGTH_REQUIRED"),
        ("PUT", OBJECT, {"content-length": "1001"}, 413, "OBJECT_TOO_LARGE"),
        ("GET", OBJECT, {"authorization": "Bearer x"}, 403, "PRESIGN_REQUIRED"),
    ],
)
async def test_refusals_are_problems_with_a_reason(gateway, method, path, headers, status, reason):
    answer = await gateway.client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["reason"], answer.json()["status"]) == (reason, status)
    assert not gateway.seen


async def test_metrics_are_read_on_this_machine_only(gateway):
    await gateway.client.get("/healthz")
    answer = await gateway.client.get("/metrics")
    assert 'syftmesh_http_handled_total{method="GET",route="/healthz",status="200"} 1.0' in answer.text
    gateway.client._transport.client = ("10.0.0.9", 1)
    answer = await gateway.client.get("/metrics")
    assert (answer.status_code, answer.json()["reason"]) == (403, "LOOPBACK_ONLY")


async def test_an_upload_reaches_the_store_as_it_was_signed(gateway):
    headers = {
        "x-amz-checksum-sha256": "abc",
        "if-none-match": "*",
        "cookie": "mine",
        "x-forwarded-for": "1.2.3.4",
    }
    answer = await gateway.client.put(OBJECT, content=b"x" * 1000, headers=headers)
    assert answer.status_code == 200
    (request,) = gateway.seen
    assert str(request.url) == f"http://store.internal:8333/syftmesh/packs/site/0011?{QUERY}"
    assert request.headers["host"] == "store.internal:8333"
    assert request.headers["content-length"] == "1000"
    assert request.headers["if-none-match"] == "*"
    assert request.headers["x-amz-checksum-sha256"] == "abc"
    assert not {"cookie", "x-forwarded-for", "transfer-encoding"} & set(request.headers)
    assert request.content == b"x" * 1000


async def test_an_empty_upload_has_length_0(gateway):
    assert (await gateway.client.put(OBJECT, content=b"")).status_code == 200
    assert gateway.seen[0].headers["content-length"] == "0"


async def test_a_download_keeps_range_and_tag_and_hides_the_store(gateway):
    gateway.answer = lambda request: httpx.Response(
        206,
        content=_streamed(b"part"),
        headers={"content-range": "bytes 0-3/9", "etag": '"t"', "server": "store", "set-cookie": "x=1"},
    )
    answer = await gateway.client.get(OBJECT, headers={"range": "bytes=0-3"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (206, b"part", '"t"')
    assert gateway.seen[0].headers["range"] == "bytes=0-3"
    assert not {"server", "set-cookie"} & set(answer.headers)


@pytest.mark.parametrize(
    ("store_status", "status", "reason"),
    [
        (400, 400, "OBJECT_REFUSED"),
        (403, 403, "OBJECT_FORBIDDEN"),
        (404, 404, "OBJECT_MISSING"),
        (412, 412, "OBJECT_EXISTS"),
        (416, 416, "RANGE_INVALID"),
        (301, 400, "OBJECT_REFUSED"),
        (500, 503, "OBJECT_STORE_AWAY"),
    ],
)
async def test_what_the_store_refuses_is_told_in_our_words(gateway, store_status, status, reason):
    gateway.answer = lambda request: httpx.Response(store_status, content=b"<Host>store.internal</Host>")
    answer = await gateway.client.get(OBJECT)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert "store.internal" not in answer.text


async def test_a_store_that_is_away_is_unavailable(gateway):
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    gateway.answer = away
    answer = await gateway.client.get(OBJECT)
    assert (answer.status_code, answer.json()["reason"]) == (503, "OBJECT_STORE_AWAY")


async def test_a_defect_is_an_internal_error_with_an_id_and_no_text_of_ours(gateway):
    def defect(request: httpx.Request) -> httpx.Response:
        raise KeyError("inner detail")

    gateway.answer = defect
    answer = await gateway.client.get(OBJECT)
    assert (answer.status_code, answer.json()["reason"]) == (500, "INTERNAL")
    assert "inner detail" not in answer.text
    assert answer.json()["metadata"]["error_id"]


async def test_no_log_line_holds_a_signature(gateway):
    with structlog.testing.capture_logs() as lines:
        await gateway.client.get(OBJECT)
        await gateway.client.put(OBJECT, content=b"x")
        await gateway.client.get(f"/objects/syftmesh/..?{QUERY}")
    assert len(lines) == 3
    assert SECRET not in repr(lines)
    assert "packs" not in repr(lines)
