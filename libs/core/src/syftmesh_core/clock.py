"""Time, ids and randomness as ports, so that nothing in the product reads them from the air."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time in Unix milliseconds and a monotonic clock in seconds."""

    def now_ms(self) -> int:
        """Return the wall time in Unix milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never steps back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return the wall time in Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never steps back."""
        return time.monotonic()


def to_datetime(unix_ms: int) -> datetime:
    """Return `unix_ms` as an aware UTC datetime."""
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


Random = Callable[[int], bytes]
"""Return that many random bytes."""

system_random: Random = secrets.token_bytes


def uuid7(clock: Clock, random: Random = system_random) -> str:
    """Return a UUID version 7 (RFC 9562, section 5.7) as lower-case text; sorts by creation time."""
    value = (clock.now_ms() & ((1 << 48) - 1)) << 80 | int.from_bytes(random(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
