"""Streams pre-signed requests to the object store and back, with the Host that they were signed for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx
from starlette.responses import Response, StreamingResponse
from syftmesh_core.errors import (
    AlreadyExists,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from syftmesh_kit.store_trust import is_untrusted
from syftmesh_kit.waiting import Waiting

from syftmesh_gateway.domain.presigned import ObjectRequest

_REQUEST_HEADERS: Final = frozenset(
    {"content-type", "content-md5", "range", "if-match", "if-none-match", "if-modified-since"}
)
_RESPONSE_HEADERS: Final = frozenset(
    {"content-length", "content-type", "content-range", "accept-ranges", "etag", "last-modified"}
)
_AMAZON: Final = "x-amz-"


class ObjectProxy:
    """Passes requests to one store.

    Args:
        endpoint: Base URL of the store.
        signing_host: Host header that requests were signed for; empty: the endpoint's.
        client: HTTP client; the proxy closes what it opens, never the client.
    """

    def __init__(self, endpoint: str, signing_host: str, client: httpx.AsyncClient) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._host = signing_host or urlsplit(endpoint).netloc
        self._client = client
        self._waiting = Waiting("gateway.waiting")

    async def pass_on(
        self, request: ObjectRequest, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> Response:
        """Return the store's answer as it streams in.

        Raises:
            PermissionDenied: The signature does not hold or has expired (OBJECT_FORBIDDEN).
            NotFound: No such object (OBJECT_MISSING).
            AlreadyExists: There is an object (OBJECT_EXISTS).
            InvalidInput: The body is not the one that was signed (OBJECT_REFUSED), or the range is outside
                of the object (RANGE_INVALID).
            Unavailable: The store does not answer (OBJECT_STORE_AWAY), or shows a certificate that is not
                trusted (OBJECT_STORE_UNTRUSTED).
        """
        outgoing = {name: value for name, value in headers.items() if _passes(name, _REQUEST_HEADERS)}
        # What the store sends must be what was stored: no compression on the way.
        outgoing |= {"host": self._host, "accept-encoding": "identity"}
        if request.method == "PUT":
            outgoing["content-length"] = str(request.size_bytes)
        prepared = self._client.build_request(
            request.method,
            f"{self._endpoint}{request.target}",
            headers=outgoing,
            content=_bounded(body, request.size_bytes) if request.size_bytes else None,
        )
        try:
            answer = await self._client.send(prepared, stream=True)
        except httpx.HTTPError as error:
            raise _away(error) from error
        if answer.status_code >= 300 and answer.status_code != 304:
            await answer.aclose()
            raise _refusal(answer.status_code)
        passed = {name: value for name, value in answer.headers.items() if _passes(name, _RESPONSE_HEADERS)}
        return StreamingResponse(_chunks(answer), status_code=answer.status_code, headers=passed)

    async def is_ready(self) -> bool:
        """Return whether the store answers at all."""
        try:
            answer = await self._client.get(f"{self._endpoint}/", timeout=2.0)
        except httpx.HTTPError as error:
            self._waiting.note(_away(error))
            return False
        self._waiting.clear()
        return answer.status_code < 500


def _passes(name: str, allowed: frozenset[str]) -> bool:
    return name in allowed or name.startswith(_AMAZON)


async def _bounded(body: AsyncIterator[bytes], size_bytes: int) -> AsyncIterator[bytes]:
    left = size_bytes
    async for chunk in body:
        left -= len(chunk)
        if left < 0:  # the server before us checks it too; the store must never see more than was announced
            raise InvalidInput("The body is longer than its Content-Length.", reason="LENGTH_REQUIRED")
        yield chunk


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _refusal(status: int) -> MeshError:
    # The store's own text names buckets, keys and hosts: ours is fixed.
    if status == 404:
        return NotFound("There is no such object.", reason="OBJECT_MISSING")
    if status in (409, 412):
        return AlreadyExists("There is an object with this name already.", reason="OBJECT_EXISTS")
    if status == 416:
        return InvalidInput("The range lies outside of the object.", reason="RANGE_INVALID")
    if status in (401, 403):
        return PermissionDenied(
            "The pre-signed address does not hold for this request, or has expired. Ask for a new one.",
            reason="OBJECT_FORBIDDEN",
        )
    if status < 500:
        return InvalidInput("The object store refused the request as it stands.", reason="OBJECT_REFUSED")
    return _away()


def _away(error: BaseException | None = None) -> Unavailable:
    if error is not None and is_untrusted(error):
        return Unavailable(
            "The hub does not trust the certificate of its object store. Tell its operator.",
            reason="OBJECT_STORE_UNTRUSTED",
        )
    return Unavailable(
        "The object store does not answer now. Try again in a moment.", reason="OBJECT_STORE_AWAY"
    )
