"""Turns for other work: a long computation of one caller must not hold up the answers to the others."""

from __future__ import annotations

import asyncio
from typing import Final

from syftmesh_core.clock import Clock

SLICE_S: Final = 0.002
"""Work at a stretch; an answer is due within tens of milliseconds, and a turn costs microseconds."""


class Pace:
    """Says when it is somebody else's turn.

    Args:
        clock: Monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s = clock.monotonic_s()

    @property
    def is_due(self) -> bool:
        """Whether the stretch is over."""
        return self._clock.monotonic_s() - self._since_s >= SLICE_S

    async def rest(self) -> None:
        """Let others work, then begin a new stretch."""
        await asyncio.sleep(0)
        self._since_s = self._clock.monotonic_s()
