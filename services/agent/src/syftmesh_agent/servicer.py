"""`mesh.agent.v1.AgentService`: the local API of a site's agent."""

# ruff: noqa: N802, ARG002 - names and arguments are those of gRPC

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mesh.agent.v1 import agent_service_pb2 as pb
from mesh.agent.v1 import agent_service_pb2_grpc as grpc_api

from syftmesh_agent.domain.status import AgentStatus

SERVICE: Final = "mesh.agent.v1.AgentService"
PUBLIC_METHODS: Final = frozenset({f"/{SERVICE}/GetStatus"})
"""Needs no token: who can open the socket (0600) is the owner of the site."""


class AgentServicer(grpc_api.AgentServiceServicer):
    """The agent's API.

    Args:
        status: Tells the state now; raises Unavailable while the agent is starting.
        version: Version of the agent.
    """

    def __init__(self, status: Callable[[], AgentStatus], version: str) -> None:
        self._status = status
        self._version = version

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """Tell what the agent does now."""
        status = self._status()
        return pb.GetStatusResponse(
            site=status.site,
            device_id=status.device_id,
            connected=status.is_connected,
            version=self._version,
            bytes_sent=dict(status.bytes_sent),
        )
