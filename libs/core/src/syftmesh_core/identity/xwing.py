"""X-Wing keys and HPKE wraps of content keys.

X-Wing (draft-connolly-cfrg-xwing-kem, KEM 0x647a) joins ML-KEM-768 and X25519; HPKE is RFC 9180 in base mode
with HKDF-SHA-256 and AES-256-GCM. A private key is its 32-byte seed, expanded by SHAKE-256 as the draft says.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

SEED_BYTES = 32
PUBLIC_BYTES = 1216
WRAP_OVERHEAD_BYTES = 1120 + 16
"""What a wrap is longer than the key in it: encapsulated key and tag."""

_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64


def public_from_seed(seed: bytes) -> bytes:
    """Return the raw public key, 1216 bytes (ML-KEM-768 then X25519), of the private key `seed`."""
    mlkem, dh = _halves(seed)
    return mlkem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()


def is_sound_key(key: bytes) -> bool:
    """Return whether `key` is an X-Wing public key to which something can be wrapped."""
    if len(key) != PUBLIC_BYTES:
        return False
    try:
        wrap(bytes(32), key, b"")
    except ValueError:
        return False
    return True


def wrap(secret: bytes, public_key: bytes, info: bytes) -> bytes:
    """Return `secret` sealed to `public_key` (raw), bound to `info`: encapsulated key, then ciphertext.

    Raises:
        ValueError: `public_key` is not a usable X-Wing key.
    """
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES]),
        X25519PublicKey.from_public_bytes(public_key[_MLKEM_PUBLIC_BYTES:]),
    )
    return _suite().encrypt(secret, key, info)


def unwrap(wrapped: bytes, seed: bytes, info: bytes) -> bytes | None:
    """Return the secret in `wrapped` for the private key `seed` and `info`, or None when it does not open."""
    try:
        return _suite().decrypt(wrapped, MLKEM768X25519PrivateKey(*_halves(seed)), info)
    except (InvalidTag, ValueError):
        return None


def _halves(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    if len(seed) != SEED_BYTES:
        raise ValueError("an X-Wing seed has 32 bytes")
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + 32)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:]),
    )


def _suite() -> Suite:
    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
