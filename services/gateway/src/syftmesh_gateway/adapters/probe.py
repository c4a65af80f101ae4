"""Asks what the gateway depends on whether it is ready; an answer is kept for a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from syftmesh_core.clock import Clock

from syftmesh_gateway.adapters.backend import Backends
from syftmesh_gateway.domain.status import Health

SERVICES: Final = {
    "identity": "mesh.identity.v1.IdentityService",
    "sync": "mesh.sync.v1.SyncService",
    "permissions": "mesh.permissions.v1.PermissionService",
    "crypto": "mesh.crypto.v1.KeyDirectoryService",
    "rpc": "mesh.rpc.v1.RpcService",
    "federated": "mesh.federated.v1.FederationService",
}
"""Health name of each domain's service."""

_KEPT_S: Final = 1.0
_TIMEOUT_S: Final = 2.0

Check = Callable[[], Awaitable[bool]]


class Probe:
    """Knows the state of the gateway's dependencies.

    Args:
        backends: Channels by domain; whoever made them closes them.
        store: Asks the object store.
        clock: Time.
    """

    def __init__(self, backends: Backends, store: Check, clock: Clock) -> None:
        self._backends = backends
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: tuple[float, Health] | None = None

    async def health(self) -> Health:
        """Return the state, at most a second old."""
        async with self._lock:
            now_s = self._clock.monotonic_s()
            if self._known is None or now_s - self._known[0] >= _KEPT_S:
                self._known = (now_s, await self._ask())
            return self._known[1]

    async def _ask(self) -> Health:
        names = [*self._backends.domains, "object store"]
        checks = [self._serves(domain) for domain in self._backends.domains]
        results = await asyncio.gather(*checks, self._store())
        return Health(dict(zip(names, results, strict=True)))

    async def _serves(self, domain: str) -> bool:
        stub = health_pb2_grpc.HealthStub(self._backends.channel(domain))
        request = health_pb2.HealthCheckRequest(service=SERVICES.get(domain, ""))
        try:
            answer = await stub.Check(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
