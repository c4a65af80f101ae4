"""One OIDC provider as the hub's counterpart: discovery, device authorization, polls, ID tokens.

OpenID Connect Discovery 1.0, RFC 8414, RFC 8628. The hub is a confidential client where the operator has a client
secret, else a public one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

from syftmesh_core.clock import Clock
from syftmesh_core.errors import Unavailable

from syftmesh_identity.adapters.id_token import PublicKey, header_of, invalid, verify
from syftmesh_identity.adapters.provider_http import ProviderAnswer, ProviderHttp
from syftmesh_identity.adapters.provider_key import ProviderKeys, public_keys
from syftmesh_identity.domain.ports import ProviderClient
from syftmesh_identity.domain.provider import (
    DeviceAuthorization,
    PollAnswer,
    PollState,
    Provider,
    is_user_code,
    origin_of,
)

WELL_KNOWN: Final = "/.well-known/openid-configuration"
GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
DISCOVERY_AGE_S: Final = 3600.0
PAUSE_S: Final = 2.0
"""Seconds for which a provider without a discovery document is not asked for it again: those who wait for an answer
fail with the first, and not one after the other."""

WHOLE_S: Final = 20.0
"""Longest that one use of a provider may last, in seconds, with all that is fetched for it; a device waits longer."""

LONGEST_LOGIN_S: Final = 1800
_MAX_DEVICE_CODE_CHARACTERS: Final = 8192
_INTERVAL_S: Final = (1, 60)
_DEFAULT_INTERVAL_S: Final = 5
_STATES: Final[Mapping[str, PollState]] = {
    "authorization_pending": PollState.PENDING,
    "slow_down": PollState.SLOW_DOWN,
    "access_denied": PollState.ENDED,
    "expired_token": PollState.ENDED,
    # What providers say of a device code that they do not know, or not any more.
    "invalid_grant": PollState.ENDED,
    "invalid_request": PollState.ENDED,
}

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What is used of a discovery document."""

    device_authorization: str
    token: str
    keys: str
    basic_auth: bool


