"""Fingerprints: keyed hashes, for what is too short or too well known to be hidden by a plain hash."""

from __future__ import annotations

import hashlib
import hmac


class Fingerprint:
    """Makes fingerprints with one key.

    Whoever copies the state must not learn from it what was hashed. A code of 40 bits is found within seconds by
    trying all of them against a SHA-256, and so are the addresses of the Internet; without the key, which lies in
    the service's own file and not in the state, there is nothing to try against.

    Args:
        key: 32 secret bytes, the same in every replica and after a restart.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, *parts: str) -> str:
        """Return HMAC-SHA256 (RFC 2104) of `parts`, hex; two kinds of the same parts have nothing in common."""
        message = b"".join(
            len(data).to_bytes(4, "big") + data
            for data in (part.encode("utf-8", "surrogateescape") for part in (kind, *parts))
        )
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
