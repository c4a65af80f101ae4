"""The executors that the contract is held against; those of a cluster where there is one."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from syftmesh_executor import EndReason, Executor, ProcessExecutor, RunOutcome, SandboxExecutor
from syftmesh_executor.kubernetes import ClusterSettings, KubernetesExecutor
from syftmesh_executor.kubernetes.manifest import site_selector
from syftmesh_executor.kubernetes.run import ClusterRun

SITE = "olga@contract.example"
IMAGE = os.environ.get("SYFTMESH_JOB_IMAGE", "syftmesh/job:dev")
_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""
_KINDS: dict[str, dict[str, Any]] = {
    "kubernetes": {},
    "gvisor": {"runtime_class": "gvisor", "host_users": None},
}


class ClusterExecutor(KubernetesExecutor):
    """The executor, whose runs a test can look at."""

    runs: dict[str, ClusterRun]

    async def _supervise(self, run: ClusterRun, ending: asyncio.Future[EndReason]) -> RunOutcome:
        self.runs = {**getattr(self, "runs", {}), run.spec.run_id: run}
        return await super()._supervise(run, ending)

    async def jobs(self) -> list[dict[str, Any]]:
        """Return what lies on the cluster."""
        api = await self._cluster()
        return await self._call(lambda: api.list_jobs(site_selector(SITE)))


@pytest.fixture(scope="session")
def jobs_namespace() -> Iterator[str]:
    """A namespace as the chart of a site makes it; skips without a cluster."""
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        pytest.skip("no cluster: KUBECONFIG is not set, or there is no kubectl")
    name = f"execjobs-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("apply", "-n", name, "-f", "-", text=_POLICY)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


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
    made._probe_passed_s = made._clock.monotonic_s()
    return made


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Run kubectl and return what it prints."""
    return subprocess.run(
        ["kubectl", *arguments], input=text, text=True, check=True, capture_output=True
    ).stdout
