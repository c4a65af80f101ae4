"""A run as a Kubernetes Job; pure.

No code, data or parameter is in it: what it says may be read by everybody who may look at Jobs.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from syftmesh_executor.kubernetes.setting import ClusterSettings
from syftmesh_executor.mount import JOB_ID, MAX_SHM_BYTES, PAGE
from syftmesh_executor.port import MIB, Limits, RunSpec

LABEL: Final = "syftmesh.org"
RUN_ID: Final = f"{LABEL}/run-id"
CHANNEL: Final = f"{LABEL}/channel"
IMAGE_ID: Final = f"{LABEL}/image-id"
MANAGED_BY: Final = "syftmesh-runner"
CARRIER: Final = "carrier"
JOB: Final = "job"
PYTHON: Final = "/opt/venv/bin/python"
SCRIPTS: Final = "/opt/syftmesh"

HOLD_S: Final = 3600
"""How long a run that is over keeps its output for a runner that is away."""
STAGING_S: Final = 900
_LAUNCHER_BYTES: Final = 32 * MIB
"""What the launcher itself takes in the job's container, logs aside."""
_CARRIER_BYTES: Final = 128 * MIB
_FIRST_UID: Final = 20_000
_UIDS: Final = 40_000
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def job_name(site: str, run_id: str) -> str:
    """Return the Job's name: the same for the same run, so that none exists twice."""
    plain = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")[:36]
    digest = hashlib.sha256(f"{site}\n{run_id}".encode()).hexdigest()[:10]
    return f"run-{plain}-{digest}" if plain else f"run-{digest}"


def label_value(text: str) -> str:
    """Return `text` as a label may hold it: itself where it can, with its other characters replaced else."""
    if not text or _LABEL_VALUE.fullmatch(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", text.replace("@", ".at.")).strip("-_.")
    return plain[:63].rstrip("-_.")


def site_selector(site: str) -> str:
    """Return the label selector of everything this executor makes for a site."""
    return f"app.kubernetes.io/managed-by={MANAGED_BY},{LABEL}/site={label_value(site)}"


def job_manifest(settings: ClusterSettings, spec: RunSpec, image_id: str = "") -> dict[str, Any]:
    """Return the Job of a run.

    Args:
        settings: What the executor is told.
        spec: The run.
        image_id: Digest that the image must turn out to have, for whoever adopts the run; empty when any may.
    """
    labels = {
        "app.kubernetes.io/name": "syftmesh-job",
        "app.kubernetes.io/component": "job",
        "app.kubernetes.io/part-of": "syftmesh",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        f"{LABEL}/site": label_value(settings.site),
        f"{LABEL}/job": label_value(spec.run_id),
        f"{LABEL}/project": label_value(spec.project),
    }
    annotations = {RUN_ID: spec.run_id, CHANNEL: "true" if spec.channel is not None else "false"}
    if image_id:
        annotations[IMAGE_ID] = image_id
    life_s = int(settings.start_s + STAGING_S + spec.limits.wall_s + HOLD_S)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(settings.site, spec.run_id),
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": life_s,
            "ttlSecondsAfterFinished": 300,
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": _pod(settings, spec, life_s),
            },
        },
    }


def _pod(settings: ClusterSettings, spec: RunSpec, life_s: int) -> dict[str, Any]:
    # With a user namespace of its own a pod's counts are its own; without one another user id keeps them apart.
    user = JOB_ID if settings.host_users is False else _FIRST_UID + _number(spec.run_id) % _UIDS
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": JOB,
        "setHostnameAsFQDN": False,
        "terminationGracePeriodSeconds": 5,
        # Nothing resolves names here: no search list of the cluster, and a server that nobody is.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_carrier(settings, life_s), _job(settings, spec.limits)],
        "volumes": _volumes(spec.limits),
    }
    if settings.host_users is not None:
        pod["hostUsers"] = settings.host_users
    if settings.runtime_class:
        pod["runtimeClassName"] = settings.runtime_class
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    return pod


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _carrier(settings: ClusterSettings, life_s: int) -> dict[str, Any]:
    container = _container(settings, CARRIER, ["-m", "pod.carrier", "hold", str(life_s)])
    container["resources"] = _resources(_CARRIER_BYTES, settings.cpu)
    container["volumeMounts"] = [
        {"name": "code", "mountPath": "/code"},
        {"name": "data", "mountPath": "/data"},
        {"name": "control", "mountPath": "/control"},
        {"name": "output", "mountPath": "/output", "readOnly": True},
        {"name": "report", "mountPath": "/report", "readOnly": True},
    ]
    return container


def _job(settings: ClusterSettings, limits: Limits) -> dict[str, Any]:
    start_s = int(settings.start_s + STAGING_S)
    container = _container(settings, JOB, ["-m", "pod.launch", str(start_s)])
    memory_bytes = limits.memory_bytes + _LAUNCHER_BYTES + 4 * limits.log_bytes
    container["resources"] = _resources(memory_bytes, settings.cpu)
    container["volumeMounts"] = [
        {"name": "code", "mountPath": "/code", "readOnly": True},
        {"name": "data", "mountPath": "/data", "readOnly": True},
        {"name": "control", "mountPath": "/control", "readOnly": True},
        {"name": "output", "mountPath": "/output"},
        {"name": "report", "mountPath": "/report"},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
        {"name": "shared", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    return container


def _container(settings: ClusterSettings, name: str, arguments: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": [PYTHON, "-E", "-s", "-S", *arguments],
        "workingDir": SCRIPTS,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _resources(memory_bytes: int, cpu: str) -> dict[str, Any]:
    return {
        "requests": {"memory": str(memory_bytes), "cpu": "50m"},
        "limits": {"memory": str(memory_bytes), "cpu": cpu},
    }


def _volumes(limits: Limits) -> list[dict[str, Any]]:
    in_memory = {
        # One page more than allowed, so that a full output means more than allowed was written.
        "output": limits.output_bytes + PAGE,
        "scratch": limits.disk_bytes,
        "shared": min(limits.disk_bytes, MAX_SHM_BYTES),
        "report": 2 * limits.log_bytes + 4 * MIB,
        "control": 4 * MIB,
    }
    return [
        {"name": "code", "emptyDir": {}},
        {"name": "data", "emptyDir": {}},
        *(
            {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
            for name, size in in_memory.items()
        ),
    ]
