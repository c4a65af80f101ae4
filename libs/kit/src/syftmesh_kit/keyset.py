"""The issuer's key set and the revocations, published in key-value buckets and watched by every service.

Bucket ``identity_keys``: key `subject.kv_key(kid)`, value a JSON Web Key (RFC 7517, RFC 8037 ``OKP``).
Bucket ``identity_revoked``: key `kv_key("token" | "device" | "principal", value)`, value
``{"before_s": <Unix seconds>}``; entries expire after an hour and a minute, when no token they cover can be alive.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from syftmesh_core.clock import Clock
from syftmesh_core.errors import NotFound, Unavailable
from syftmesh_core.text import from_safe_token

from syftmesh_kit import subject
from syftmesh_kit.kv import KvBucket, KvEntry
from syftmesh_kit.token import LEEWAY_S, LONGEST_TTL_S, Revocation, TokenVerifier

if TYPE_CHECKING:
    from syftmesh_kit.bus import Bus

REVOCATION_TTL_S: Final = LONGEST_TTL_S + 60
_RETRY_S: Final = 0.25
_FIELDS: Final = {"token": "token_id", "device": "device_id", "principal": "principal"}

_log: Any = structlog.get_logger("syftmesh.keyset")


class KvMirror:
    """Follows a bucket and says when its present state has been applied."""

    def __init__(self, bus: Bus, bucket: str, apply: Callable[[KvEntry], None]) -> None:
        self._bus = bus
        self._kv = bus.kv(bucket)
        self._apply = apply
        self._caught_up = asyncio.Event()

    @property
    def is_caught_up(self) -> bool:
        """Return whether the state at start has been applied."""
        return self._caught_up.is_set()

    async def run(self) -> None:
        """Follow the bucket for ever; run it in a TaskGroup."""
        while not self._caught_up.is_set():
            try:
                if await self._bus.subject_count(f"KV_{self._kv.name}", f"$KV.{self._kv.name}.>") == 0:
                    self._caught_up.set()
                break
            except (Unavailable, NotFound):  # its owner declares it in a moment
                await asyncio.sleep(_RETRY_S)
        async with aclosing(self._kv.watch()) as entries:
            async for entry in entries:
                self._apply(entry)
                if entry.pending == 0:
                    self._caught_up.set()

    async def ready(self) -> None:
        """Return when the bucket's state is known.

        Raises:
            Unavailable: Not yet (KEY_SET_PENDING).
        """
        if not self._caught_up.is_set():
            raise Unavailable(f"The bucket {self._kv.name} has not been read yet.", reason="KEY_SET_PENDING")


class KeySetWatcher:
    """The key set as `token.KeySet`, kept up to date; give it to `TokenVerifier`."""

    def __init__(self, bus: Bus) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._mirror = KvMirror(bus, subject.KV_IDENTITY_KEYS, self._apply)
        self._on_retired: list[Callable[[str], None]] = []

    def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the public key named `kid`, or None."""
        return self._keys.get(kid)

    def on_retired(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the kid of a key that left the set (`TokenVerifier.forget_key`)."""
        self._on_retired.append(listener)

    async def run(self) -> None:
        """Follow the key set for ever; run it in a TaskGroup."""
        await self._mirror.run()

    async def ready(self) -> None:
        """Return when there is a key to verify with.

        Raises:
            Unavailable: There is none yet (KEY_SET_PENDING).
        """
        await self._mirror.ready()
        if not self._keys:
            raise Unavailable(
                "No key to verify tokens with has been published yet.", reason="KEY_SET_PENDING"
            )

    def _apply(self, entry: KvEntry) -> None:
        kid = from_safe_token(entry.key)
        key = None if entry.value is None else parse_jwk(entry.value)
        if key is not None:
            self._keys[kid] = key
            return
        if entry.value is not None:
            _log.error("keyset.entry_malformed", kid=kid)
        if self._keys.pop(kid, None) is not None:
            for listener in self._on_retired:
                listener(kid)


class KeySetPublisher:
    """Publishes and retires keys. Used by identity; the bucket is `topology`'s."""

    def __init__(self, bucket: KvBucket) -> None:
        self._kv = bucket

    async def publish(self, kid: str, key: Ed25519PublicKey) -> None:
        """Let every service accept tokens signed by `key`; do it before the first token."""
        await self._kv.put(subject.kv_key(kid), to_jwk(kid, key))

    async def retire(self, kid: str) -> None:
        """Let every service refuse tokens signed by `kid`."""
        await self._kv.delete(subject.kv_key(kid))


class RevocationWatcher:
    """Feeds revocations into a verifier, which ends open calls too."""

    def __init__(self, bus: Bus, verifier: TokenVerifier) -> None:
        self._verifier = verifier
        self._mirror = KvMirror(bus, subject.KV_IDENTITY_REVOKED, self._apply)

    async def run(self) -> None:
        """Follow the revocations for ever; run it in a TaskGroup."""
        await self._mirror.run()

    async def ready(self) -> None:
        """Return when every revocation in force is known.

        Raises:
            Unavailable: Not yet (KEY_SET_PENDING): tokens must not be trusted before.
        """
        await self._mirror.ready()

    def _apply(self, entry: KvEntry) -> None:
        if entry.value is None:
            return
        try:
            kind, named = map(from_safe_token, entry.key.split("."))
            before_s = json.loads(entry.value)["before_s"]
            self._verifier.revoke(Revocation(before_s=int(before_s), **{_FIELDS[kind]: named}))
        except (ValueError, KeyError, TypeError):
            _log.error("revocation.entry_malformed", key=entry.key)


class RevocationPublisher:
    """Publishes revocations. Used by identity."""

    def __init__(self, bucket: KvBucket, clock: Clock) -> None:
        self._kv = bucket
        self._clock = clock

    async def revoke(self, *, token_id: str = "", device_id: str = "", principal: str = "") -> None:
        """Revoke one token, or all tokens issued until now to a device or to a principal.

        Raises:
            ValueError: Not exactly one of the three is given.
        """
        named = (("token", token_id), ("device", device_id), ("principal", principal))
        given = [(kind, value) for kind, value in named if value]
        if len(given) != 1:
            raise ValueError("revoke exactly one of token, device and principal")
        # A token that another replica gave out a moment ago may be of a clock that is ahead.
        body = json.dumps({"before_s": self._clock.now_ms() // 1000 + LEEWAY_S}).encode()
        await self._kv.put(subject.kv_key(*given[0]), body, ttl_s=REVOCATION_TTL_S)


def to_jwk(kid: str, key: Ed25519PublicKey) -> bytes:
    """Return `key` as a JSON Web Key (RFC 8037, section 2)."""
    raw = base64.urlsafe_b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).rstrip(b"=").decode()
    jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": raw}
    return json.dumps(jwk).encode()


def parse_jwk(raw: bytes) -> Ed25519PublicKey | None:
    """Return the Ed25519 key of a JSON Web Key, or None when it is not one."""
    try:
        jwk = json.loads(raw)
        if jwk["kty"] != "OKP" or jwk["crv"] != "Ed25519":
            return None
        text = jwk["x"]
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, KeyError, TypeError):
        return None
