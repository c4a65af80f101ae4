"""Runs the runner of a site as a process of its own."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry
from syftmesh_client.node import NodeLogin, open_node
from syftmesh_executor.sandbox import SandboxExecutor
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.run import run_service
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.settings import load_settings
from syftmesh_kit.telemetry import configure_telemetry

from syftmesh_runner.app import build
from syftmesh_runner.settings import RunnerSettings


def main() -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    sys.exit(run_service(serve))


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
        MeshError: Keys, login or hub are missing, or the state folder cannot be used.
    """
    settings = load_settings(RunnerSettings)
    configure_telemetry("runner", json_lines=settings.log_json, level=settings.log_level)
    login = NodeLogin(settings.local_token_file, settings.join_token_file, label="runner")
    folder = settings.keystore_dir or settings.state_dir / "keys"
    async with open_node(folder, settings.server_url, login=login, ca_file=settings.ca_file) as node:
        module = build(settings, node=node, executor=SandboxExecutor())
        try:
            interceptor = ServerInterceptor(
                verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
            )
            host = ServiceHost(
                [module], interceptor=interceptor, address=module.address, drain_s=settings.drain_s
            )
            await host.run(stop)
        finally:
            module.close()


if __name__ == "__main__":
    main()
