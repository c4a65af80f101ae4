"""The ring of signing keys: sealed for the bus, opened to sign, published for those who verify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import IntegrityFailure, Unavailable
from syftmesh_core.principal import GUEST
from syftmesh_kit.keyset import KeySetPublisher
from syftmesh_kit.token import GUEST_AUDIENCES, TokenIssuer

from syftmesh_identity.adapters.derived_key import derived_key
from syftmesh_identity.adapters.signing_key import SigningKey, key_id
from syftmesh_identity.domain.model import IssuedAccess, Stored
from syftmesh_identity.domain.ports import AccessIssuer, PublishedKeys, SigningKeys
from syftmesh_identity.domain.ring import Ring, RingKey

GUEST_TTL_S: Final = 5 * 60
"""Life of a guest's token in seconds: it cannot be taken back one by one, for nobody has a name."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12

_log: Any = structlog.get_logger("syftmesh.identity")


class KeyRing(SigningKeys, AccessIssuer):
    """Signs access tokens (EdDSA JSON Web Tokens) with the key of the ring whose turn it is.

    Keys but the file's own lie at the bus under AES-256-GCM (NIST SP 800-38D), by a key derived from the file: a copy
    of the bus signs nothing. The name of a key is authenticated with it, so that none can take another's place.

    Args:
        root: The key of the service's file.
        issuer: Value of ``iss``.
        clock: Wall time.
        random: Source of keys, nonces and ids.
        access_ttl_s: Life of a token, in seconds.
    """

    def __init__(
        self, root: SigningKey, issuer: str, clock: Clock, random: Random, access_ttl_s: int
    ) -> None:
        self._root = root
        self._issuer = issuer
        self._clock = clock
        self._random = random
        self._access_ttl_s = access_ttl_s
        self._cipher = AESGCM(derived_key(root.key, "signing-keys"))
        self._ring: Stored[Ring] | None = None
        self._opened: dict[str, Ed25519PrivateKey] = {root.kid: root.key}

    def root(self, now_ms: int) -> RingKey:
        """Return the key of the file, as one that signs from now on."""
        return RingKey(self._root.kid, _public_hex(self._root.key), "", now_ms, now_ms)

    def mint(self, now_ms: int) -> RingKey:
        """Return a fresh key, sealed."""
        raw, nonce = self._random(_KEY_BYTES), self._random(_NONCE_BYTES)
        key = Ed25519PrivateKey.from_private_bytes(raw)
        kid = key_id(key)
        sealed = nonce + self._cipher.encrypt(nonce, raw, kid.encode())
        return RingKey(kid, _public_hex(key), sealed.hex(), now_ms)

    def follow(self, ring: Stored[Ring]) -> None:
        """Sign by `ring` from now on, unless a newer one was shown before."""
        if self._ring is not None and ring.revision <= self._ring.revision:
            return
        known = [key.kid for key in self._ring.record.keys] if self._ring is not None else []
        now = [key.kid for key in ring.record.keys]
        if known and known != now:
            _log.info("signing.ring_changed", added=sorted({*now} - {*known}), left=sorted({*known} - {*now}))
        self._ring = ring
        self._opened = {kid: key for kid, key in self._opened.items() if kid in {*now, self._root.kid}}

    def issue(self, principal: str, device_id: str, audiences: Sequence[str] = ()) -> IssuedAccess:
        """Return a fresh access token; raises as `AccessIssuer.issue`."""
        token, caller = self._signer(self._access_ttl_s).issue(principal, device_id, audiences=audiences)
        return IssuedAccess(token, caller.token_id, caller.expires_at_s * 1000)

    def issue_guest(self) -> IssuedAccess:
        """Return a fresh access token of a guest; raises as `issue`."""
        signer = self._signer(min(self._access_ttl_s, GUEST_TTL_S))
        token, caller = signer.issue(GUEST, GUEST, kind="guest", audiences=GUEST_AUDIENCES)
        return IssuedAccess(token, caller.token_id, caller.expires_at_s * 1000)

    def _signer(self, ttl_s: int) -> TokenIssuer:
        if self._ring is None:
            raise Unavailable(
                "The signing keys are being prepared. Try again in a moment.", reason="STARTING"
            )
        if self._ring.record.root_kid != self._root.kid:
            raise Unavailable(
                "Another replica of identity has another signing key file. Give all of them the same one.",
                reason="SIGNING_KEY_FOREIGN",
            )
        found = self._ring.record.signer(self._clock.now_ms())
        return TokenIssuer(
            self._open(found), found.kid, self._issuer, self._clock, ttl_s=ttl_s, random=self._random
        )

    def _open(self, key: RingKey) -> Ed25519PrivateKey:
        known = self._opened.get(key.kid)
        if known is not None:
            return known
        try:
            sealed = bytes.fromhex(key.sealed)
            raw = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key.kid.encode())
            opened = Ed25519PrivateKey.from_private_bytes(raw)
        except (InvalidTag, ValueError) as error:
            raise IntegrityFailure(
                "A signing key of identity cannot be opened. Restore its bucket and the key file from one backup.",
                reason="SIGNING_KEY_DAMAGED",
            ) from error
        self._opened[key.kid] = opened
        return opened


class KeySet(PublishedKeys):
    """The key set in its bucket."""

    def __init__(self, publisher: KeySetPublisher) -> None:
        self._publisher = publisher

    async def publish(self, key: RingKey) -> None:
        """Let every service accept tokens that `key` signed."""
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_key))
        await self._publisher.publish(key.kid, public)

    async def retire(self, kid: str) -> None:
        """Let every service refuse tokens that the key signed."""
        await self._publisher.retire(kid)


def _public_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()
