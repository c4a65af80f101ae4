"""The frame of every hub service that runs as a process of its own: bus, token checks, one server, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, SystemClock

from syftmesh_kit.bus import Bus
from syftmesh_kit.ending import EndingGroup
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.server import ServiceHost, ServiceModule
from syftmesh_kit.settings import ServiceSettings
from syftmesh_kit.telemetry import configure_telemetry
from syftmesh_kit.token import TokenVerifier


class HubModule(ServiceModule, Protocol):
    """A service that verifies its callers' tokens."""

    @property
    def public_methods(self) -> frozenset[str]:
        """Return the full names of the methods that need no token."""
        ...


@dataclass(frozen=True, slots=True)
class HubParts:
    """What a service is built with.

    Attributes:
        bus: The message bus, connected.
        clock: Time.
        registry: Where the process shows its metrics.
    """

    bus: Bus
    clock: Clock
    registry: CollectorRegistry


async def serve_hub(
    name: str,
    settings: ServiceSettings,
    stop: asyncio.Event,
    build: Callable[[HubParts], Awaitable[HubModule]],
) -> None:
    """Serve the module that `build` makes until `stop` is set, then drain.

    Args:
        name: The service's name, at the bus and in the logs.
        settings: Its settings.
        stop: Set by the signals of `run_service`.
        build: Makes the module.

    Raises:
        Unavailable: The bus cannot be reached, or the address is in use.
    """
    configure_telemetry(name, json_lines=settings.log_json, level=settings.log_level)
    clock, registry = SystemClock(), CollectorRegistry()
    bus = await Bus.connect(
        settings.nats_url,
        name=name,
        user=settings.nats_user or None,
        password=settings.nats_password.get_secret_value() or None,
    )
    try:
        module = await build(HubParts(bus, clock, registry))
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
        async with EndingGroup() as tasks:
            tasks.create_task(keys.run())
            tasks.create_task(revocations.run())
            await host.run(stop)
            tasks.end()
    finally:
        await bus.close()
