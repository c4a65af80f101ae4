"""Runs the gateway as a process of its own."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_kit.health import health_port
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.run import run_service
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.settings import load_settings
from syftmesh_kit.telemetry import configure_telemetry

from syftmesh_gateway.app import build
from syftmesh_gateway.settings import GatewaySettings


def main() -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    sys.exit(run_service(serve))


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set. The gRPC address of the process itself carries health and reflection only.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
        Unavailable: A port is in use (PORT_IN_USE).
    """
    settings = load_settings(GatewaySettings)
    configure_telemetry("gateway", json_lines=settings.log_json, level=settings.log_level)
    registry = CollectorRegistry()
    module = await build(settings, clock=SystemClock(), registry=registry)
    interceptor = ServerInterceptor(verifier=None, metrics=RpcMetrics(registry), peers=settings.tls_peers)
    async with health_port(settings.health_listen) as health:
        host = ServiceHost(
            [module],
            interceptor=interceptor,
            address=settings.listen,
            credentials=settings.tls.server_credentials() if settings.tls is not None else None,
            drain_s=settings.drain_s,
            health=health,
        )
        await host.run(stop)


if __name__ == "__main__":
    main()
