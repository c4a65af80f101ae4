"""One's own site on this machine, by the local sockets of its programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.agent.v1 import agent_service_pb2 as agent_pb
from mesh.rds.v1 import rds_service_pb2 as pb
from syftmesh_client.node import Node
from syftmesh_client.site import SiteFolders

from syftmesh.dataset import AsyncDatasets
from syftmesh.site_audit import AsyncAudit
from syftmesh.site_dataset import AsyncSiteDatasets
from syftmesh.site_job import AsyncSiteJobs
from syftmesh.site_run import AsyncSiteRuns
from syftmesh.site_socket import TIMEOUT_S, SiteSockets

_PROBE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """What a site's agent says.

    Attributes:
        site: E-mail of the owner.
        device_id: The agent's device.
        connected: Whether it takes calls.
        version: The agent's version.
        bytes_sent: Bytes that the agent has sent since the site was made, by kind.
    """

    site: str
    device_id: str
    connected: bool
    version: str
    bytes_sent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IsolationCheck:
    """One thing that the probe tried, whether isolation held, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Whether the site's executor isolates: it passed when every check did."""

    passed: bool
    executor: str
    checks: tuple[IsolationCheck, ...]


class AsyncSite:
    """The owner's side: datasets, review, release, audit.

    Attributes:
        datasets: Registers and removes datasets.
        jobs: The queue of jobs and the decisions about them.
        fl: Federated runs that were proposed, and the decisions about them.
        audit: The site's audit chain.
    """

    def __init__(self, node: Node, state: Path, datasets: AsyncDatasets) -> None:
        self._sockets = SiteSockets(SiteFolders.of(state, node.principal), node.principal)
        self.datasets = AsyncSiteDatasets(node, self._sockets, datasets)
        self.jobs = AsyncSiteJobs(node, self._sockets)
        self.fl = AsyncSiteRuns(node, self._sockets)
        self.audit = AsyncAudit(self._sockets)

    async def status(self) -> SiteStatus:
        """Return what the agent says.

        Raises:
            NotFound: SITE_NOT_RUNNING.
            Unavailable: It is starting, or ended just now.
        """
        found = await self._sockets.agent.GetStatus(agent_pb.GetStatusRequest(), timeout=TIMEOUT_S)
        return SiteStatus(found.site, found.device_id, found.connected, found.version, dict(found.bytes_sent))

    async def probe(self) -> ProbeReport:
        """Try to break out of the sandbox now, and return what was seen.

        Raises:
            NotFound: SITE_NOT_RUNNING.
            Unavailable: SANDBOX_MISSING.
        """
        found = await self._sockets.jobs.ProbeIsolation(pb.ProbeIsolationRequest(), timeout=_PROBE_S)
        checks = tuple(IsolationCheck(c.name, c.passed, c.detail) for c in found.checks)
        return ProbeReport(found.passed, found.executor, checks)

    async def traffic(self) -> dict[str, int]:
        """Return the bytes that agent and runner have sent since the site was made, by kind.

        Raises:
            NotFound: SITE_NOT_RUNNING.
        """
        agent = (await self.status()).bytes_sent
        answer = await self._sockets.audit.GetTraffic(pb.GetTrafficRequest(), timeout=TIMEOUT_S)
        runner = dict(answer.bytes_sent)
        return {kind: agent.get(kind, 0) + runner.get(kind, 0) for kind in sorted({*agent, *runner})}

    async def close(self) -> None:
        """Close the connections to the site's programs."""
        await self._sockets.close()
