"""The start of a job on a cluster, from the order to the code's first line, against a bare Job of the same image."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from bench.measure import Row, Target, alone, compared, pairs
from syftmesh_executor import EndReason, Limits, RunSpec
from syftmesh_executor.kubernetes import ClusterSettings
from syftmesh_executor.kubernetes.manifest import PYTHON, job_manifest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

_FIRST_LINE = "import time; print(time.time(), flush=True)"


async def job_start(folder: Path, count: int) -> list[Row]:
    """Start an empty program both ways."""
    if not os.environ.get("KUBECONFIG"):
        raise RuntimeError("no cluster: KUBECONFIG is not set")
    from executor_cluster import IMAGE, SITE, ClusterExecutor, namespace

    code, data = folder / "code", folder / "data"
    code.mkdir()
    data.mkdir()
    (code / "main.py").write_text(_FIRST_LINE)
    (data / "table.csv").write_text("a\n1\n")
    whole: list[float] = []
    with namespace() as name:
        executor = ClusterExecutor(ClusterSettings(name, IMAGE, SITE))
        report = await executor.probe()
        if not report.passed:
            raise RuntimeError(f"the cluster does not hold: {report.failures}")

        async def ours() -> float:
            run_id = uuid.uuid4().hex
            began = time.time()
            spec = RunSpec(run_id, code, "main.py", {"people": data}, folder / run_id)
            outcome = await executor.run(spec)
            if outcome.reason is not EndReason.OK:
                raise RuntimeError(f"the run ended with {outcome.reason}: {outcome.detail}")
            whole.append((time.time() - began) * 1000)
            return (float(outcome.stdout) - began) * 1000

        async def bare() -> float:
            manifest = _bare(job_manifest(executor._settings, RunSpec("bare", code, "", {}, folder)))
            return await asyncio.to_thread(_run_bare, manifest)

        try:
            found = await pairs(count, ours, bare)
        finally:
            await executor.close()
    return [
        compared("job start on Kubernetes", "ms", "bare Job", found, Target(1.15)),
        alone("job on Kubernetes, from the order to its checked output", "ms", whole, None),
    ]


def _bare(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the Job with one container, no volumes, and the program as its command."""
    manifest["metadata"]["name"] = f"bare-{secrets.token_hex(6)}"
    manifest["metadata"]["labels"] = {}
    pod = manifest["spec"]["template"]["spec"]
    pod["containers"] = [found for found in pod["containers"] if found["name"] == "job"]
    (job,) = pod["containers"]
    job["command"] = [PYTHON, "-c", _FIRST_LINE]
    del job["volumeMounts"], pod["volumes"]
    manifest["spec"]["activeDeadlineSeconds"] = int(Limits().wall_s)
    return manifest


def _run_bare(manifest: dict[str, Any]) -> float:
    import json

    from executor_cluster import kubectl
    from syftmesh_executor.kubernetes.api import ClusterApi

    where = manifest["metadata"]["namespace"]
    api = ClusterApi(where, os.environ["KUBECONFIG"])
    began = time.time()
    job = api.create_job(manifest)
    while True:
        time.sleep(0.2)
        pods = api.pods_of(job["metadata"]["uid"])
        if pods and pods[0]["status"].get("phase") in ("Succeeded", "Failed"):
            break
    line = kubectl("logs", "-n", where, pods[0]["metadata"]["name"])
    api.delete_job(job["metadata"]["name"])
    return (json.loads(line) - began) * 1000
