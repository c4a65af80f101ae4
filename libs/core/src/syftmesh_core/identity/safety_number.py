"""Safety numbers: what two people compare to know that they hold each other's true account roots.

Signal's numeric fingerprint: 5,200 rounds of SHA-512, 30 digits a side, the two sides sorted, so that both
see the same 60 digits.
"""

from __future__ import annotations

import hashlib

ROUNDS = 5200
_VERSION = b"\0\0"
_GROUPS = 6


def numeric_fingerprint(key: bytes, identifier: bytes) -> str:
    """Return the 30 digits of one side (Signal's fingerprint version 0).

    Args:
        key: The public key: for an account root raw, 32 bytes.
        identifier: What the key is said to belong to: for a principal the e-mail address in UTF-8.
    """
    digest = _VERSION + key + identifier
    for _ in range(ROUNDS):
        digest = hashlib.sha512(digest + key).digest()
    chunks = (digest[place : place + 5] for place in range(0, 5 * _GROUPS, 5))
    return "".join(f"{int.from_bytes(chunk, 'big') % 100_000:05d}" for chunk in chunks)


def safety_number(own_email: str, own_root: bytes, other_email: str, other_root: bytes) -> str:
    """Return the 60 digits that both sides see, in twelve groups of five separated by spaces.

    Args:
        own_email: Own e-mail address, normalised.
        own_root: Own account root, raw, 32 bytes.
        other_email: The other's e-mail address, normalised.
        other_root: The other's account root as known here, raw, 32 bytes.
    """
    sides = sorted(
        (
            numeric_fingerprint(own_root, own_email.encode()),
            numeric_fingerprint(other_root, other_email.encode()),
        )
    )
    digits = "".join(sides)
    return " ".join(digits[place : place + 5] for place in range(0, len(digits), 5))
