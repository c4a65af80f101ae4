"""Channels to the local sockets of a site's programs; who may open them is the owner on this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from mesh.agent.v1 import agent_service_pb2_grpc as agent_api
from mesh.federated.v1 import site_service_pb2_grpc as run_api
from mesh.rds.v1 import rds_service_pb2_grpc as api
from syftmesh_client.site import SiteFolders
from syftmesh_core.errors import NotFound
from syftmesh_kit.address import socket_path
from syftmesh_kit.channel import open_channel

if TYPE_CHECKING:
    from mesh.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from mesh.federated.v1.site_service_pb2_grpc import SiteRunServiceAsyncStub
    from mesh.rds.v1.rds_service_pb2_grpc import (
        AuditServiceAsyncStub,
        DatasetServiceAsyncStub,
        JobServiceAsyncStub,
    )

SOCKETS_VARIABLE: Final = "SYFTMESH_SITE_SOCKETS"
"""Names the folder of a site's sockets where they do not lie with its programs' state, as in a pod."""
AGENT_SOCKET: Final = "agent.sock"
RUNNER_SOCKET: Final = "runner.sock"
TIMEOUT_S: Final = 15.0
"""How long a site's program is waited for, in seconds, where the work is short."""


class SiteSockets:
    """Channels to the programs of a site, opened when they are needed first.

    Args:
        folders: Where the programs keep their state.
        email: The site.
    """

    def __init__(self, folders: SiteFolders, email: str) -> None:
        self._folders = folders
        self._email = email
        named = os.environ.get(SOCKETS_VARIABLE)
        self._shared = Path(named) if named else None
        self._channels: dict[Path, grpc.aio.Channel] = {}

    @property
    def datasets(self) -> DatasetServiceAsyncStub:
        """The runner's datasets; raises NotFound (SITE_NOT_RUNNING)."""
        return api.DatasetServiceStub(self._runner())

    @property
    def jobs(self) -> JobServiceAsyncStub:
        """The runner's jobs; raises NotFound (SITE_NOT_RUNNING)."""
        return api.JobServiceStub(self._runner())

    @property
    def audit(self) -> AuditServiceAsyncStub:
        """The runner's audit; raises NotFound (SITE_NOT_RUNNING)."""
        return api.AuditServiceStub(self._runner())

    @property
    def runs(self) -> SiteRunServiceAsyncStub:
        """The runner's proposals of federated runs; raises NotFound (SITE_NOT_RUNNING)."""
        return run_api.SiteRunServiceStub(self._runner())

    @property
    def agent(self) -> AgentServiceAsyncStub:
        """The agent; raises NotFound (SITE_NOT_RUNNING)."""
        channel = self._channel((self._shared or self._folders.agent) / AGENT_SOCKET)
        return agent_api.AgentServiceStub(channel)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    def _runner(self) -> grpc.aio.Channel:
        return self._channel((self._shared or self._folders.runner) / RUNNER_SOCKET)

    def _channel(self, path: Path) -> grpc.aio.Channel:
        try:
            there = stat.S_ISSOCK(socket_path(path).lstat().st_mode)
        except OSError:
            there = False
        if not there:
            raise NotFound(
                f"The site {self._email} does not run on this machine.",
                reason="SITE_NOT_RUNNING",
                metadata={"site": self._email},
                hint="syftmesh doctor" if self._shared else f"syftmesh up --sites {self._email}",
            )
        if path not in self._channels:
            self._channels[path] = open_channel(f"unix:{path}")
        return self._channels[path]
