"""Runs a site's agent as a process of its own."""

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

from syftmesh_agent.app import build, listen_address
from syftmesh_agent.settings import AgentSettings


def main() -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    sys.exit(run_service(serve))


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
        NotFound: There is no key store (KEYSTORE_MISSING).
        Unauthenticated: The site is not logged in, or not any more.
        Unavailable: The socket is in use (PORT_IN_USE).
    """
    settings = load_settings(AgentSettings)
    configure_telemetry("agent", json_lines=settings.log_json, level=settings.log_level)
    module = await build(settings, clock=SystemClock())
    interceptor = ServerInterceptor(
        verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
    )
    async with health_port(settings.health_listen) as health:
        host = ServiceHost(
            [module],
            interceptor=interceptor,
            address=listen_address(settings),
            drain_s=settings.drain_s,
            health=health,
        )
        await host.run(stop)


if __name__ == "__main__":
    main()
