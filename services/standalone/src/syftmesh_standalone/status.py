"""How a mesh stands, seen from beside it, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from mesh.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from syftmesh_client.profile import HUB_FOLDER
from syftmesh_client.site import SiteFolders
from syftmesh_core.errors import DeadlineExceeded, MeshError, PermissionDenied, Unavailable
from syftmesh_kit.channel import open_channel

from syftmesh_standalone.info import MeshInfo, read_info
from syftmesh_standalone.options import AGENT_SOCKET, RUNNER_SOCKET
from syftmesh_standalone.readiness import is_serving
from syftmesh_standalone.state_lock import holder

STOP_S: Final = 10.0
_ASK_S: Final = 3.0
_POLL_S: Final = 0.05
_SERVING: Final = "serving"
_DOWN: Final = "down"


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """How a site stands.

    Attributes:
        site: Whose.
        agent: ``connected``, ``disconnected`` (it runs and does not reach the hub) or ``down``.
        runner: ``serving`` or ``down``.
        version: Version of the agent, empty when it is down.
    """

    site: str
    agent: str
    runner: str
    version: str

    @property
    def is_ok(self) -> bool:
        """Return whether calls reach the site and its owner reaches the runner."""
        return self.agent == "connected" and self.runner == _SERVING

    def document(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {"site": self.site, "agent": self.agent, "runner": self.runner, "version": self.version}


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """How a mesh stands.

    Attributes:
        info: What it says of itself.
        services: State by service, as the gateway sees it; without an entry but ``gateway`` when it is down.
        sites: Its sites.
    """

    info: MeshInfo
    services: dict[str, str]
    sites: tuple[SiteStatus, ...]

    @property
    def is_ok(self) -> bool:
        """Return whether everything does its work."""
        return all(state == _SERVING for state in self.services.values()) and all(s.is_ok for s in self.sites)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        sites = [site.document() for site in self.sites]
        return {
            "running": True,
            "ok": self.is_ok,
            **self.info.document(),
            "services": self.services,
            "sites": sites,
        }


async def mesh_status(state: Path) -> MeshStatus:
    """Return how the mesh on `state` stands.

    Raises:
        Unavailable: MESH_DOWN when none runs; MESH_STARTING when it is not ready for the first time yet.
    """
    hub = state / HUB_FOLDER
    pid = await asyncio.to_thread(holder, hub)
    if pid is None:
        raise Unavailable(
            "No mesh runs on this state.",
            reason="MESH_DOWN",
            hint="syftmesh up (--state DIR for another state)",
        )
    info = read_info(hub)
    if info is None or info.pid != pid:
        raise Unavailable(
            f"A mesh starts or stops on this state, as process {pid}.",
            reason="MESH_STARTING",
            metadata={"pid": str(pid)},
            hint="Ask again in some seconds.",
        )
    async with asyncio.TaskGroup() as tasks:
        services = tasks.create_task(_services(info.server))
        sites = [tasks.create_task(_site(state, email)) for email in info.sites]
    return MeshStatus(info, services.result(), tuple(site.result() for site in sites))


def stop_mesh(state: Path, *, timeout_s: float = STOP_S) -> int | None:
    """End the mesh on `state` and return its process id, or None when nothing ran.

    Args:
        state: The state folder.
        timeout_s: How long to wait for its end.

    Raises:
        DeadlineExceeded: STOP_TIMEOUT, metadata ``pid``.
        PermissionDenied: PROCESS_FOREIGN: it is another user's.
    """
    hub = state / HUB_FOLDER
    pid = holder(hub)
    if pid is None:
        return None
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended this moment
    except PermissionError as error:
        raise PermissionDenied(
            f"The mesh on this state is process {pid} of another user.",
            reason="PROCESS_FOREIGN",
            metadata={"pid": str(pid)},
        ) from error
    deadline = time.monotonic() + timeout_s
    while holder(hub) == pid:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"The mesh (process {pid}) has not ended within {timeout_s:.0f} s.",
                reason="STOP_TIMEOUT",
                metadata={"pid": str(pid)},
                hint=f"kill -9 {pid} ends it and all its children; no acknowledged data is lost.",
            )
        time.sleep(_POLL_S)
    return pid


async def _services(server: str) -> dict[str, str]:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_ASK_S) as client:
            parts = (await client.get(f"{server}/healthz")).json()["parts"]
    except (httpx.HTTPError, ValueError, KeyError):
        return {"gateway": _DOWN}
    return {"gateway": _SERVING, **{str(name): str(found) for name, found in parts.items()}}


async def _site(state: Path, email: str) -> SiteStatus:
    folders = SiteFolders.of(state, email)
    (agent, version), serves = await asyncio.gather(
        _agent(f"unix:{folders.agent / AGENT_SOCKET}"), is_serving(f"unix:{folders.runner / RUNNER_SOCKET}")
    )
    return SiteStatus(email, agent, _SERVING if serves else _DOWN, version)


async def _agent(address: str) -> tuple[str, str]:
    channel = open_channel(address)
    try:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        answer = await stub.GetStatus(agent_service_pb2.GetStatusRequest(), timeout=_ASK_S)
    except MeshError:
        return _DOWN, ""
    finally:
        await channel.close()
    return ("connected" if answer.connected else "disconnected"), answer.version
