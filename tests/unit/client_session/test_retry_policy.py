"""What a session's call does when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from syftmesh_client.retry import IDEMPOTENT, RetryingChannel, RetryPolicy
from syftmesh_core.errors import Conflict, LimitExceeded, MeshError, Unauthenticated, Unavailable

READ, WRITE = "/mesh.sync.v1.SyncService/ListFiles", "/mesh.identity.v1.IdentityService/CreateJoinToken"


class Clock:
    def __init__(self) -> None:
        self.at_s = 100.0

    def now_ms(self) -> int:
        return int(self.at_s * 1000)

    def monotonic_s(self) -> float:
        return self.at_s


class Hub:
    """A channel that fails as told, a clock that only sleeping moves, and a source of tokens."""

    def __init__(self, *failures: MeshError) -> None:
        self.failures = list(failures)
        self.clock = Clock()
        self.calls: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.slept_s: list[float] = []
        self.token_failures: list[MeshError] = []
        policy = RetryPolicy(
            self.token, self.refused.append, self.clock, lambda size: b"\xff" * size, 10.0, self.sleep
        )
        self.channel = RetryingChannel(self, policy)  # type: ignore[arg-type]

    async def token(self) -> str:
        if self.token_failures:
            raise self.token_failures.pop(0)
        return f"token-{len(self.refused)}"

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.clock.at_s += seconds

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        async def call(request: Any, **given: Any) -> str:
            self.calls.append(given)
            if self.failures:
                raise self.failures.pop(0)
            return "answer"

        return call

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        async def responses(request: Any, **given: Any) -> AsyncIterator[str]:
            yield "first"
            raise self.failures.pop(0)

        return responses


def away() -> Unavailable:
    return Unavailable("away", reason="SERVER_UNREACHABLE")


async def test_an_idempotent_call_is_tried_again_with_growing_pauses():
    hub = Hub(away(), away(), away())
    assert await hub.channel.unary_unary(READ)(b"") == "answer"
    assert len(hub.calls) == 4
    assert hub.slept_s == sorted(hub.slept_s)
    assert hub.slept_s[0] < 0.11
    assert all(pause <= 1.0 for pause in hub.slept_s)


async def test_a_call_that_is_not_idempotent_is_made_once():
    hub = Hub(away())
    with pytest.raises(Unavailable):
        await hub.channel.unary_unary(WRITE)(b"")
    assert (len(hub.calls), hub.slept_s) == (1, [])


async def test_tries_end_with_the_window():
    hub = Hub(*[away() for _ in range(100)])
    with pytest.raises(Unavailable):
        await hub.channel.unary_unary(READ)(b"", timeout=60)
    assert 8 < sum(hub.slept_s) < 10


async def test_tries_end_with_the_deadline_and_each_has_what_is_left_of_it():
    hub = Hub(*[away() for _ in range(100)])
    with pytest.raises(Unavailable):
        await hub.channel.unary_unary(READ)(b"", timeout=2)
    assert sum(hub.slept_s) < 2
    left = [call["timeout"] for call in hub.calls]
    assert left[0] == 2
    assert left == sorted(left, reverse=True)


async def test_a_call_without_deadline_gets_one():
    hub = Hub()
    await hub.channel.unary_unary(READ)(b"")
    assert hub.calls[0]["timeout"] == 30


@pytest.mark.parametrize(
    "error", [Conflict("x"), LimitExceeded("x"), Unauthenticated("x", reason="REFRESH_REUSED")]
)
async def test_other_errors_are_not_tried_again(error):
    hub = Hub(error)
    with pytest.raises(type(error)):
        await hub.channel.unary_unary(READ)(b"")
    assert len(hub.calls) == 1


@pytest.mark.parametrize("reason", ["TOKEN_EXPIRED", "TOKEN_REVOKED", "TOKEN_INVALID"])
@pytest.mark.parametrize("method", [READ, WRITE])
async def test_a_refused_token_is_replaced_once_for_any_call(method, reason):
    hub = Hub(Unauthenticated("x", reason=reason))
    assert await hub.channel.unary_unary(method)(b"") == "answer"
    assert hub.refused == ["token-0"]
    shown = [dict(call["metadata"])["authorization"] for call in hub.calls]
    assert shown == ["Bearer token-0", "Bearer token-1"]


async def test_a_second_refusal_is_told():
    hub = Hub(Unauthenticated("x", reason="TOKEN_REVOKED"), Unauthenticated("x", reason="TOKEN_REVOKED"))
    with pytest.raises(Unauthenticated):
        await hub.channel.unary_unary(READ)(b"")
    assert len(hub.calls) == 2


async def test_a_renewal_that_finds_the_hub_away_is_tried_again_too():
    hub = Hub()
    hub.token_failures = [away(), away()]
    assert await hub.channel.unary_unary(READ)(b"") == "answer"
    assert len(hub.slept_s) == 2


async def test_metadata_of_the_caller_stays():
    hub = Hub()
    await hub.channel.unary_unary(READ)(b"", metadata=(("x-mine", "1"),))
    assert dict(hub.calls[0]["metadata"]) == {"x-mine": "1", "authorization": "Bearer token-0"}


async def test_a_stream_notes_a_refused_token_and_is_not_tried_again():
    hub = Hub(Unauthenticated("x", reason="TOKEN_EXPIRED"))
    got = []
    with pytest.raises(Unauthenticated):
        got += [item async for item in hub.channel.stream_stream(READ)(b"")]
    assert hub.refused == ["token-0"]


def test_every_idempotent_method_exists_and_none_that_makes_or_rotates_is_among_them():
    from mesh.crypto.v1 import crypto_service_pb2
    from mesh.federated.v1 import federated_service_pb2
    from mesh.identity.v1 import identity_service_pb2
    from mesh.permissions.v1 import permissions_service_pb2
    from mesh.rpc.v1 import rpc_service_pb2
    from mesh.sync.v1 import sync_service_pb2

    modules = (
        crypto_service_pb2,
        federated_service_pb2,
        identity_service_pb2,
        permissions_service_pb2,
        rpc_service_pb2,
        sync_service_pb2,
    )
    known = {
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    }
    assert known >= IDEMPOTENT
    for name in ("Refresh", "RedeemJoinToken", "CreateJoinToken", "LoginLocal"):
        assert f"/mesh.identity.v1.IdentityService/{name}" not in IDEMPOTENT
