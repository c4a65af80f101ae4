"""uvicorn inside our own event loop: no signal handlers, no lifespan, a socket that we bound.

Only services that bring starlette and uvicorn import this; the others need neither.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp
from syftmesh_core.errors import MeshError, Unavailable
from uvicorn.protocols.http.h11_impl import H11Protocol

from syftmesh_kit.tls import TlsIdentity, certificate_names, check_peer, follow

_START_S: Final = 5.0
_BACKLOG: Final = 128
_MAX_CONNECTIONS: Final = 512

_log: Any = structlog.get_logger("syftmesh.http")


class HttpServer:
    """Serves one ASGI application.

    Args:
        host: Address to bind to.
        port: Port; 0 picks a free one.
        drain_s: Seconds that open requests get at the end.
        tls: Whose certificate to show, and by whose authorities clients must show one; None is plain HTTP.
        peers: Names of which a client's certificate must bear one; empty: any of the authorities'.
    """

    def __init__(
        self,
        host: str,
        port: int,
        drain_s: float,
        *,
        tls: TlsIdentity | None = None,
        peers: frozenset[str] = frozenset(),
    ) -> None:
        self._tls = tls
        self._peers = peers
        self._host = host
        self._wanted_port = port
        self._drain_s = drain_s
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Return the port that was bound."""
        return int(self._socket.getsockname()[1]) if self._socket is not None else 0

    @property
    def is_serving(self) -> bool:
        """Return whether requests are taken."""
        return self._server is not None and self._server.started and not self._server.should_exit

    def bind(self) -> int:
        """Bind the port and return it; requests are taken from `start` on.

        Raises:
            Unavailable: It cannot be bound (PORT_IN_USE).
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio sends at once (TCP_NODELAY) only on sockets that name their protocol; others may wait 40 ms.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self._host, self._wanted_port))
        except OSError as error:
            bound.close()
            raise Unavailable(
                f"Port {self._wanted_port} is in use by another process. Stop it, or choose another port.",
                reason="PORT_IN_USE",
                metadata={"port": str(self._wanted_port)},
            ) from error
        bound.setblocking(False)
        self._socket = bound
        return self.port

    async def start(self, app: ASGIApp, tasks: asyncio.TaskGroup) -> None:
        """Serve `app` from a task in `tasks`; returns once requests are taken.

        Raises:
            Unavailable: It did not start (HTTP_START_FAILED).
            InvalidInput: The TLS files are damaged (TLS_FILES_INVALID).
        """
        if self._socket is None:
            self.bind()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=_protocol(self._peers) if self._peers else "h11",
            ws="none",
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=max(1, int(self._drain_s)),
        )
        if self._tls is not None:
            context = self._tls.server_context()
            config.load()
            config.ssl = context  # after loading: uvicorn itself takes files, once
            tasks.create_task(follow(self._tls, [context]))
        self._server = server = _Server(config)
        assert self._socket is not None  # noqa: S101 - bound above
        self._task = tasks.create_task(server.serve([self._socket]))
        try:
            async with asyncio.timeout(_START_S):
                await server.began.wait()
        except TimeoutError:
            raise Unavailable("The HTTP server did not start.", reason="HTTP_START_FAILED") from None

    async def stop(self) -> None:
        """Take no new requests, let the open ones finish within the drain, then end."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is not None and task is not None:
            server.should_exit = True
            with suppress(asyncio.CancelledError):
                await task
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _protocol(peers: frozenset[str]) -> type[H11Protocol]:
    """Return uvicorn's protocol, for clients alone whose certificate bears one of the names."""

    class Protocol(H11Protocol):
        is_refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            try:
                check_peer(certificate_names(transport.get_extra_info("peercert")), peers)
            except MeshError as error:
                self.is_refused = True
                _log.warning("http.peer_refused", reason=error.reason)
                transport.close()
            else:
                super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            if not self.is_refused:
                super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            if not self.is_refused:  # uvicorn was never told that it was made
                super().connection_lost(exc)

    return Protocol


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process's own frame decides when to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.began = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.began.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
