"""What anybody with the right to look sees of the story's namespaces: objects of the API server, and logs."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import MeshError, NotFound
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo.cluster.kubectl import Tool

LOGS: Final = "logs"
MANIFESTS: Final = "manifests"
KINDS: Final = ("configmaps", "secrets", "events", "pods", "jobs", "deployments", "statefulsets")
_AT_ONCE: Final = 4


async def copy_record(kubectl: Tool, namespaces: Sequence[str], folder: Path) -> None:
    """Write logs and objects of the namespaces below `folder`, by the names in `LOGS` and `MANIFESTS`.

    Raises:
        MeshError: kubectl's last words.
    """
    for part in (LOGS, MANIFESTS):
        (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    await in_parallel([_objects(kubectl, name, folder / MANIFESTS) for name in namespaces], at_once=_AT_ONCE)
    pods = [pod for name in namespaces for pod in await _pods(kubectl, name)]
    await in_parallel([_logs(kubectl, *pod, folder / LOGS) for pod in pods], at_once=_AT_ONCE)


async def _objects(kubectl: Tool, namespace: str, folder: Path) -> None:
    found = await kubectl.json("get", ",".join(KINDS), "-n", namespace, "-o", "json")
    # Secrets twice: what their base64 hides in the document stands beside it.
    (folder / f"{namespace}.json").write_text(json.dumps(found))
    for item in found["items"]:
        if item.get("kind") == "Secret":
            (folder / f"{namespace}.{item['metadata']['name']}.secret").write_bytes(opened(item))


def opened(secret: Mapping[str, Any]) -> bytes:
    """Return what a Secret holds, as bytes one after the other."""
    parts = []
    for value in (secret.get("data") or {}).values():
        try:
            parts.append(base64.b64decode(value, validate=True))
        except binascii.Error:
            parts.append(str(value).encode())
    return b"\n".join(parts)


async def _pods(kubectl: Tool, namespace: str) -> list[tuple[str, str]]:
    found = await kubectl.json("get", "pods", "-n", namespace, "-o", "json")
    return [(namespace, str(item["metadata"]["name"])) for item in found["items"]]


async def _logs(kubectl: Tool, namespace: str, pod: str, folder: Path) -> None:
    try:
        text = await kubectl.run(
            "logs",
            pod,
            "-n",
            namespace,
            "--all-containers",
            "--ignore-errors",
            "--prefix",
            "--limit-bytes=33554432",
        )
    except NotFound:
        return  # it ended since it was listed
    (folder / f"{namespace}.{pod}.txt").write_bytes(text)


async def job_traces(kubectl: Tool, namespace: str, job_id: str) -> list[str]:
    """Return what Events say of the Job of a run, as lines; the Job itself is gone when its result was fetched."""
    try:
        found = await kubectl.json("get", "events", "-n", namespace, "-o", "json")
    except MeshError:
        return []  # lines for people alone
    names = {job_id, job_id.replace("-", "")}
    lines = []
    for event in sorted(found["items"], key=lambda item: str(item["metadata"].get("creationTimestamp"))):
        about = event.get("involvedObject", {})
        if about.get("kind") == "Job" and any(name in str(about.get("name")) for name in names):
            lines.append(f"job/{about['name']} in {namespace}: {event.get('reason')}: {event.get('message')}")
    return list(dict.fromkeys(lines))
