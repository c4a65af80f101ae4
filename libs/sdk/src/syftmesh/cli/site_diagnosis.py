"""The checks of doctor at a site in a pod: what agent and runner say on the sockets that they share with the owner."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from mesh.agent.v1 import agent_service_pb2 as agent_pb
from mesh.agent.v1 import agent_service_pb2_grpc as agent_api
from mesh.rds.v1 import rds_service_pb2 as pb
from mesh.rds.v1 import rds_service_pb2_grpc as api
from syftmesh_core.errors import MeshError
from syftmesh_kit.channel import open_channel

from syftmesh.cli.diagnosis import Finding, Status

RIGHTS_MISSING: Final = "CLUSTER_RIGHTS_MISSING"
"""Reason of a runner that the cluster's API refuses."""

_ANSWER_S: Final = 10.0
_PROBE_S: Final = 180.0
_KUBERNETES: Final = "kubernetes"


def pod_findings(agent: Path, runner: Path, pod: str) -> list[Finding]:
    """Look at agent and runner.

    Args:
        agent: Socket of the agent.
        runner: Socket of the runner.
        pod: Name of the pod, for the commands that show more.
    """
    return asyncio.run(_findings(agent, runner, f"kubectl logs {pod} -c {{}} --tail=20"))


async def _findings(agent: Path, runner: Path, logs: str) -> list[Finding]:
    found = [await _agent(agent, logs.format("agent"))]
    channel = open_channel(f"unix:{runner}")
    try:
        alive = await _runner(channel, logs.format("runner"))
        found.append(alive)
        if alive.status is Status.OK:
            found += await _isolation(channel, logs.format("runner"))
    finally:
        await channel.close()
    return found


async def _agent(place: Path, logs: str) -> Finding:
    channel = open_channel(f"unix:{place}")
    try:
        stub: Any = agent_api.AgentServiceStub(channel)
        said = await stub.GetStatus(agent_pb.GetStatusRequest(), timeout=_ANSWER_S)
    except MeshError as error:
        return Finding("agent", Status.FAIL, f"It does not answer: {error.message}", logs)
    finally:
        await channel.close()
    if not said.connected:
        return Finding("agent", Status.FAIL, "It is not connected to the hub.", logs)
    return Finding("agent", Status.OK, f"connected to the hub as {said.site}")


async def _runner(channel: Any, logs: str) -> Finding:
    stub: Any = api.AuditServiceStub(channel)
    try:
        await stub.GetTraffic(pb.GetTrafficRequest(), timeout=_ANSWER_S)
    except MeshError as error:
        return Finding("runner", Status.FAIL, f"It does not answer: {error.message}", logs)
    return Finding("runner", Status.OK, "answers")


async def _isolation(channel: Any, logs: str) -> list[Finding]:
    """Let the runner try to break out of a run now; at a cluster that is a Job of the jobs namespace."""
    stub: Any = api.JobServiceStub(channel)
    try:
        report = await stub.ProbeIsolation(pb.ProbeIsolationRequest(), timeout=_PROBE_S)
    except MeshError as error:
        if error.reason == RIGHTS_MISSING:
            return [Finding("rights", Status.FAIL, error.message, error.hint or logs)]
        return [Finding("isolation", Status.FAIL, error.message, error.hint or logs)]
    found = []
    if report.executor.startswith(_KUBERNETES):
        found.append(Finding("rights", Status.OK, "the runner made a Job, read it and removed it"))
    failed = [f"{check.name} ({check.detail})" for check in report.checks if not check.passed]
    if failed or not report.passed:
        detail = f"{report.executor} does not hold: {', '.join(failed) or 'no check was made'}"
        return [*found, Finding("isolation", Status.FAIL, detail, logs)]
    held = f"{report.executor} holds, {len(report.checks)} checks"
    return [*found, Finding("isolation", Status.OK, held)]
