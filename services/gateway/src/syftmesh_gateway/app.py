"""Composition of the gateway: the only place that builds its adapters."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import grpc
import httpx
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import Unavailable
from syftmesh_kit.http_server import HttpServer
from syftmesh_kit.store_trust import store_context
from syftmesh_kit.tls import follow

from syftmesh_gateway.adapters.backend import Backends
from syftmesh_gateway.adapters.flower_proxy import FlowerProxy
from syftmesh_gateway.adapters.forwarder import Forwarder, ForwardServer
from syftmesh_gateway.adapters.object_proxy import ObjectProxy
from syftmesh_gateway.adapters.probe import Probe
from syftmesh_gateway.domain.host import host_rule
from syftmesh_gateway.domain.status import Addresses
from syftmesh_gateway.servicer import Edge, build_app
from syftmesh_gateway.settings import GatewaySettings


class GatewayModule:
    """The gateway as a `syftmesh_kit.server.ServiceModule`; made by `build`.

    It brings ports of its own and nothing to the host's gRPC server.
    """

    public_methods: frozenset[str] = frozenset()

    def __init__(
        self, settings: GatewaySettings, clock: Clock, random: Random, registry: CollectorRegistry
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._registry = registry
        self._http = HttpServer(settings.http_host, settings.http_port, settings.drain_s)
        self._client: httpx.AsyncClient | None = None
        self._forward: ForwardServer | None = None
        self._tls = settings.tls.client_context() if settings.tls is not None else None
        self._backends = Backends(settings.backends, settings.tls, clock)
        self._flower = FlowerProxy(settings.superlink_http, self._tls) if settings.superlink_http else None

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "gateway"

    @property
    def http_port(self) -> int:
        """Return the HTTP port that was bound, 0 before `start`."""
        return self._http.port

    @property
    def forward_port(self) -> int:
        """Return the port of the forwarder, 0 without one."""
        return self._forward.port if self._forward is not None else 0

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:  # noqa: ARG002 - the host's signature
        """Add nothing: the gateway has no gRPC service of its own."""
        return ()

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Bind the ports and take requests.

        Raises:
            Unavailable: A port is in use (PORT_IN_USE).
            InvalidInput: The file of the store's authorities is damaged (TLS_FILES_INVALID).
        """
        settings = self._settings
        port = self._http.bind()
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._client = httpx.AsyncClient(
            timeout=settings.object_timeout_s,
            limits=limits,
            trust_env=False,
            verify=store_context(settings.s3_ca_file),
        )
        objects = ObjectProxy(settings.s3_endpoint, settings.s3_signing_host, self._client)
        probe = Probe(self._backends, objects.is_ready, self._clock)
        edge = Edge(
            addresses=self._addresses(),
            probe=probe,
            objects=objects,
            hosts=host_rule(port, settings.allowed_hosts),
            registry=self._registry,
            clock=self._clock,
            random=self._random,
            max_object_bytes=settings.max_object_bytes,
            flower=self._flower,
        )
        if settings.forward_listen:
            self._forward = ForwardServer(Forwarder(self._backends), settings.forward_listen)
            await self._forward.start()
        if settings.tls is not None and self._tls is not None:
            tasks.create_task(follow(settings.tls, [self._tls]))
        await self._http.start(build_app(edge), tasks)

    async def ready(self) -> None:
        """Return when requests are taken; ``/healthz`` says how those behind it are.

        Raises:
            Unavailable: They are not (STARTING).
        """
        if not self._http.is_serving:
            raise Unavailable("The HTTP port does not take requests.", reason="STARTING")

    async def drain(self) -> None:
        """Take nothing new and let open requests and calls finish."""
        await self._http.stop()
        if self._forward is not None:
            await self._forward.stop(self._settings.drain_s)
        await self._backends.close()
        if self._client is not None:
            await self._client.aclose()
        if self._flower is not None:
            await self._flower.close()

    def _addresses(self) -> Addresses:
        settings = self._settings
        return Addresses(
            issuer=settings.issuer,
            grpc=settings.advertised_grpc,
            grpc_tls=settings.advertised_grpc_tls,
            flower=settings.advertised_flower or None,
            version=version("syftmesh-gateway"),
        )


async def build(
    settings: GatewaySettings,
    *,
    clock: Clock,
    random: Random = system_random,
    registry: CollectorRegistry | None = None,
) -> GatewayModule:
    """Return the gateway; its ports are bound when it is started.

    Args:
        settings: Settings.
        clock: Time.
        random: Source of error ids.
        registry: Metrics shown at ``/metrics``; those of all services that share the process.

    Raises:
        InvalidInput: The TLS files are damaged (TLS_FILES_INVALID).
    """
    return GatewayModule(settings, clock, random, registry or CollectorRegistry())
