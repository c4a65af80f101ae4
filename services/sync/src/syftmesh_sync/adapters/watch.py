"""The change feed of one stream: what is live, then what changes, in batches to resume behind."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import WrongState
from syftmesh_kit.filelog import Change, FeedReader, FileLog, LogPosition, changes_since, next_turn

MAX_BATCH: Final = 500
_MAX_BATCH_BYTES: Final = 1024 * 1024
_TURNS_APART_MS: Final = 500
"""A rule file may have a thousand moments in one second; what the clock takes is told twice a second at most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of the feed; without changes it is a heartbeat.

    Attributes:
        changes: In log order.
        position: Where a new stream goes on behind this batch.
        seen_ms: Moment up to which what the clock takes has been told, Unix milliseconds.
        caught_up: Whether everything up to now has been sent.
    """

    changes: list[Change]
    position: LogPosition
    seen_ms: int
    caught_up: bool


class Watch:
    """Makes feeds from the read model.

    Args:
        log: The read model.
        clock: For rights that end by the clock.
        heartbeat_s: Seconds between batches at most.
    """

    def __init__(self, log: FileLog, clock: Clock, heartbeat_s: float) -> None:
        self._log = log
        self._clock = clock
        self._heartbeat_s = heartbeat_s

    async def feed(
        self, reader: FeedReader, epoch: int, sequence: int, seen_ms: int = 0
    ) -> AsyncIterator[Batch]:
        """Iterate over the batches behind the cursor, for ever.

        The rights of the reader are asked anew for each change, so a revocation binds with the next one; what the
        clock takes is told when its moment has come.

        Args:
            reader: Who reads.
            epoch: The cursor's epoch, 0 with `sequence` 0 for everything live first.
            sequence: The cursor's sequence.
            seen_ms: The cursor's moment, 0 where it has none.

        Raises:
            WrongState: (CURSOR_EXPIRED) the cursor is of another epoch or ahead of the log, or too old to say
                what was lost since.
            Unavailable: The model may not be answered from.
        """
        self._log.check()
        at = self._log.position
        if (epoch, sequence) != (0, 0) and (epoch != at.epoch or sequence > at.sequence):
            raise WrongState(
                "The cursor is of an older epoch of the log: list once, then watch from the new cursor.",
                reason="CURSOR_EXPIRED",
                metadata={"epoch": str(at.epoch)},
            )
        since, sent_s, first = sequence, self._clock.monotonic_s(), True
        while True:
            now_ms = self._clock.now_ms()
            changes, to = await changes_since(self._log, reader, since, now_ms, seen_ms)
            if changes or first:
                for batch in _batches(changes, since, to, seen_ms, now_ms):
                    yield batch
                sent_s, first = self._clock.monotonic_s(), False
            since, seen_ms = to.sequence, now_ms
            while not await self._has_changed(reader, since, seen_ms, sent_s):
                self._log.check()
                yield Batch([], LogPosition(to.epoch, since), seen_ms, caught_up=True)
                sent_s = self._clock.monotonic_s()

    async def _has_changed(self, reader: FeedReader, since: int, seen_ms: int, sent_s: float) -> bool:
        """Wait for the log, or a moment at which the clock takes a right; False when a heartbeat is due first."""
        while True:
            left_s = sent_s + self._heartbeat_s - self._clock.monotonic_s()
            turn_ms, now_ms = next_turn(self._log, reader, seen_ms), self._clock.now_ms()
            turn_s = math.inf
            if turn_ms is not None:
                turn_s = (max(turn_ms, seen_ms + _TURNS_APART_MS) - now_ms) / 1000
            if turn_s <= 0:
                return True
            if left_s <= 0:
                return False
            wait_s = min(left_s, turn_s)
            if await self._log.wait_for(since + 1, wait_s):
                return True


def _batches(changes: list[Change], since: int, to: LogPosition, seen_ms: int, now_ms: int) -> list[Batch]:
    """Cut `changes` into batches; the cursor of each names a place behind which nothing of it comes again."""
    batches: list[Batch] = []
    part: list[Change] = []
    size, safe = 0, since
    for change in changes:
        signed = change.entry.signed
        size += len(change.entry.text) + len(signed.record) + len(signed.content) + len(signed.signature)
        if part and (len(part) == MAX_BATCH or size > _MAX_BATCH_BYTES):
            if change.sequence != part[-1].sequence:
                safe = part[-1].sequence
            batches.append(Batch(part, LogPosition(to.epoch, safe), seen_ms, caught_up=False))
            part, size = [], 0
        part.append(change)
    return [*batches, Batch(part, to, now_ms, caught_up=True)]
