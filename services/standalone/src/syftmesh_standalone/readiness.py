"""Waiting until servers are ready, in this process and in others."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from syftmesh_core.errors import Unavailable
from syftmesh_kit.address import grpc_target
from syftmesh_kit.server import ServiceHost

_POLL_S: Final = 0.05
_ASK_S: Final = 1.0
_PAUSE_S: Final = 0.1


async def host_ready(host: ServiceHost) -> None:
    """Return when every module of a host of this process is ready, asking more often than its own watch."""
    while not host.is_ready:
        host.check_now()
        await asyncio.sleep(_POLL_S)


async def hub_ready(host: ServiceHost, timeout_s: float) -> None:
    """Return when the hub is ready.

    Raises:
        Unavailable: START_TIMEOUT.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await host_ready(host)
    except TimeoutError:
        raise Unavailable(
            f"The hub did not become ready within {timeout_s:.0f} s; mesh.log in the state's hub folder says what "
            f"it waited for.",
            reason="START_TIMEOUT",
            metadata={"timeout_s": f"{timeout_s:.0f}"},
            hint="Try again; syftmesh doctor looks at the machine.",
        ) from None


async def is_serving(address: str) -> bool:
    """Return whether the server at an address says by gRPC health that it serves.

    After a no it pauses, because whoever asks asks again.
    """
    # A name resolver and a connection of its own each time: a kept one would wait out its back-off.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(grpc_target(address), options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_ASK_S
            )
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return True
        except grpc.aio.AioRpcError:
            pass
    await asyncio.sleep(_PAUSE_S)
    return False
