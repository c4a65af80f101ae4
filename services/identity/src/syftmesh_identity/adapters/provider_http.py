"""HTTP to a provider, of which nothing is believed: places, times, sizes and forms of answers are bounded."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from syftmesh_core.errors import Unavailable

from syftmesh_identity.domain.provider import LOOPBACK, Provider

MAX_BYTES: Final = 256 * 1024
"""Largest answer that is read; key sets of large providers have some 10 KiB."""

TIMEOUT_S: Final = 8.0
"""Longest that one request may last as a whole, in seconds."""

_log: Any = structlog.get_logger("syftmesh.identity")


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What a provider answered.

    Attributes:
        status: HTTP status.
        document: The JSON object of the body; None when the body is none.
    """

    status: int
    document: Mapping[str, Any] | None = field(repr=False)


class ProviderHttp:
    """Asks one provider.

    Redirects are not followed: each address that is asked stands in the discovery document, and was checked.

    Args:
        provider: Says which places may be asked.
        trust: The authorities that its certificate must come from.
        timeout_s: Longest request.
        transport: What to ask by in place of the network; for tests.
    """

    def __init__(
        self,
        provider: Provider,
        trust: ssl.SSLContext,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._provider = provider
        self._trust = trust
        self._timeout_s = timeout_s
        self._transport = transport

    async def get(self, url: str) -> ProviderAnswer:
        """Return the answer to a GET.

        Raises:
            Unavailable: There is none, or none that is taken (PROVIDER_AWAY).
        """
        return await self._ask("GET", url, None, None)

    async def post(
        self, url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None
    ) -> ProviderAnswer:
        """Return the answer to a form, sent with these basic credentials; raises as `get`."""
        return await self._ask("POST", url, form, auth)

    def away(self, what: str) -> Unavailable:
        """Note for the operator what is the matter with the provider, and return the error for everybody else."""
        _log.warning("identity.provider_failed", provider=self._provider.name, what=what)
        return Unavailable(
            f"The provider {self._provider.name} does not take logins now. Try again, or log in another way.",
            reason="PROVIDER_AWAY",
            metadata={"provider": self._provider.name},
        )

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None, auth: tuple[str, str] | None
    ) -> ProviderAnswer:
        if not self._provider.may_ask(url):
            raise self.away("it names an address outside of its issuer and hosts")
        # Proxies of the environment count, as for any program of the operator's; on this machine there are none.
        trust_env = urlsplit(url).hostname not in LOOPBACK
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                httpx.AsyncClient(
                    verify=self._trust,
                    trust_env=trust_env,
                    timeout=self._timeout_s,
                    transport=self._transport,
                ) as client,
                client.stream(
                    method,
                    url,
                    data=form,
                    auth=auth,
                    headers={"accept": "application/json", "accept-encoding": "identity"},
                    follow_redirects=False,
                ) as answer,
            ):
                data = await self._body(answer)
        except TimeoutError as error:
            raise self.away("it does not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.away(f"it cannot be reached ({type(error).__name__})") from error
        if answer.is_redirect or answer.status_code >= 500 or answer.status_code in {408, 425, 429}:
            raise self.away(f"it answers with status {answer.status_code}")
        return ProviderAnswer(answer.status_code, _document(answer, data))

    async def _body(self, answer: httpx.Response) -> bytes:
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise self.away("it compresses its answer, unasked")
        data = bytearray()
        async for chunk in answer.aiter_bytes():
            data += chunk
            if len(data) > MAX_BYTES:
                raise self.away(f"its answer has more than {MAX_BYTES} bytes")
        return bytes(data)


def _document(answer: httpx.Response, data: bytes) -> Mapping[str, Any] | None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("application/") or not kind.endswith("json"):
        return None
    return json_object(data)


def json_object(data: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object in `data`, None when there is none; nesting without end is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
