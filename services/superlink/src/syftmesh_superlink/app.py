"""Composition of the superlink service."""

from __future__ import annotations

import asyncio

import grpc
from mesh.federated.v1 import federated_service_pb2_grpc as grpc_api
from syftmesh_core.clock import Clock
from syftmesh_kit.bus import Bus

from syftmesh_superlink.servicer import SERVICE, FederationServicer
from syftmesh_superlink.settings import SuperlinkSettings


class SuperlinkModule:
    """The superlink service as a `syftmesh_kit.server.ServiceModule`; made by `build`."""

    public_methods: frozenset[str] = frozenset()

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "superlink"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        grpc_api.add_FederationServiceServicer_to_server(FederationServicer(), server)
        return (SERVICE,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Do nothing: the service has no work of its own yet."""

    async def ready(self) -> None:
        """Return when the bus is connected: tokens cannot be verified without it.

        Raises:
            Unavailable: It is not (BUS_UNREACHABLE).
        """
        await self._bus.wait_connected(0.5)

    async def drain(self) -> None:
        """Do nothing: there is nothing to finish."""


async def build(settings: SuperlinkSettings, *, bus: Bus, clock: Clock) -> SuperlinkModule:  # noqa: ARG001 - as all
    """Return the service."""
    return SuperlinkModule(bus)
