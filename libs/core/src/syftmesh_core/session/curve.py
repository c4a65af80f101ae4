"""X25519 and ML-KEM-1024 as sessions use them: raw bytes in, raw bytes out, unusable keys refused.

Sources: RFC 7748 (section 6.1: an all-zero result is refused, so points of small order are), FIPS 203.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey, MLKEM1024PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

X25519_BYTES = 32
KEM_SEED_BYTES = 64
KEM_PUBLIC_BYTES = 1568
KEM_CIPHERTEXT_BYTES = 1568

_PROBE = bytes([0x40]) + bytes(31)


def x25519_public(private: bytes) -> bytes:
    """Return the public key of a raw 32-byte private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def x25519(private: bytes, public: bytes) -> bytes:
    """Return the shared secret, 32 bytes.

    Raises:
        ValueError: A key has not 32 bytes, or `public` is a point of small order.
    """
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def is_sound_x25519(public: bytes) -> bool:
    """Return whether `public` is a usable X25519 key: 32 bytes and no point of small order."""
    try:
        x25519(_PROBE, public)
    except ValueError:
        return False
    return True


def kem_public(seed: bytes) -> bytes:
    """Return the ML-KEM-1024 public key of a 64-byte seed, 1,568 bytes."""
    return MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def is_sound_kem(public: bytes) -> bool:
    """Return whether `public` is an ML-KEM-1024 key in reduced form (FIPS 203, section 7.2)."""
    try:
        MLKEM1024PublicKey.from_public_bytes(public)
    except ValueError:
        return False
    return True


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Return a fresh secret of 32 bytes and its ciphertext; its randomness is the library's own.

    Raises:
        ValueError: `public` is no sound key.
    """
    return MLKEM1024PublicKey.from_public_bytes(public).encapsulate()


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """Return the secret of `ciphertext`; a forged one gives a secret nobody knows (FIPS 203, section 7.3).

    Raises:
        ValueError: `ciphertext` has not 1,568 bytes.
    """
    return MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
