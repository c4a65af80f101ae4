"""Executors on a cluster for tests: their namespace, and waiting for what takes as long as a cluster needs."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from syftmesh_executor import EndReason, Executor, RunOutcome
from syftmesh_executor.kubernetes import KubernetesExecutor
from syftmesh_executor.kubernetes.manifest import site_selector
from syftmesh_executor.kubernetes.run import ClusterRun

CLUSTER_S = 30.0
SITE = "olga@contract.example"
IMAGE = os.environ.get("SYFTMESH_JOB_IMAGE", "syftmesh/job:dev")
_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""


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


@contextmanager
def namespace(*, policy: bool = True) -> Iterator[str]:
    """A namespace as the chart of a site makes it, without its network policy if so asked; skips without a cluster."""
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        pytest.skip("no cluster: KUBECONFIG is not set, or there is no kubectl")
    name = f"execjobs-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        if policy:
            kubectl("apply", "-n", name, "-f", "-", text=_POLICY)
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Run kubectl and return what it prints."""
    return subprocess.run(
        ["kubectl", *arguments], input=text, text=True, check=True, capture_output=True
    ).stdout


def on_cluster(executor: Executor) -> bool:
    """Whether runs are pods of a cluster."""
    return hasattr(executor, "jobs")


def on_gvisor(executor: Any) -> bool:
    """Whether the kernel below the code is gVisor's."""
    return on_cluster(executor) and executor._settings.runtime_class == "gvisor"


async def until_up(executor: Any, run_id: str = "run-1", settle_s: float = 1.0) -> None:
    """Wait until the code of a run is running."""
    if on_cluster(executor):
        async with asyncio.timeout(CLUSTER_S):
            while run_id not in getattr(executor, "runs", {}):
                await asyncio.sleep(0.05)
            await executor.runs[run_id].staged.wait()
        settle_s += 1.5
    await asyncio.sleep(settle_s)
