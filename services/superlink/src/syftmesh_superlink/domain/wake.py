"""Waking those who wait for something to be pushed, each by its own name."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable


class Wakes:
    """Waiters by key; waking one key wakes nobody else."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, set[asyncio.Future[None]]] = {}
        self.is_closed = False
        """Nobody waits any more."""

    def expect(self, key: Hashable) -> asyncio.Future[None]:
        """Return what is done at the next wake of `key`; take it before looking, and `drop` it after."""
        found = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, set()).add(found)
        return found

    def drop(self, key: Hashable, expected: asyncio.Future[None]) -> None:
        """Forget what `expect` gave."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.discard(expected)
            if not waiting:
                del self._waiting[key]

    def wake(self, key: Hashable) -> None:
        """Wake whoever waits for `key`."""
        for found in self._waiting.pop(key, ()):
            if not found.done():
                found.set_result(None)

    def close(self) -> None:
        """Wake everybody, and let nobody wait from now on."""
        self.is_closed = True
        for key in list(self._waiting):
            self.wake(key)
