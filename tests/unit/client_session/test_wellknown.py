"""Discovery of a hub."""

from __future__ import annotations

import json

import httpx
import pytest
from syftmesh_client.wellknown import WellKnown, discover
from syftmesh_core.errors import IntegrityFailure, InvalidInput, Unavailable

GOOD = {"issuer": "embedded", "grpc": "127.0.0.1:8081", "version": "0.1.0", "flower": None, "grpc_tls": False}


async def _discover(answer: httpx.Response | Exception, url: str = "http://hub.example:8080/") -> WellKnown:
    def handle(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://hub.example:8080/.well-known/syftmesh.json"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        return await discover(url, http=client)


async def test_a_hub_says_where_its_services_are():
    found = await _discover(httpx.Response(200, json={**GOOD, "flower": "f:1", "new": 1}))
    assert found == WellKnown("embedded", "127.0.0.1:8081", "0.1.0", False, "f:1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hub.example",
        "127.0.0.1:8080",
        "ftp://hub.example",
        "http://",
        "http://a:b@hub.example",
        "http://hub.example/path",
        "http://hub.example?x=1",
        "http://hub.example:99999",
        "http://[::1",
    ],
)
async def test_what_is_no_address_of_a_hub_is_refused(url):
    with pytest.raises(InvalidInput) as caught:
        await discover(url)
    assert caught.value.reason == "INVALID_URL"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(302, headers={"location": "http://evil.example/"}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=json.dumps(GOOD).encode() + b" " * 70_000),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={**GOOD, "grpc": 5}),
        httpx.Response(200, json={**GOOD, "grpc": "no port"}),
        httpx.Response(200, json={**GOOD, "grpc_tls": "yes"}),
        httpx.Response(200, json={"issuer": "x"}),
    ],
    ids=range(9),
)
async def test_what_answers_and_is_no_hub_is_refused(answer):
    with pytest.raises(IntegrityFailure) as caught:
        await _discover(answer)
    assert caught.value.reason == "SERVER_FOREIGN"


@pytest.mark.parametrize("answer", [httpx.ConnectError("no"), httpx.ReadTimeout("no"), httpx.Response(503)])
async def test_a_hub_that_is_away_is_unavailable(answer):
    with pytest.raises(Unavailable) as caught:
        await _discover(answer)
    assert caught.value.reason == "SERVER_UNREACHABLE"


@pytest.mark.parametrize(
    ("server", "hint"),
    [
        ("http://127.0.0.1:8080", "syftmesh up"),
        ("http://localhost:8080/", "syftmesh up"),
        ("https://hub.example", "syftmesh doctor --server https://hub.example"),
    ],
)
async def test_only_a_mesh_of_this_machine_is_said_to_be_started_from_here(server, hint):
    def handle(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        with pytest.raises(Unavailable) as caught:
            await discover(server, http=client)
    assert caught.value.hint == hint