class OidcProvider(ProviderClient):
    """The device flow of one provider.

    Args:
        provider: What the operator says of it.
        http: Asks it.
        clock: Time.
    """

    def __init__(self, provider: Provider, http: ProviderHttp, clock: Clock) -> None:
        self._provider = provider
        self._http = http
        self._clock = clock
        self._keys = ProviderKeys(self._fetch_keys, clock)
        self._lock = asyncio.Lock()
        self._endpoints: Endpoints | None = None
        self._discovered_s = 0.0
        self._paused_until_s = 0.0

    @property
    def provider(self) -> Provider:
        """Return what the operator says of it."""
        return self._provider

    async def authorize(self) -> DeviceAuthorization:
        """Return a new code for a person to confirm; raises as `ProviderClient.authorize`."""
        return await self._in_time(self._authorize())

    async def poll(self, device_code: str) -> PollAnswer:
        """Return how far the login is; raises as `ProviderClient.poll`."""
        return await self._in_time(self._poll(device_code))

    async def _in_time(self, use: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            async with asyncio.timeout(WHOLE_S):
                return await use
        except TimeoutError as error:
            raise self._http.away("it takes too long") from error

    async def _authorize(self) -> DeviceAuthorization:
        endpoints = await self._discover()
        form = {"client_id": self._provider.client_id, "scope": " ".join(self._provider.scopes)}
        answer = await self._post(endpoints.device_authorization, form, endpoints)
        if answer.status != 200 or answer.document is None:
            raise self._http.away(f"it gives out no device code ({_refusal(answer)})")
        found = _authorization(answer.document)
        if found is None:
            raise self._http.away("its device authorization is not as RFC 8628 says")
        return found

    async def _poll(self, device_code: str) -> PollAnswer:
        endpoints = await self._discover()
        # Before the poll, which may be the one that uses up the code: without keys its token could not be read.
        await self._keys.refresh()
        form = {
            "grant_type": GRANT,
            "device_code": device_code,
            "client_id": self._provider.client_id,
        }
        answer = await self._post(endpoints.token, form, endpoints)
        if answer.status == 200:
            if answer.document is None:
                raise invalid("form")
            return PollAnswer(PollState.CONFIRMED, await self._claims(answer.document))
        error = answer.document.get("error") if answer.document is not None else None
        state = _STATES.get(error) if isinstance(error, str) else None
        if state is None:
            raise self._http.away(f"it refuses polls ({_refusal(answer)})")
        return PollAnswer(state)

    async def _claims(self, document: Mapping[str, Any]) -> dict[str, Any]:
        token = document.get("id_token")
        header = header_of(token)
        key = await self._keys.find(header)
        if key is None:
            raise invalid("key")
        return verify(str(token), header, key, self._provider, self._clock.now_ms() // 1000)

    async def _discover(self) -> Endpoints:
        async with self._lock:
            now_s = self._clock.monotonic_s()
            if self._endpoints is None or now_s - self._discovered_s >= DISCOVERY_AGE_S:
                if now_s < self._paused_until_s:
                    raise self._http.away("it had no discovery document a moment ago")
                try:
                    self._endpoints = await self._document()
                except Unavailable:
                    self._paused_until_s = self._clock.monotonic_s() + PAUSE_S
                    raise
                self._discovered_s = now_s
            return self._endpoints

    async def _document(self) -> Endpoints:
        answer = await self._http.get(f"{self._provider.issuer.rstrip('/')}{WELL_KNOWN}")
        if answer.status != 200 or answer.document is None:
            raise self._http.away(f"it has no discovery document ({_refusal(answer)})")
        return self._read(answer.document)

    def _read(self, document: Mapping[str, Any]) -> Endpoints:
        # Exactly: who may name itself something else may speak for somebody else (section 4.3).
        if document.get("issuer") != self._provider.issuer:
            raise self._http.away("its discovery document is another issuer's")
        names = ("device_authorization_endpoint", "token_endpoint", "jwks_uri")
        urls = [document.get(name) for name in names]
        for name, url in zip(names, urls, strict=True):
            if not isinstance(url, str) or not self._provider.may_ask(url):
                raise self._http.away(f"its discovery document has no {name} within its issuer and hosts")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = isinstance(methods, list) and "client_secret_basic" in methods
        return Endpoints(str(urls[0]), str(urls[1]), str(urls[2]), basic)

    async def _fetch_keys(self) -> tuple[PublicKey, ...]:
        answer = await self._http.get((await self._discover()).keys)
        if answer.status != 200 or answer.document is None:
            raise self._http.away(f"it has no key set ({_refusal(answer)})")
        keys = public_keys(answer.document)
        if not keys:
            raise self._http.away("its key set has no key that could be used")
        return keys

    async def _post(self, url: str, form: dict[str, str], endpoints: Endpoints) -> ProviderAnswer:
        secret = self._provider.client_secret
        if not secret:
            return await self._http.post(url, form)
        if endpoints.basic_auth:
            # Encoded twice over, as RFC 6749, section 2.3.1, says.
            auth = (quote(self._provider.client_id, safe=""), quote(secret, safe=""))
            return await self._http.post(url, form, auth=auth)
        return await self._http.post(url, {**form, "client_secret": secret})


def _authorization(document: Mapping[str, Any]) -> DeviceAuthorization | None:
    """Return the answer to a device authorization request, None when it is none that may be used or shown."""
    # Google says verification_url, as drafts of the RFC did.
    uri = document.get("verification_uri", document.get("verification_url"))
    complete = document.get("verification_uri_complete", "")
    device_code, user_code = document.get("device_code"), document.get("user_code")
    expires_s, interval_s = document.get("expires_in"), document.get("interval", _DEFAULT_INTERVAL_S)
    if not isinstance(device_code, str) or not 0 < len(device_code) <= _MAX_DEVICE_CODE_CHARACTERS:
        return None
    if not isinstance(user_code, str) or not is_user_code(user_code):
        return None
    if not isinstance(uri, str) or origin_of(uri) is None:
        return None
    if type(expires_s) is not int or expires_s <= 0 or type(interval_s) is not int or interval_s < 0:
        return None
    shown = complete if isinstance(complete, str) and origin_of(complete) is not None else ""
    shortest_s, longest_s = _INTERVAL_S
    return DeviceAuthorization(
        device_code=device_code,
        user_code=user_code,
        verification_uri=uri,
        verification_uri_complete=shown,
        expires_s=min(expires_s, LONGEST_LOGIN_S),
        interval_s=min(max(interval_s, shortest_s), longest_s),
    )


def _refusal(answer: ProviderAnswer) -> str:
    """Return status and error code of a refusal, for the operator's log; nothing else of it is repeated."""
    error = answer.document.get("error") if answer.document is not None else None
    known = (
        isinstance(error, str) and len(error) <= 40 and error.replace("_", "").isalpha() and error.isascii()
    )
    return f"status {answer.status}, error {error}" if known else f"status {answer.status}"
