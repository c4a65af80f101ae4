"""The public keys of a provider (RFC 7517), followed through their rotation."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from syftmesh_core.clock import Clock

from syftmesh_identity.adapters.id_token import KEY_TYPES, PublicKey, TokenHeader

MAX_AGE_S: Final = 3600.0
"""Seconds after which the set is fetched anew before it is used: a key that the provider took back ends then."""

REFETCH_S: Final = 30.0
"""Least seconds between two fetches because of a key that is not known: tokens with made-up names cost no more."""

MAX_KEYS: Final = 64
_RSA_BITS: Final = range(2048, 8193)
_TYPES: Final[Mapping[str, type[PublicKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

Fetch = Callable[[], Awaitable[tuple[PublicKey, ...]]]
"""Returns the keys that the provider publishes now; raises Unavailable (PROVIDER_AWAY)."""


class ProviderKeys:
    """Finds the key that verifies a token.

    Args:
        fetch: Asks the provider for its set.
        clock: Monotonic time.
    """

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched_s: float | None = None
        self._searched_s: float | None = None

    async def refresh(self) -> None:
        """Fetch the set when there is none, or an old one.

        Raises:
            Unavailable: PROVIDER_AWAY.
        """
        async with self._lock:
            now_s = self._clock.monotonic_s()
            if self._fetched_s is None or now_s - self._fetched_s >= MAX_AGE_S:
                await self._fetch_now(now_s)

    async def find(self, header: TokenHeader) -> PublicKey | None:
        """Return the key that a token names; one that is not known may be new, so the set is fetched once more.

        Raises:
            Unavailable: PROVIDER_AWAY.
        """
        await self.refresh()
        found = self._known(header)
        if found is None:
            await self._search()
            found = self._known(header)
        return found

    async def _search(self) -> None:
        async with self._lock:
            now_s = self._clock.monotonic_s()
            if self._searched_s is None or now_s - self._searched_s >= REFETCH_S:
                self._searched_s = now_s
                await self._fetch_now(now_s)

    async def _fetch_now(self, now_s: float) -> None:
        self._keys = await self._fetch()
        self._fetched_s = now_s

    def _known(self, header: TokenHeader) -> PublicKey | None:
        fitting = [key for key in self._keys if _fits(key, header.alg)]
        if header.kid is not None:
            fitting = [key for key in fitting if key.get("kid") == header.kid]
        # Without a name, or with one that is given twice, it must be clear which key is meant.
        return fitting[0] if len(fitting) == 1 else None


def public_keys(document: Mapping[str, Any]) -> tuple[PublicKey, ...]:
    """Return the signing keys of a set; what is no public key that can be used is left out (RFC 7517, section 5)."""
    members = document.get("keys")
    found = [_public_key(member) for member in members[:MAX_KEYS]] if isinstance(members, list) else []
    return tuple(key for key in found if key is not None)


def _public_key(member: object) -> PublicKey | None:
    if not isinstance(member, dict) or member.get("use", "sig") != "sig":
        return None
    kind = member.get("kty")
    # A secret key ("oct") is none of these: nobody can sign with what the provider tells everybody.
    if not isinstance(kind, str) or kind not in _TYPES or "d" in member:
        return None
    try:
        if kind == "RSA" and _bits(member["n"]) not in _RSA_BITS:
            return None
        return _TYPES[kind].import_key(member)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _bits(modulus: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)), "big").bit_length()


def _fits(key: PublicKey, alg: str) -> bool:
    kind, curve = KEY_TYPES[alg]
    return key.key_type == kind and (not curve or key.get("crv") == curve) and key.get("alg", alg) == alg
