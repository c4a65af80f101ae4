"""Runs the runner of a site as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from syftmesh_client.node import Node, NodeLogin, open_node
from syftmesh_core.errors import Unavailable
from syftmesh_kit.health import health_port
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.run import run_service
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.settings import load_settings
from syftmesh_kit.telemetry import configure_telemetry

from syftmesh_runner.app import build, isolation_of
from syftmesh_runner.settings import RunnerSettings

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0

_log: Any = structlog.get_logger("syftmesh.runner")


def main() -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    sys.exit(run_service(serve))


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
        MeshError: Keys or login are missing, the hub does not prove itself, or the state folder cannot be used.
    """
    settings = load_settings(RunnerSettings)
    configure_telemetry("runner", json_lines=settings.log_json, level=settings.log_level)
    async with AsyncExitStack() as stack:
        health = await stack.enter_async_context(health_port(settings.health_listen))
        node = await _connected(settings, stack, stop)
        if node is None:
            return
        executor, runtime = isolation_of(settings, node.keystore.device.principal)
        module = build(settings, node=node, executor=executor, runtime=runtime)
        stack.callback(module.close)
        interceptor = ServerInterceptor(
            verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
        )
        host = ServiceHost(
            [module],
            interceptor=interceptor,
            address=module.address,
            drain_s=settings.drain_s,
            health=health,
        )
        await host.run(stop)


async def _connected(settings: RunnerSettings, stack: AsyncExitStack, stop: asyncio.Event) -> Node | None:
    """Return the runner's device, logged in; a hub that is away is waited for. None when `stop` came first."""
    login = NodeLogin(settings.local_token_file, settings.join_token_file, label="runner")
    folder = settings.keystore_dir or settings.state_dir / "keys"
    pause_s, said = _FIRST_PAUSE_S, ""
    while not stop.is_set():
        try:
            return await stack.enter_async_context(
                open_node(folder, settings.server_url, login=login, ca_file=settings.ca_file)
            )
        except Unavailable as error:
            if error.reason != said:
                _log.warning("runner.waiting", reason=error.reason)
            said = error.reason
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return None


if __name__ == "__main__":
    main()
