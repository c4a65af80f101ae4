"""Single requests to an object store, signed and sent as they are, so that a check sees the answer itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import httpx
from syftmesh_core.clock import Clock, to_datetime
from syftmesh_core.errors import Unavailable
from syftmesh_kit.presign import SigningKey, encode_path, presign_query
from syftmesh_kit.s3 import S3Config
from syftmesh_kit.store_trust import store_context

TTL_S: Final = 60
_NONE: Final = MappingProxyType[str, str]({})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said: status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class StoreRequests:
    """Sends requests to one bucket; make it with `opened`, end it with `close`.

    Args:
        config: Where the store is. Requests go to its endpoint with the host that signatures name.
        clock: Time of signing.
        client: Sends them.
    """

    def __init__(self, config: S3Config, clock: Clock, client: httpx.AsyncClient) -> None:
        self._config = config
        self._clock = clock
        self._client = client
        self._host = config.signing_host or urlsplit(config.endpoint).netloc
        self._key = SigningKey(config.access_key, config.secret_key, config.region)

    @classmethod
    def opened(cls, config: S3Config, clock: Clock) -> StoreRequests:
        """Return the requests of a client of their own.

        Raises:
            InvalidInput: The file of authorities is missing or damaged (TLS_FILES_INVALID).
        """
        client = httpx.AsyncClient(verify=store_context(config.ca_file), trust_env=False, timeout=15.0)
        return cls(config, clock, client)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        key: str,
        *,
        body: bytes = b"",
        signed: Mapping[str, str] = _NONE,
        sent: Mapping[str, str] | None = None,
        age_s: int = 0,
    ) -> Answer:
        """Send one pre-signed request.

        Args:
            method: Of the request.
            key: Of the object.
            body: Of the request.
            signed: Headers that the signature binds.
            sent: Headers that are sent; None: those that are signed.
            age_s: How long ago it is signed; it lives for `TTL_S`.

        Raises:
            Unavailable: No answer (OBJECT_STORE_AWAY).
        """
        path = f"/{self._config.bucket}/{key}"
        at = to_datetime(self._clock.now_ms() - age_s * 1000)
        query = presign_query(
            self._key, method=method, host=self._host, path=path, at=at, ttl_s=TTL_S, headers=signed
        )
        return await self._send(
            method, f"{encode_path(path)}?{query}", body, signed if sent is None else sent
        )

    async def unsigned(self, method: str, key: str, body: bytes = b"") -> Answer:
        """Send a request without a signature; raises as `ask`."""
        return await self._send(method, encode_path(f"/{self._config.bucket}/{key}"), body, _NONE)

    async def _send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = self._config.endpoint.rstrip("/") + target
        try:
            found = await self._client.request(
                method, url, content=body or None, headers={**headers, "host": self._host}
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The object store did not answer ({type(error).__name__}).", reason="OBJECT_STORE_AWAY"
            ) from error
        return Answer(found.status_code, dict(found.headers), found.content)
