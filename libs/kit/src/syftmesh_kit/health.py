"""The health service on a port of its own, for probes that bring no certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from syftmesh_kit.binding import bind

LIVE: Final = "live"
"""Health name that is SERVING from the first moment of the process until it drains: for liveness probes, which must
not end a process that waits for what it depends on."""

_log: Any = structlog.get_logger("syftmesh.health")


@asynccontextmanager
async def health_port(address: str) -> AsyncIterator[health.aio.HealthServicer]:
    """Serve ``grpc.health`` and nothing else at `address` inside the block; give the servicer to the host.

    Args:
        address: ``host:port``; empty opens no port and gives the servicer alone.

    Raises:
        Unavailable: The address cannot be bound (PORT_IN_USE).
    """
    servicer = health.aio.HealthServicer()
    await servicer.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    if not address:
        yield servicer
        return
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    bound = bind(server, address)
    await server.start()
    _log.info("health.started", address=bound)
    try:
        yield servicer
    finally:
        await server.stop(0)
