"""Objects to and from the store by pre-signed URLs; what arrives is checked by its digest first."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import httpx
from syftmesh_core.errors import IntegrityFailure, MeshError, Unavailable

from syftmesh_client.traffic import Traffic, TrafficKind
from syftmesh_client.trust import rejection, untrusted

T = TypeVar("T")

PARALLEL: Final = 4
TRIES: Final = 4
_FIRST_PAUSE_S: Final = 0.1
_HEADERS: Final = frozenset({"content-length", "content-type", "if-none-match"})
_HEADER_PREFIX: Final = "x-amz-"
_AS_IT_IS: Final = {"accept-encoding": "identity"}
_SCHEMES: Final = ("http://", "https://")

Sleep = Callable[[float], Awaitable[None]]


class Transfer:
    """Puts and gets objects; both are idempotent, so a failed try is repeated.

    Args:
        http: Client without credentials of its own; redirects are not followed. URLs without a host are meant for
            its base URL, which is the hub's address, and are refused without one.
        traffic: Where bytes are counted.
        sleep: Waits between tries.
    """

    def __init__(self, http: httpx.AsyncClient, traffic: Traffic, *, sleep: Sleep = asyncio.sleep) -> None:
        self._http = http
        self._traffic = traffic
        self._base_url = str(http.base_url).rstrip("/")
        self._sleep = sleep

    async def put(self, url: str, headers: Mapping[str, str], data: bytes) -> None:
        """Store `data`; an object that is there already is success, for the URL binds the digest.

        Args:
            url: Pre-signed; a secret.
            headers: Those to be sent with it; only what an upload needs is passed on.
            data: The object, as announced.

        Raises:
            Unavailable: UPLOAD_EXPIRED, ask for a fresh URL; OBJECT_STORE_AWAY.
            IntegrityFailure: OBJECT_DAMAGED where other bytes arrived than were announced; URL_REFUSED;
                SERVER_UNTRUSTED.
        """
        sent = {name.lower(): value for name, value in headers.items()}
        sent = {n: v for n, v in sent.items() if n in _HEADERS or n.startswith(_HEADER_PREFIX)}

        async def once() -> None:
            self._traffic.add_sent(TrafficKind.OBJECT, len(data))
            answer = await self._http.put(self._full(url), content=data, headers=sent, follow_redirects=False)
            status = answer.status_code
            if status in (200, 201, 204, 412):
                return
            if status == 403:
                raise Unavailable("The right to upload has ended: ask anew.", reason="UPLOAD_EXPIRED")
            if status == 400:
                raise IntegrityFailure(
                    "The object store got other bytes than announced: send them again.",
                    reason="OBJECT_DAMAGED",
                )
            raise _away(status)

        await self._repeated(once)

    async def get(self, url: str, *, object_id: str, size_bytes: int) -> bytes:
        """Return the object, its digest checked; no more than `size_bytes` are taken.

        Args:
            url: Pre-signed; a secret.
            object_id: SHA-256 of the object in hex, from a verified record.
            size_bytes: Its exact size, from the same record.

        Raises:
            Unavailable: DOWNLOAD_EXPIRED, ask for a fresh URL; OBJECT_STORE_AWAY.
            IntegrityFailure: OBJECT_LOST where the store has it no more; OBJECT_DAMAGED where others come;
                URL_REFUSED; SERVER_UNTRUSTED.
        """

        async def once() -> bytes:
            body = bytearray()
            async with self._http.stream(
                "GET", self._full(url), headers=_AS_IT_IS, follow_redirects=False
            ) as answer:
                _check_get(answer.status_code)
                async for part in answer.aiter_raw():
                    self._traffic.add_received(TrafficKind.OBJECT, len(part))
                    body += part
                    if len(body) > size_bytes:
                        break
            if len(body) != size_bytes or hashlib.sha256(body).hexdigest() != object_id:
                raise IntegrityFailure(
                    "The object store gave other bytes than the record names.", reason="OBJECT_DAMAGED"
                )
            return bytes(body)

        return await self._repeated(once)

    def _full(self, url: str) -> str:
        """Return where `url` leads; one that begins with two slashes would name a host after all."""
        if url.startswith(_SCHEMES):
            return url
        if self._base_url and url.startswith("/") and not url.startswith(("//", "/\\")):
            return f"{self._base_url}{url}"
        raise IntegrityFailure("The hub gave something else than a web address.", reason="URL_REFUSED")

    async def _repeated(self, once: Callable[[], Awaitable[T]]) -> T:
        """Try again what may go well the next time: lost connections, busy stores, bytes cut on the way."""
        for number in range(1, TRIES + 1):
            try:
                return await once()
            except httpx.HTTPError as error:
                if (refused := rejection(error)) is not None:
                    raise untrusted(refused, error.request.url.netloc.decode("ascii")) from error
                failure: MeshError = _away(0)
                failure.__cause__ = error
            except (Unavailable, IntegrityFailure) as error:
                if error.reason not in ("OBJECT_STORE_AWAY", "OBJECT_DAMAGED"):
                    raise
                failure = error
            if number < TRIES:
                await self._sleep(_FIRST_PAUSE_S * 2 ** (number - 1))
        raise failure


def _check_get(status: int) -> None:
    if status == 200:
        return
    if status == 403:
        raise Unavailable("The right to download has ended: ask anew.", reason="DOWNLOAD_EXPIRED")
    if status == 404:
        raise IntegrityFailure("The object store has lost the object.", reason="OBJECT_LOST")
    raise _away(status)


def _away(status: int) -> Unavailable:
    return Unavailable(
        "The object store does not answer now. Try again in a moment.",
        reason="OBJECT_STORE_AWAY",
        metadata={"status": str(status)} if status else {},
    )
