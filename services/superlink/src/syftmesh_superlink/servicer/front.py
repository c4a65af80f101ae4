"""The HTTP face for Flower's own clients: who asks, how large, which API; then one of three handlers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from starlette.types import Receive, Scope, Send
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import (
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from syftmesh_kit.caller import Caller
from syftmesh_kit.errors import HTTP_STATUS, internal_error
from syftmesh_kit.token import Revocation

from syftmesh_superlink.servicer.open_request import OpenRequests
from syftmesh_superlink.servicer.upstream import Answer

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Flower's objects have 5 MiB at most."""

MAX_OPEN: Final = 64
"""Requests that one principal may have open; a SuperNode has about five."""

MAX_STREAMS: Final = 16
"""Streams of logs in all: each holds a thread of the SuperLink."""

_FORWARDED: Final = ("flwr-", "content-type", "accept", "traceparent")
_JSON: Final = "application/json"


class Handler(Protocol):
    """Handles the requests of one of Flower's APIs."""

    async def answer_to(self, principal: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer."""
        ...


class Front:
    """The ASGI application.

    Args:
        handlers: By prefix of the path.
        verify: Returns the caller that a token proves, or raises.
        clock: Time.
        random: Source of error ids.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        verify: Callable[[str], Caller],
        clock: Clock,
        random: Random,
    ) -> None:
        self._handlers = dict(handlers)
        self._verify = verify
        self._clock = clock
        self._random = random
        self._open: Counter[str] = Counter()
        self._requests = OpenRequests()
        self._streams = 0
        self._log: Any = structlog.get_logger("syftmesh.front")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        started_s, status, reason = self._clock.monotonic_s(), 0, ""
        try:
            status = await self._serve(scope, receive, send)
        except MeshError as error:
            status, reason = _status(error), error.reason
            await _refuse(error, send)
        except asyncio.CancelledError:
            reason = "CLIENT_GONE"
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request
            failure = internal_error(uuid7(self._clock, self._random))
            status, reason = 500, failure.reason
            self._log.error("front.failed", error_id=failure.metadata["error_id"], exc_info=error)
            await _refuse(failure, send)
        finally:
            self._record(scope, status, reason, self._clock.monotonic_s() - started_s)

    def end_revoked(self, revocation: Revocation) -> None:
        """End the requests that wait for an answer and whose caller is revoked; streams end at their next chunk."""
        self._requests.end(revocation)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> int:
        prefix, handler = self._handler(scope["path"])
        if scope["method"] != "POST":
            raise NotFound("There is nothing at this address.", reason="ROUTE_UNKNOWN")
        headers = _headers(scope)
        token = _token(headers)
        caller = self._verify(token)
        if caller.kind != "user":
            raise Unauthenticated("This is for people and their sites.", reason="TOKEN_INVALID")
        route = scope["path"].removeprefix(prefix)
        name = caller.principal
        if self._open[name] >= MAX_OPEN:
            raise Unavailable("Too many requests of yours are open. Try again in a moment.", reason="BUSY")
        self._open[name] += 1
        try:
            body = await _body(headers, receive)
            passed = {key: value for key, value in headers.items() if key.startswith(_FORWARDED)}
            with self._requests.of(caller):
                answer: Answer | None = await _unless_gone(
                    handler.answer_to(name, route, passed, body), receive
                )
            if answer is None:
                return 499
            await self._answer(answer, token, receive, send)
            return answer.status
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def _handler(self, path: str) -> tuple[str, Handler]:
        for prefix, handler in self._handlers.items():
            if path.startswith(prefix):
                return prefix, handler
        raise NotFound("There is nothing at this address.", reason="ROUTE_UNKNOWN")

    async def _answer(self, answer: Answer, token: str, receive: Receive, send: Send) -> None:
        if answer.stream is None:
            await _send(send, answer.status, answer.content_type, answer.body)
            return
        if self._streams >= MAX_STREAMS:
            raise Unavailable("Too many logs are being followed. Try again in a moment.", reason="BUSY")
        self._streams += 1
        try:
            await _unless_gone(self._stream(answer, answer.stream, token, send), receive)
        finally:
            self._streams -= 1

    async def _stream(self, answer: Answer, chunks: AsyncIterator[bytes], token: str, send: Send) -> None:
        await send(_start(answer.status, answer.content_type))
        async for chunk in chunks:
            try:
                self._verify(token)
            except Unauthenticated as error:
                if error.reason != "TOKEN_EXPIRED":  # who follows a long run is not cut off every 15 minutes
                    break
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _record(self, scope: Scope, status: int, reason: str, duration_s: float) -> None:
        known = [prefix for prefix in self._handlers if scope["path"].startswith(prefix)]
        self._log.debug(
            "front.handled",
            api=known[0] if known else "other",
            status=status,
            reason=reason,
            duration_ms=round(duration_s * 1000, 3),
        )


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1")
        if name in found:  # two tokens, or two lengths: which of them counts must not be a question
            raise InvalidInput(
                "A header is there twice.", reason="MESSAGE_MALFORMED", metadata={"header": name}
            )
        found[name] = value.decode("latin-1")
    return found


def _token(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("This call needs an access token.", reason="TOKEN_MISSING")
    return token.strip()


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise asyncio.CancelledError
        data += message.get("body", b"")
        if len(data) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(data)


async def _unless_gone(work: Any, receive: Receive) -> Any:
    """Return what `work` gives, or None when the client went away: what it pulls would be lost."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _status(error: MeshError) -> int:
    if error.reason == "BODY_TOO_LARGE":
        return 413
    return HTTP_STATUS.get(error.code, 500)


async def _refuse(error: MeshError, send: Send) -> None:
    status = _status(error)
    body = {"detail": error.message, "reason": error.reason, "metadata": error.metadata}
    extra = [(b"www-authenticate", b"Bearer")] if status == HTTPStatus.UNAUTHORIZED else []
    await _send(send, status, _JSON, json.dumps(body).encode(), extra)


async def _send(
    send: Send, status: int, content_type: str, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-length", str(len(body)).encode()), *(extra or [])]
    await send(_start(status, content_type, headers))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, content_type: str, extra: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    headers = [
        (b"content-type", content_type.encode("latin-1")),
        (b"cache-control", b"no-store"),
        *(extra or []),
    ]
    return {"type": "http.response.start", "status": status, "headers": headers}


def _too_large() -> LimitExceeded:
    return LimitExceeded(
        f"A request has at most {MAX_BODY_BYTES} bytes.",
        reason="BODY_TOO_LARGE",
        metadata={"limit_bytes": str(MAX_BODY_BYTES)},
    )
