"""The executors that the contract is held against; those of a cluster where there is one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from syftmesh_executor import Executor, ProcessExecutor, SandboxExecutor
from syftmesh_executor.kubernetes import ClusterSettings
from syftmesh_executor.port import ProbeReport

sys.path.insert(0, str(Path(__file__).parent))

from executor_cluster import IMAGE, SITE, ClusterExecutor, namespace

_KINDS: dict[str, dict[str, Any]] = {
    "kubernetes": {},
    "gvisor": {"runtime_class": "gvisor", "host_users": None},
}


@pytest.fixture(scope="session")
def jobs_namespace() -> Iterator[str]:
    """Where the Jobs of these tests are."""
    with namespace() as name:
        yield name


@pytest.fixture(scope="session")
def probed() -> set[str]:
    """The kinds of executor whose probe passed once; in each test it would take longer than the test."""
    return set()


@pytest.fixture(params=["sandbox", "process", *_KINDS])
async def executor(request: pytest.FixtureRequest, probed: set[str]) -> AsyncIterator[Executor]:
    if request.param in _KINDS:
        made: Executor = await _on_cluster(request, probed)
    elif request.param == "process":
        made = ProcessExecutor()
    else:
        made = SandboxExecutor()
        report = await made.probe()
        assert report.passed, report.failures
    yield made
    await made.close()


async def _on_cluster(request: pytest.FixtureRequest, probed: set[str]) -> ClusterExecutor:
    namespace = request.getfixturevalue("jobs_namespace")
    made = ClusterExecutor(ClusterSettings(namespace, IMAGE, SITE, **_KINDS[request.param]))
    await made.find(())
    if request.param not in probed:
        report = await made.probe()
        assert report.passed, report.failures
        probed.add(request.param)
    made._proof.take(ProbeReport(passed=True, checks=()))
    return made
