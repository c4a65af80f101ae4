"""Places in the file log, and when the log was there."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

_STEP_MS: Final = 1000
_MAX_MARKS: Final = 65_536


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A place in the log: everything up to it is in the model.

    Attributes:
        epoch: Counts rebuilds of the log.
        sequence: Last sequence seen.
    """

    epoch: int
    sequence: int


class LogTimes:
    """When places of the log were stored, by the bus' clock: a lower bound, a second or less too early.

    Args:
        max_marks: Marks kept; one more, and every other one is forgotten, which widens the bound.
    """

    def __init__(self, max_marks: int = _MAX_MARKS) -> None:
        self._max_marks = max_marks
        self._sequences: list[int] = []
        self._times_ms: list[int] = []

    def note(self, sequence: int, time_ms: int) -> None:
        """Take in that `sequence`, larger than any before, was stored at `time_ms`."""
        if self._times_ms and time_ms - self._times_ms[-1] < _STEP_MS:
            return
        if len(self._sequences) >= self._max_marks:
            del self._sequences[1::2], self._times_ms[1::2]
        self._sequences.append(sequence)
        self._times_ms.append(time_ms)

    def earliest_ms(self, sequence: int) -> int:
        """Return a moment that whoever has seen `sequence` has reached; 0 where nothing is known of it."""
        index = bisect_right(self._sequences, sequence)
        return self._times_ms[index - 1] if index else 0
