"""Reading a pipe into a log that keeps the ends of an endless stream."""

from __future__ import annotations

import asyncio

from syftmesh_executor.pod.log import CappedLog

__all__ = ["CappedLog", "LogReader"]


class LogReader(asyncio.Protocol):
    """Feeds a pipe into a `CappedLog`; `ended` resolves when nobody holds its other end."""

    def __init__(self, log: CappedLog) -> None:
        self.log = log
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Take what the pipe brought."""
        self.log.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the stream."""
        del exc
        if not self.ended.done():
            self.ended.set_result(None)
