"""Waking a loop of the event loop's thread from any thread: transactions of the inbox run in others."""

from __future__ import annotations

import asyncio


class Wake:
    """An event that any thread may set and one task waits for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self) -> None:
        """Wake the waiter, now or the next time it waits."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._event.set()
        else:
            loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        """Begin anew; what is set from now on is seen by the next `wait`."""
        self._loop = asyncio.get_running_loop()
        self._event.clear()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Return True when it was set, False after `timeout_s` seconds."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True
