"""One RPC on the server: its scope opens with trace and caller, closes with status, metrics and log."""

from __future__ import annotations

import asyncio
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Self

import grpc
import structlog
from opentelemetry.context import Context
from opentelemetry.trace import Span
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import MeshError, PermissionDenied, Unauthenticated

from syftmesh_kit.caller import Caller, bind_caller
from syftmesh_kit.errors import internal_error, message_too_large, status_code, trailing_metadata
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.tls import check_peer, peer_names
from syftmesh_kit.token import Revocation, TokenVerifier, audience_of
from syftmesh_kit.trace import TRACEPARENT, end_span, start_span

AUTHORIZATION: Final = "authorization"
_BEARER: Final = "Bearer "
GUEST_METHODS: Final = frozenset(
    f"/mesh.{service}/{method}"
    for service, methods in {
        "identity.v1.IdentityService": "WhoAmI",
        "permissions.v1.PermissionService": (
            "CheckPermission BatchCheckPermissions ExplainPermission ListAccessible"
        ),
        "sync.v1.SyncService": "WatchChanges ListFiles StatFiles OpenDownload",
    }.items()
    for method in methods.split()
)
"""All that a guest may call, besides what needs no token: reading, and asking what it may read."""

WRITE_S: Final = 2.0
"""Seconds that a revoked caller has to take the message that is being written to it."""

_QUIET: Final = ("/grpc.health.v1.", "/grpc.reflection.")


class Pipeline:
    """What every call of one server shares."""

    def __init__(
        self,
        *,
        verifier: TokenVerifier | None,
        metrics: RpcMetrics,
        clock: Clock,
        random: Random,
        limit_bytes: int,
        peers: frozenset[str] = frozenset(),
        caller: Caller | None = None,
    ) -> None:
        self.peers = peers
        self.caller = caller
        self.verifier = verifier
        self.metrics = metrics
        self.clock = clock
        self.random = random
        self.limit_bytes = limit_bytes
        self.log: Any = structlog.get_logger("syftmesh.rpc")
        self.open: set[CallScope] = set()
        if verifier is not None:
            verifier.on_revoked(self.end_revoked)

    def end_revoked(self, revocation: Revocation) -> None:
        """End the open calls that were made with what `revocation` covers."""
        for call in list(self.open):
            # An open call's token is older than its revocation: the time of issue needs no comparing.
            if call.caller is not None and revocation.covers(call.caller, 0):
                call.end_revoked()


