"""The ring of signing keys: which one signs when, and when the last token of each has ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

LAG_S: Final = 60
"""Longest time in seconds that a replica goes on signing with a key after another has taken over: its own clock, and
the time that the news need."""

LONGEST_TOKEN_S: Final = 3600
"""No access token lives longer (`IdentitySettings.access_ttl_s`), whichever replica with whichever setting made it."""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One signing key.

    Attributes:
        kid: Its name in tokens and in the key set.
        public_key: The raw Ed25519 public key, hex.
        sealed: The private key, sealed for the service's replicas; empty for the key of their file.
        created_ms: When it was made.
        signs_from_ms: When it takes over, None before it was published.
    """

    kid: str
    public_key: str
    sealed: str = field(repr=False)
    created_ms: int
    signs_from_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Ring:
    """The keys in use, oldest first.

    Attributes:
        root_kid: The key of the file that the others are sealed under.
        keys: At least one; all but the newest have been published.
    """

    root_kid: str
    keys: tuple[RingKey, ...]

    def signer(self, now_ms: int) -> RingKey:
        """Return the key that signs at `now_ms`: the newest one that has taken over."""
        taken = [k for k in self.keys if k.signs_from_ms is not None and k.signs_from_ms <= now_ms]
        return taken[-1] if taken else self.keys[0]  # a clock that was set back

    def is_rotating(self, now_ms: int) -> bool:
        """Return whether the newest key has not taken over yet."""
        return self.signer(now_ms).kid != self.keys[-1].kid

    def end_ms(self, key: RingKey) -> int | None:
        """Return when the last token of `key` has ended, None while no other has its turn."""
        place = self.keys.index(key)
        after = self.keys[place + 1].signs_from_ms if place + 1 < len(self.keys) else None
        return None if after is None else after + (LAG_S + LONGEST_TOKEN_S) * 1000

    def published(self, now_ms: int) -> tuple[tuple[RingKey, int | None], ...]:
        """Return the keys that tokens may be verified with, each with its end, newest first."""
        known = [(key, self.end_ms(key)) for key in self.keys if key.signs_from_ms is not None]
        return tuple((key, end_ms) for key, end_ms in reversed(known) if end_ms is None or end_ms > now_ms)

    def ended(self, now_ms: int) -> tuple[RingKey, ...]:
        """Return the keys of which no token can be valid any more."""
        ends = [(key, self.end_ms(key)) for key in self.keys]
        return tuple(key for key, end_ms in ends if end_ms is not None and end_ms <= now_ms)

    def with_key(self, key: RingKey) -> Ring:
        """Return the ring with a new key."""
        return replace(self, keys=(*self.keys, key))

    def without(self, kid: str) -> Ring:
        """Return the ring without a key."""
        return replace(self, keys=tuple(key for key in self.keys if key.kid != kid))

    def taking_over(self, at_ms: int) -> Ring:
        """Return the ring whose newest key, which is published now, signs from `at_ms`."""
        return replace(self, keys=(*self.keys[:-1], replace(self.keys[-1], signs_from_ms=at_ms)))
