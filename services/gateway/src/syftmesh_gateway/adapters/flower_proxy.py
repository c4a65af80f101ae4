"""Streams requests of Flower's clients to the superlink service and back; it decides who may do what."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import httpx
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from syftmesh_core.errors import InvalidInput, LimitExceeded, Unavailable

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Flower's objects have 5 MiB at most."""

MAX_OPEN: Final = 256
"""Requests open at once, half of what the port takes: those that wait for messages must not starve the rest."""

READ_S: Final = 45.0
"""Longest silence of an answer in seconds: polls are held for 20 at most, and Flower's clients wait for 30."""

_ENDLESS: Final = frozenset({"/v1/control/stream-logs"})
_REQUEST_HEADERS: Final = frozenset({"authorization", "content-type", "accept", "traceparent"})
_FLOWER: Final = "flwr-"
_RESPONSE_HEADERS: Final = frozenset({"content-length", "content-type", "www-authenticate"})


class FlowerProxy:
    """Passes requests to one superlink service.

    Args:
        base: Its base URL.
        context: For an ``https`` address: whose certificate to show and whom to trust; None: the system's.
    """

    def __init__(self, base: str, context: ssl.SSLContext | None = None) -> None:
        self._base = base.rstrip("/")
        limits = httpx.Limits(max_connections=MAX_OPEN, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(
            timeout=READ_S, limits=limits, trust_env=False, verify=context or True
        )
        self._open = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def pass_on(
        self, path: str, headers: Mapping[str, str], body: AsyncIterator[bytes], receive: Receive
    ) -> Response:
        """Return the answer as it streams in.

        Args:
            path: The path, below one of Flower's prefixes.
            headers: Of the request.
            body: Of the request; it is read before the answer begins.
            receive: Tells afterwards that the client went away.

        Raises:
            LimitExceeded: The body is too large (BODY_TOO_LARGE).
            Unavailable: Too many requests are open (BUSY), or the service does not answer (SUPERLINK_AWAY).
        """
        if self._open >= MAX_OPEN:
            raise Unavailable("Too many of Flower's requests are open. Try again in a moment.", reason="BUSY")
        self._open += 1
        try:
            answer = await self._ask(path, headers, body, receive)
        except BaseException:
            self._open -= 1
            raise
        return _Passed(answer, self._closed)

    async def _ask(
        self, path: str, headers: Mapping[str, str], body: AsyncIterator[bytes], receive: Receive
    ) -> httpx.Response:
        sent = {
            name: value
            for name, value in headers.items()
            if name in _REQUEST_HEADERS or name.startswith(_FLOWER)
        }
        # What Flower's clients send is whole in memory at both ends: 8 MiB at most, and no half request goes on.
        content = await _whole(body, headers.get("content-length"))
        request = self._client.build_request(
            "POST",
            f"{self._base}{path}",
            headers={**sent, "accept-encoding": "identity"},
            content=content,
            timeout=httpx.Timeout(READ_S, read=None if path in _ENDLESS else READ_S),
        )
        try:
            return await _unless_gone(self._client.send(request, stream=True), receive)
        except httpx.HTTPError as error:
            raise _away() from error

    def _closed(self) -> None:
        self._open -= 1


class _Passed(StreamingResponse):
    """An answer that is closed however its sending ends, also when it never begins."""

    def __init__(self, answer: httpx.Response, on_closed: Callable[[], None]) -> None:
        passed = {name: value for name, value in answer.headers.items() if name in _RESPONSE_HEADERS}
        super().__init__(_chunks(answer), status_code=answer.status_code, headers=passed)
        self._answer = answer
        self._on_closed = on_closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_closed()
            await self._answer.aclose()


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    async for chunk in answer.aiter_raw():
        yield chunk


async def _whole(body: AsyncIterator[bytes], length: str | None) -> bytes:
    if length is not None and not (length.isascii() and length.isdecimal() and len(length) < 15):
        raise InvalidInput("The length of the body is no number.", reason="LENGTH_REQUIRED")
    if int(length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    data = bytearray()
    async for chunk in body:
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(data)


async def _unless_gone(sending: Awaitable[httpx.Response], receive: Receive) -> httpx.Response:
    """Return the answer; a client that went away ends the request, or what it pulls would be lost on the way.

    Raises:
        ClientDisconnect: It went away.
    """
    answering = asyncio.ensure_future(sending)
    watching = asyncio.ensure_future(receive())  # after the body there is only the end of the connection
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, watching):
            task.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)


def _too_large() -> LimitExceeded:
    return LimitExceeded(
        f"A request has at most {MAX_BODY_BYTES} bytes.",
        reason="BODY_TOO_LARGE",
        metadata={"limit_bytes": str(MAX_BODY_BYTES)},
    )


def _away() -> Unavailable:
    return Unavailable("Flower's services do not answer now. Try again in a moment.", reason="SUPERLINK_AWAY")
