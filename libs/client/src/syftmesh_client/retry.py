"""One retry policy for every call of a session: idempotent methods only, with back-off and jitter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import Unauthenticated, Unavailable

IDEMPOTENT: Final = frozenset(
    f"/mesh.{service}/{method}"
    for service, methods in {
        "identity.v1.IdentityService": (
            "WhoAmI GetKeySet ListDevices RevokeDevice ListJoinTokens RevokeJoinToken ListSites Logout "
            "RevokePrincipal ReinstatePrincipal ListPrincipals"
        ),
        "sync.v1.SyncService": (
            "OpenUpload CommitFiles ListFiles StatFiles OpenDownload DeleteFiles ListVersions Usage"
        ),
        "permissions.v1.PermissionService": (
            "CheckPermission BatchCheckPermissions ExplainPermission ListReaders"
        ),
        "crypto.v1.KeyDirectoryService": "PublishDeviceList ListDevices",
        "rpc.v1.RpcService": "Call Send AwaitReply GetReply",
        "federated.v1.FederationService": "GetRun ListRuns GetArtifacts",
    }.items()
    for method in methods.split()
)
"""Unary methods whose contract says that asking twice is asking once."""

DEFAULT_TIMEOUT_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0
_STALE: Final = frozenset({"TOKEN_EXPIRED", "TOKEN_INVALID", "TOKEN_REVOKED"})

AccessToken = Callable[[], Awaitable[str]]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What a call does when it fails.

    Attributes:
        access_token: Gives the token to show.
        refuse: Told of a token that the hub refused; the next `access_token` is another.
        clock: Monotonic time.
        random: Source of jitter.
        window_s: Seconds after the first try in which an idempotent call is tried again: longer than a hub
            takes to restart.
        sleep: Waits.
    """

    access_token: AccessToken
    refuse: Callable[[str], None]
    clock: Clock
    random: Random
    window_s: float = 10.0
    sleep: Sleep = asyncio.sleep

    def pause_s(self, tries: int) -> float:
        """Return how long to wait after that many failed tries: half of it fixed, half of it jitter."""
        longest_s = min(_FIRST_PAUSE_S * float(2**tries), _LONGEST_PAUSE_S)
        return longest_s * (0.5 + int.from_bytes(self.random(2), "big") / 131_072)


class RetryingChannel:
    """A channel whose unary calls follow a `RetryPolicy`; give it to a stub in place of a channel.

    Args:
        channel: From `syftmesh_kit.channel.open_channel`.
        policy: What to do when a call fails.
    """

    def __init__(self, channel: grpc.aio.Channel, policy: RetryPolicy) -> None:
        self._channel = channel
        self._policy = policy

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return the callable of a method with one request and one response."""
        return _Unary(self._channel.unary_unary(method, *arguments, **options), method, self._policy)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return the callable of a method that streams responses; reconnecting is its caller's."""
        return _Stream(self._channel.unary_stream(method, *arguments, **options), self._policy)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return the callable of a method that streams requests; it is never tried again."""
        return self._channel.stream_unary(method, *arguments, **options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return the callable of a method that streams both ways; reconnecting is its caller's."""
        return _Stream(self._channel.stream_stream(method, *arguments, **options), self._policy)


class _Unary:
    def __init__(self, call: Any, method: str, policy: RetryPolicy) -> None:
        self._call = call
        self._policy = policy
        self._is_idempotent = method in IDEMPOTENT

    async def __call__(self, request: Any, *, timeout: float | None = None, **options: Any) -> Any:  # noqa: ASYNC109
        policy, started_s = self._policy, self._policy.clock.monotonic_s()
        allowed_s = DEFAULT_TIMEOUT_S if timeout is None else timeout
        tries, renewed = 0, False
        while True:
            left_s = allowed_s - (policy.clock.monotonic_s() - started_s)
            token = ""
            try:
                token = await policy.access_token()
                metadata = (*(options.get("metadata") or ()), ("authorization", f"Bearer {token}"))
                return await self._call(
                    request, timeout=max(left_s, 0.001), **{**options, "metadata": metadata}
                )
            except Unauthenticated as error:
                # The hub refused the token before it looked at the call: any method may be called again.
                if renewed or not token or error.reason not in _STALE:
                    raise
                renewed = True
                policy.refuse(token)
            except Unavailable:
                pause_s = policy.pause_s(tries)
                spent_s = policy.clock.monotonic_s() - started_s + pause_s
                if not self._is_idempotent or spent_s >= min(policy.window_s, allowed_s):
                    raise
                tries += 1
                await policy.sleep(pause_s)


class _Stream:
    """Notes a refused token, so that whoever connects again shows another."""

    def __init__(self, call: Any, policy: RetryPolicy) -> None:
        self._call = call
        self._policy = policy

    def __call__(self, request: Any = None, **options: Any) -> Any:
        return _WatchedCall(self._call(request, **options), self._policy)


class _WatchedCall:
    def __init__(self, call: Any, policy: RetryPolicy) -> None:
        self._call = call
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[Any]:
        token = await self._policy.access_token()
        try:
            async for response in self._call:
                yield response
        except Unauthenticated as error:
            if error.reason in _STALE:
                self._policy.refuse(token)
            raise
