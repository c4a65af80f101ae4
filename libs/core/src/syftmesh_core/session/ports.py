"""What sessions read from the key store. Writing is the caller's: one transaction for all that a call returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from syftmesh_core.session.prekey import DAY_MS
from syftmesh_core.session.prekey_secret import PrekeySecret

SKIPPED_KEPT_MS = 30 * DAY_MS
"""How long the store keeps a skipped key."""

MAX_SKIPPED_KEYS = 100_000
"""Skipped keys the store keeps for one device; the oldest go first."""


@dataclass(frozen=True, slots=True)
class SkippedId:
    """Which message a skipped key is for."""

    session_id: bytes
    ratchet_key: bytes
    number: int


@dataclass(frozen=True, slots=True)
class SkippedKey:
    """The key of a message that has not come yet; a row of the store's table."""

    id: SkippedId
    key: bytes = field(repr=False)


class SessionReader(Protocol):
    """The key store as sessions see it, within the caller's transaction."""

    def skipped_key(self, skipped_id: SkippedId) -> bytes | None:
        """Return the message key stored under `skipped_id`, or None."""
        ...

    def signed_prekey(self, key_id: int) -> PrekeySecret | None:
        """Return the private key of kind SIGNED with that id, or None."""
        ...

    def one_time_prekey(self, key_id: int) -> PrekeySecret | None:
        """Return the private key of kind ONE_TIME with that id, or None when it was used."""
        ...

    def kem_prekey(self, key_id: int) -> PrekeySecret | None:
        """Return the private KEM key with that id, one-time or last resort, or None when it was used."""
        ...

    def is_remembered(self, kem_id: int, session_id: bytes) -> bool:
        """Return whether a first message on that last-resort key was stored as remembered."""
        ...
