"""Token buckets: how many calls a sender may make, and an app may take."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import LimitExceeded

_MAX_KEYS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit: `per_s` calls a second in the long run, `burst` at once."""

    per_s: float
    burst: int


SENDER_RATE: Final = Rate(50, 200)
APP_RATE: Final = Rate(500, 2_000)


class TokenBuckets:
    """One bucket per key; the least recently used one is forgotten, which makes it full again.

    Args:
        rate: Of every bucket.
        clock: Monotonic time.
        max_keys: Buckets remembered.
    """

    def __init__(self, rate: Rate, clock: Clock, *, max_keys: int = _MAX_KEYS) -> None:
        self._rate = rate
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return the seconds until a call under `key` is allowed; 0 when it is now. Nothing is taken."""
        return max(0.0, (1.0 - self._level(key)) / self._rate.per_s)

    def take(self, key: str) -> None:
        """Take one token of `key`."""
        self._buckets[key] = (self._level(key) - 1.0, self._clock.monotonic_s())
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    def _level(self, key: str) -> float:
        level, at_s = self._buckets.get(key, (float(self._rate.burst), self._clock.monotonic_s()))
        return min(self._rate.burst, level + (self._clock.monotonic_s() - at_s) * self._rate.per_s)


class CallRates:
    """The limits of one router replica, per sender and per app of a site.

    Args:
        clock: Monotonic time.
        sender: Limit per sender.
        app: Limit per app of a site.
    """

    def __init__(self, clock: Clock, *, sender: Rate = SENDER_RATE, app: Rate = APP_RATE) -> None:
        self._senders = TokenBuckets(sender, clock)
        self._apps = TokenBuckets(app, clock)

    def take(self, sender: str, site: str, app: str) -> None:
        """Count one call.

        Raises:
            LimitExceeded: RATE_LIMITED, with metadata `retry_after_ms` and `scope`; nothing was counted.
        """
        target = f"{site}/{app}"
        for scope, buckets, key in (("sender", self._senders, sender), ("app", self._apps, target)):
            # Rounded up, so that whoever waits that long is served.
            if (wait_s := buckets.wait_s(key)) > 1e-9:
                raise LimitExceeded(
                    f"Too many calls of this {scope}: try again in a moment.",
                    reason="RATE_LIMITED",
                    metadata={"retry_after_ms": str(math.ceil(wait_s * 1000)), "scope": scope},
                )
        self._senders.take(sender)
        self._apps.take(target)
