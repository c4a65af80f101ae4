"""The change feed of one stream: what is live, then what changes, in batches to resume behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import WrongState
from syftmesh_kit.filelog import Change, FeedReader, FileLog, LogPosition, changes_since

MAX_BATCH: Final = 500
_MAX_BATCH_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of the feed; without changes it is a heartbeat.

    Attributes:
        changes: In log order.
        position: Where a new stream goes on behind this batch.
        caught_up: Whether everything up to now has been sent.
    """

    changes: list[Change]
    position: LogPosition
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

    async def feed(self, reader: FeedReader, epoch: int, sequence: int) -> AsyncIterator[Batch]:
        """Iterate over the batches behind the cursor, for ever.

        The rights of the reader are asked anew for each change, so a revocation binds with the next one.

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
            changes, to = await changes_since(self._log, reader, since, self._clock.now_ms())
            if changes or first:
                for batch in _batches(changes, since, to):
                    yield batch
                sent_s, first = self._clock.monotonic_s(), False
            since = to.sequence
            while True:
                left_s = sent_s + self._heartbeat_s - self._clock.monotonic_s()
                if left_s > 0 and await self._log.wait_for(since + 1, left_s):
                    break
                self._log.check()
                yield Batch([], LogPosition(to.epoch, since), caught_up=True)
                sent_s = self._clock.monotonic_s()


def _batches(changes: list[Change], since: int, to: LogPosition) -> list[Batch]:
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
            batches.append(Batch(part, LogPosition(to.epoch, safe), caught_up=False))
            part, size = [], 0
        part.append(change)
    return [*batches, Batch(part, to, caught_up=True)]
