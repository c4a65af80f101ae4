"""Runs the sync service as a process of its own."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_kit.bus import Bus
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.journal import JournalMetrics
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.run import run_service
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.settings import load_settings
from syftmesh_kit.telemetry import configure_telemetry
from syftmesh_kit.token import TokenVerifier

from syftmesh_sync.app import build
from syftmesh_sync.settings import SyncSettings


def main() -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    sys.exit(run_service(serve))


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
        Unavailable: The bus cannot be reached, or the address is in use.
    """
    settings = load_settings(SyncSettings)
    configure_telemetry("sync", json_lines=settings.log_json, level=settings.log_level)
    clock, registry = SystemClock(), CollectorRegistry()
    bus = await Bus.connect(
        settings.nats_url,
        name="sync",
        user=settings.nats_user or None,
        password=settings.nats_password.get_secret_value() or None,
    )
    try:
        config = S3Config(
            settings.s3_endpoint,
            settings.s3_access_key.get_secret_value(),
            settings.s3_secret_key.get_secret_value(),
            bucket=settings.s3_bucket,
            region=settings.s3_region,
            signing_host=settings.s3_signing_host,
            url_base=settings.s3_url_base,
        )
        module = await build(
            settings,
            bus=bus,
            object_store=S3ObjectStore(config, clock=clock),
            clock=clock,
            journal_metrics=JournalMetrics(registry),
        )
        keys = KeySetWatcher(bus)
        verifier = TokenVerifier(keys, settings.issuer, clock)
        keys.on_retired(verifier.forget_key)
        revocations = RevocationWatcher(bus, verifier)
        interceptor = ServerInterceptor(
            verifier=verifier, metrics=RpcMetrics(registry), public_methods=module.public_methods
        )
        host = ServiceHost(
            [module], interceptor=interceptor, address=settings.listen, drain_s=settings.drain_s
        )
        bus.on_state(lambda _connected: host.check_now())
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(keys.run()), tasks.create_task(revocations.run())]
            await host.run(stop)
            for task in following:
                task.cancel()
    finally:
        await bus.close()


if __name__ == "__main__":
    main()
