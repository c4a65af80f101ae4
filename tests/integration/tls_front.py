"""The one TLS port of a hub, before an embedded mesh that has none: as the proxy of a cluster, HTTP and gRPC on it."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from syftmesh_kit.tls import TlsIdentity

WELL_KNOWN = b"GET /.well-known/syftmesh.json "


class TlsFront:
    """Ends TLS on a port of 127.0.0.1; what was agreed by ALPN says where a connection goes.

    Args:
        identity: Certificate of the port; clients bring none.
        http: ``host:port`` of the gateway.
        grpc: ``host:port`` of the services.
        document: Entries of the discovery document that are other than the front's own address and TLS.
    """

    def __init__(
        self, identity: TlsIdentity, http: str, grpc: str, document: dict[str, object] | None = None
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity.cert_file, identity.key_file)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._http, self._grpc = http, grpc
        self._document = document or {}
        self.port = 0
        self.taken: list[str] = []

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve in a thread of its own; give the hub's address."""
        loop, up = asyncio.new_event_loop(), threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._context)
            self.port = server.sockets[0].getsockname()[1]
            up.set()
            async with server:
                await server.serve_forever()

        def run() -> None:
            asyncio.set_event_loop(loop)
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            open_tasks = asyncio.all_tasks(loop)
            for open_task in open_tasks:
                open_task.cancel()
            loop.run_until_complete(asyncio.gather(*open_tasks, return_exceptions=True))
            loop.run_until_complete(asyncio.sleep(0.05))  # in which transports tell that they are closed
            loop.close()

        task = loop.create_task(serve())
        thread = threading.Thread(target=run)
        thread.start()
        assert up.wait(10)
        try:
            yield f"https://localhost:{self.port}"
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join(10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            await _closed(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        self.taken.append(chosen or "")
        head = b""
        if chosen != "h2":
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(WELL_KNOWN):
                await self._discovered(writer)
                return
        host, _, port = (self._grpc if chosen == "h2" else self._http).rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        inner_writer.write(head)
        ways = [_pump(reader, inner_writer), _pump(inner_reader, writer)]
        try:
            _, open_ways = await asyncio.wait(
                [asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
            )
            for way in open_ways:
                way.cancel()
        finally:
            await _closed(inner_writer)

    async def _discovered(self, writer: asyncio.StreamWriter) -> None:
        own = f"localhost:{self.port}"
        found = {"issuer": "embedded", "version": "1", "grpc": own, "grpc_tls": True, "flower": own}
        body = json.dumps(found | self._document).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection and be rid of it before the loop is, also when this is cancelled."""
    writer.close()
    try:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