class CallScope:
    """Async context manager around one handler; maps whatever leaves it to one status and one log line."""

    __slots__ = (
        "_context",
        "_method",
        "_open",
        "_pipeline",
        "_span",
        "_started_s",
        "_writing",
        "bytes_in",
        "bytes_out",
        "caller",
        "revoked",
        "task",
    )

    def __init__(self, pipeline: Pipeline, method: str, context: Any, *, public: bool) -> None:
        self._pipeline = pipeline
        self._method = method
        self._context = context
        self._open = public
        self._span: tuple[Span, Token[Context]] | None = None
        self._started_s = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.caller: Caller | None = None
        self.task: asyncio.Task[Any] | None = None
        self.revoked = False
        self._writing = False

    async def __aenter__(self) -> Self:
        pipeline = self._pipeline
        self._started_s = pipeline.clock.monotonic_s()
        traceparent = token = ""
        for key, value in self._context.invocation_metadata() or ():
            if key == TRACEPARENT:
                traceparent = value
            elif key == AUTHORIZATION:
                token = value
        self._span = start_span(self._method, traceparent, pipeline.random)
        try:
            if pipeline.peers:
                check_peer(peer_names(self._context.auth_context()), pipeline.peers)
            self.caller = pipeline.caller or self._authenticate(token)
        except MeshError as error:
            await self._finish(error)
        bind_caller(self.caller)
        self.task = asyncio.current_task()
        pipeline.open.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipeline.open.discard(self)
        await self._finish(error)

    def take(self, request: tuple[Any, int] | MeshError) -> Any:
        """Return the message of a request that `sized` decoded.

        Raises:
            LimitExceeded: The message was above the limit (MESSAGE_TOO_LARGE).
            InvalidInput: It is no message of the method's type (MESSAGE_MALFORMED).
        """
        if isinstance(request, MeshError):
            raise request
        self.bytes_in += request[1]
        return request[0]

    def give(self, raw: bytes) -> bytes:
        """Count an encoded response and refuse one above the limit before the transport has to."""
        if len(raw) > self._pipeline.limit_bytes:
            raise message_too_large(len(raw), self._pipeline.limit_bytes)
        self.bytes_out += len(raw)
        return raw

    def begin_write(self) -> None:
        """Leave the handler: until `end_write` gRPC itself waits, for the client to take a message."""
        self._writing = True

    def end_write(self) -> None:
        """Be back in the handler.

        Raises:
            Unauthenticated: The caller was revoked meanwhile (TOKEN_REVOKED).
        """
        self._writing = False
        if self.revoked:
            raise _revoked()

    def end_revoked(self) -> None:
        """End the call: at once, or behind the message that is being written.

        A cancellation that meets gRPC's own write ends the call without a status, and the client waits for ever.
        Who does not take that message within `WRITE_S` is cut off all the same.
        """
        self.revoked = True
        if self.task is None:
            return
        if self._writing:
            asyncio.get_running_loop().call_later(WRITE_S, self.task.cancel)
        else:
            self.task.cancel()

    def _authenticate(self, header: str) -> Caller | None:
        verifier = self._pipeline.verifier
        if verifier is None or not header.startswith(_BEARER):
            if self._open:
                return None
            raise Unauthenticated(
                "This call needs an access token.",
                reason="TOKEN_MISSING",
                hint="Log in with `syftmesh login`.",
            )
        try:
            caller = verifier.verify(header[len(_BEARER) :], audience_of(self._method))
        except Unauthenticated:
            if self._open:  # a stale token must not keep anybody from logging in
                return None
            raise
        if caller.kind == "guest" and not self._open and self._method not in GUEST_METHODS:
            raise PermissionDenied(
                "Guests may read what is open to them, and nothing else. Log in for this.",
                reason="GUEST_NOT_ALLOWED",
                hint="syftmesh login",
            )
        return caller

    async def _finish(self, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError) and self.revoked:
            if self.task is not None:
                self.task.uncancel()
            error = _revoked()
        failure: MeshError | None = None
        code, reason = "OK", ""
        if isinstance(error, MeshError):
            failure, code, reason = error, error.code, error.reason
        elif isinstance(error, grpc.aio.AbortError):
            code = _aborted_code(self._context)
        elif isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            code, reason = "CANCELLED", "CANCELLED"
        elif isinstance(error, Exception):
            failure = internal_error(uuid7(self._pipeline.clock, self._pipeline.random))
            code, reason = failure.code, failure.reason
        self._record(code, reason, failure, error)
        if failure is not None:
            await self._context.abort(status_code(failure), failure.message, trailing_metadata(failure))

    def _record(self, code: str, reason: str, failure: MeshError | None, error: BaseException | None) -> None:
        duration_s = self._pipeline.clock.monotonic_s() - self._started_s
        self._pipeline.metrics.handled(self._method, code, duration_s)
        unexpected = failure is not None and error is not failure and not self.revoked
        log = self._pipeline.log
        emit = log.error if unexpected else log.debug if self._method.startswith(_QUIET) else log.info
        extra: dict[str, Any] = {}
        if unexpected and failure is not None:
            extra = {"error_id": failure.metadata["error_id"], "exc_info": error}
        emit(
            "rpc.handled",
            method=self._method,
            code=code,
            reason=reason,
            duration_ms=round(duration_s * 1000, 3),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            principal=self.caller.principal if self.caller is not None else "",
            **extra,
        )
        if self._span is not None:
            end_span(*self._span)


def _revoked() -> Unauthenticated:
    return Unauthenticated("The access token has been revoked.", reason="TOKEN_REVOKED")


def _aborted_code(context: Any) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((c.name for c in grpc.StatusCode if c.value[0] == code), "UNKNOWN")
