"""A gRPC server on a Unix socket that only the service's own user can open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import structlog
from syftmesh_kit.address import UNIX
from syftmesh_kit.binding import bind
from syftmesh_kit.caller import Caller
from syftmesh_kit.interceptor import RpcMetrics, ServerInterceptor

_log: Any = structlog.get_logger("syftmesh.identity")


class AdminSocket:
    """Serves at a socket what `register` adds; every call counts as `caller`'s.

    Args:
        path: The socket; its folder is made when it is missing.
        register: Adds the servicers.
        caller: Who whoever opens the socket is.
        metrics: Where calls are counted.
    """

    def __init__(
        self, path: Path, register: Callable[[grpc.aio.Server], None], caller: Caller, metrics: RpcMetrics
    ) -> None:
        self._path = path
        self._register = register
        self._interceptor = ServerInterceptor(verifier=None, metrics=metrics, caller=caller)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            Unavailable: The socket cannot be bound (PORT_IN_USE).
        """
        server = grpc.aio.server(interceptors=(self._interceptor,))
        self._register(server)
        bind(server, f"{UNIX}{self._path}")
        await server.start()
        self._server = server
        _log.info("identity.admin_socket_opened")

    async def stop(self) -> None:
        """Let open calls finish for a second, then end."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(1.0)
