"""Ed25519 keys and signatures (RFC 8032) over raw bytes."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_FIELD = (1 << 255) - 19
_ORDER_EIGHT_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD - 1, _ORDER_EIGHT_Y, _FIELD - _ORDER_EIGHT_Y})


def is_sound_key(key: bytes) -> bool:
    """Return whether `key` encodes a point, canonically and not of small order.

    Under a key of small order one signature holds for many messages, so its owner could deny what was signed.
    """
    if len(key) != KEY_BYTES:
        return False
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    if y >= _FIELD or y in _SMALL_ORDER_Y:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        return False
    return True


def is_signed_by(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether `signature` over `message` holds under the public `key` (raw, 32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
