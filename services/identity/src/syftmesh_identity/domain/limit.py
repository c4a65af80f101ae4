"""Limits on how often something may be done within an hour, shared by all replicas and kept over a restart.

The times of what was done lie in one record for each subject, changed by compare-and-set: of two that race for the
last place one gets it, whichever replicas they reach. Who loses waits for a random while that grows, looks again, and
is refused as soon as the record is full: a crowd gets as many places as there are, and everybody else the true reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import LimitExceeded

from syftmesh_identity.domain.enrolment import busy
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.ports import RecordStore

HOUR_S: Final = 3600
TRIES: Final = 40
"""How often a change is tried: with these pauses several hundred may want one record at once, and the last is told
otherwise after some five seconds, before any caller has given up."""

_FIRST_PAUSE_S: Final = 0.004
_LONGEST_PAUSE_S: Final = 0.256

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Quota:
    """How often something may be done.

    Attributes:
        name: What is counted, e.g. ``code_address``; two quotas count apart from each other.
        limit: How often within any window.
        reason: Reason of the refusal.
        message: Text of the refusal.
        window_s: Length of the window in seconds, which slides.
    """

    name: str
    limit: int
    reason: str
    message: str
    window_s: int = HOUR_S


@dataclass(frozen=True, slots=True)
class Usage:
    """What was done by one subject: times in Unix milliseconds, oldest first, and when the last is forgotten."""

    times_ms: tuple[int, ...]
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """One place that was taken."""

    key: str
    at_ms: int


class Limiter:
    """Counts what is done.

    Args:
        usages: The state, by a fingerprint of quota and subject: who did something from where is not written down.
        fingerprint: Makes these keys.
        clock: Wall time. Replicas' clocks may differ: what lies in the future counts as done now.
        random: Source of jitter.
        sleep: Waits that many seconds after a change that somebody else was quicker with.
    """

    def __init__(
        self,
        usages: RecordStore[Usage],
        fingerprint: Fingerprint,
        clock: Clock,
        *,
        random: Random = system_random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._usages = usages
        self._fingerprint = fingerprint
        self._clock = clock
        self._random = random
        self._sleep = sleep

    async def take(self, quota: Quota, subject: str) -> Ticket:
        """Take a place.

        Raises:
            LimitExceeded: All are taken (the quota's reason); metadata `retry_after_ms` says when one gets free.
            Conflict: Too many ask at once (CONFLICT); nothing was taken.
        """
        key = self._fingerprint.of("limit", quota.name, subject)
        for lost in range(TRIES):
            await self._pause(lost)
            found, now_ms = await self._usages.get(key), self._clock.now_ms()
            window_ms = quota.window_s * 1000
            known = found.record.times_ms if found is not None else ()
            live = [at_ms for at_ms in known if at_ms > now_ms - window_ms]
            if len(live) >= quota.limit:
                raise _refused(quota, live[-quota.limit] + window_ms - now_ms)
            times_ms = tuple(sorted((*live, now_ms)))
            usage = Usage(times_ms, times_ms[-1] + window_ms)
            if found is None:
                written = await self._usages.create(key, usage)
            else:
                written = await self._usages.replace(key, usage, found.revision)
            if written:
                return Ticket(key, now_ms)
        raise busy()

    async def give_back(self, ticket: Ticket) -> None:
        """Free a place that was not made use of after all; one that is forgotten already is no error.

        Raises:
            Conflict: Too many ask at once (CONFLICT); the place stays taken.
        """
        for lost in range(TRIES):
            await self._pause(lost)
            found = await self._usages.get(ticket.key)
            if found is None or ticket.at_ms not in found.record.times_ms:
                return
            left = list(found.record.times_ms)
            left.remove(ticket.at_ms)
            usage = replace(found.record, times_ms=tuple(left))
            if await self._usages.replace(ticket.key, usage, found.revision):
                return
        raise busy()

    async def _pause(self, lost: int) -> None:
        """Wait after `lost` changes that came too late: anything up to a span that doubles (full jitter)."""
        if lost:
            longest_s = min(_FIRST_PAUSE_S * 2.0 ** (lost - 1), _LONGEST_PAUSE_S)
            await self._sleep(longest_s * int.from_bytes(self._random(2), "big") / 65_536)


def _refused(quota: Quota, wait_ms: int) -> LimitExceeded:
    return LimitExceeded(
        f"{quota.message} Try again in {_span(wait_ms)}.",
        reason=quota.reason,
        metadata={"retry_after_ms": str(wait_ms), "limit": str(quota.limit)},
    )


def _span(wait_ms: int) -> str:
    seconds = -(-wait_ms // 1000)
    return f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} minutes"
