"""Secrets that identity gives out: high-entropy random text of which only the SHA-256 is kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from syftmesh_core.clock import Random

SECRET_BYTES: Final = 32


def new_secret(random: Random) -> str:
    """Return a fresh secret of 256 bits, URL-safe text."""
    return base64.urlsafe_b64encode(random(SECRET_BYTES)).decode().rstrip("=")


def digest(secret: str) -> str:
    """Return the SHA-256 of `secret`, hex. A slow hash adds nothing to 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def is_secret(presented: str, stored_digest: str) -> bool:
    """Return whether `presented` is the secret with that digest, in time independent of both."""
    return hmac.compare_digest(digest(presented), stored_digest)


def same_text(left: str, right: str) -> bool:
    """Return whether two texts are equal, in time independent of where they differ and of their lengths."""
    return hmac.compare_digest(digest(left), digest(right))
