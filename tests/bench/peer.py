"""The peer of calls: a bare grpc.aio server with an empty unary echo and a relay between two streams.

The relay has the topology of the router and nothing else: a caller's stream and a site's stream, frames of bytes
whose first 16 bytes are the call's id. No tokens, no rights, no receipts, no expiry.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

SERVICE: Final = "bench.Peer"
ID_BYTES: Final = 16


class Peer:
    """The handlers."""

    def __init__(self) -> None:
        self._site: asyncio.Queue[bytes] = asyncio.Queue()
        self._callers: dict[bytes, asyncio.Queue[bytes]] = {}

    async def echo(self, request: bytes, _context: Any) -> bytes:
        """Give back what came."""
        return request

    async def call(self, frames: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Take a caller's calls and give it the replies."""
        replies: asyncio.Queue[bytes] = asyncio.Queue()

        async def read() -> None:
            async for frame in frames:
                self._callers[frame[:ID_BYTES]] = replies
                self._site.put_nowait(frame)

        reading = asyncio.create_task(read())
        try:
            while True:
                yield await replies.get()
        finally:
            reading.cancel()

    async def serve(self, frames: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Give a site the calls and take its replies."""

        async def read() -> None:
            async for frame in frames:
                self._callers.pop(frame[:ID_BYTES]).put_nowait(frame)

        reading = asyncio.create_task(read())
        try:
            while True:
                yield await self._site.get()
        finally:
            reading.cancel()


async def serve() -> None:
    """Serve until told to end."""
    peer = Peer()
    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(peer.echo),
        "Call": grpc.stream_stream_rpc_method_handler(peer.call),
        "Serve": grpc.stream_stream_rpc_method_handler(peer.serve),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(f"ready 127.0.0.1:{port}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve())
