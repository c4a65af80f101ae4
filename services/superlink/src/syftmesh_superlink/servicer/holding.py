"""Long polls: an answer without messages is held until something was pushed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from syftmesh_superlink.domain.wake import Wakes
from syftmesh_superlink.servicer.upstream import Answer


@dataclass(frozen=True, slots=True)
class Hold:
    """How long to hold.

    Attributes:
        longest_s: Longest time in all.
        again_s: Seconds after which it is asked again unasked: messages also end by time, and a push may have
            come by while this process was restarted.
    """

    longest_s: float
    again_s: float


async def held(
    wakes: Wakes,
    key: Hashable,
    hold: Hold,
    ask: Callable[[], Awaitable[Answer]],
    is_empty: Callable[[Answer], bool],
) -> Answer:
    """Return the first answer that is not empty, or the last one."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + hold.longest_s
    while True:
        expected = wakes.expect(key)  # before asking, so that no push is missed between
        try:
            answer = await ask()
            left_s = end_s - loop.time()
            if left_s <= 0 or wakes.is_closed or not is_empty(answer):
                return answer
            await asyncio.wait({expected}, timeout=min(left_s, hold.again_s))
        finally:
            wakes.drop(key, expected)
