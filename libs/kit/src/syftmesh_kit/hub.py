"""The frame of every hub service that runs as a process of its own: bus, token checks, one server, drain."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc_health.v1 import health as grpc_health
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, SystemClock
from syftmesh_core.ending import EndingGroup
from syftmesh_core.errors import Unavailable

from syftmesh_kit.bus import Bus
from syftmesh_kit.caller import Caller
from syftmesh_kit.health import health_port
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.server import ServiceHost, ServiceModule
from syftmesh_kit.settings import ServiceSettings
from syftmesh_kit.telemetry import configure_telemetry
from syftmesh_kit.tls import follow
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

    While the bus is waited for, the health port says NOT_SERVING and the log says why.

    Args:
        name: The service's name, at the bus and in the logs.
        settings: Its settings.
        stop: Set by the signals of `run_service`.
        build: Makes the module.

    Raises:
        InvalidInput: The TLS files are damaged (TLS_FILES_INVALID).
        Unavailable: The bus cannot be reached within `ServiceSettings.nats_wait_s`, or gave the connection up
            (BUS_LOST), or the address is in use.
    """
    configure_telemetry(name, json_lines=settings.log_json, level=settings.log_level)
    tls = settings.tls.client_context() if settings.tls is not None else None
    async with health_port(settings.health_listen) as health:
        bus = await _connected(name, settings, tls, stop)
        if bus is None:
            return
        bus.replicas = settings.nats_replicas
        try:
            await _serve(bus, settings, stop, build, health, tls)
        finally:
            await bus.close()


async def _serve(
    bus: Bus,
    settings: ServiceSettings,
    stop: asyncio.Event,
    build: Callable[[HubParts], Awaitable[HubModule]],
    health: grpc_health.aio.HealthServicer,
    tls: ssl.SSLContext | None,
) -> None:
    clock, registry = SystemClock(), CollectorRegistry()
    module = await build(HubParts(bus, clock, registry))
    trust = _Trust(bus, settings.issuer, clock)
    interceptor = ServerInterceptor(
        verifier=trust.verifier,
        metrics=RpcMetrics(registry),
        public_methods=module.public_methods,
        peers=settings.tls_peers,
    )
    host = ServiceHost(
        [trust, module],
        interceptor=interceptor,
        address=settings.listen,
        credentials=settings.tls.server_credentials() if settings.tls is not None else None,
        drain_s=settings.drain_s,
        health=health,
    )
    bus.on_state(lambda _connected: host.check_now())
    async with EndingGroup() as tasks:
        tasks.create_task(_end_when_lost(bus))
        if settings.tls is not None and tls is not None:
            tasks.create_task(follow(settings.tls, [tls]))
        await host.run(stop)
        tasks.end()


class _Trust:
    """Keys and revocations as a module of the host: it is not ready, and no token is judged, before both are read.

    A token would else be called wrong by a service that has just started, or a revoked one right.
    """

    def __init__(self, bus: Bus, issuer: str, clock: Clock) -> None:
        self._keys = KeySetWatcher(bus)
        self.verifier = _PatientVerifier(self._keys, issuer, clock)
        self._keys.on_retired(self.verifier.forget_key)
        self._revocations = RevocationWatcher(bus, self.verifier)

    @property
    def name(self) -> str:
        return "trust"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:  # noqa: ARG002 - the host's signature
        return ()

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self._keys.run())
        tasks.create_task(self._revocations.run())

    async def ready(self) -> None:
        await self._keys.ready()
        await self._revocations.ready()
        self.verifier.is_ready = True

    async def drain(self) -> None:
        pass


class _PatientVerifier(TokenVerifier):
    """Judges no token before keys and revocations are known; clients try again."""

    is_ready = False

    def verify(self, token: str, audience: str) -> Caller:
        if not self.is_ready:
            raise Unavailable("The keys of tokens have not been read yet.", reason="KEY_SET_PENDING")
        return super().verify(token, audience)


async def _connected(
    name: str, settings: ServiceSettings, tls: ssl.SSLContext | None, stop: asyncio.Event
) -> Bus | None:
    """Return the bus, or None when the process is to end while it is waited for."""
    connecting = asyncio.ensure_future(
        Bus.connect(
            settings.nats_url,
            name=name,
            user=settings.nats_user or None,
            password=settings.nats_password.get_secret_value() or None,
            tls=tls if settings.nats_url.startswith("tls://") else None,
            connect_timeout_s=settings.nats_wait_s,
        )
    )
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await connecting if connecting.done() else None
    finally:
        connecting.cancel()
        stopping.cancel()
        await asyncio.gather(connecting, stopping, return_exceptions=True)


async def _end_when_lost(bus: Bus) -> None:
    await bus.lost()
    raise Unavailable(
        "The message bus has ended the connection of this service for good. Start the service again, and check "
        "its user at the bus.",
        reason="BUS_LOST",
    )
