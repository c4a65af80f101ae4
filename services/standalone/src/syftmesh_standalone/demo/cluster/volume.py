"""The raw files of the hub's volumes, read by a pod beside the one that writes them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import IntegrityFailure, NotFound
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo.cluster.kubectl import Tool

NO_VOLUMES: Final = "CLUSTER_OBJECT_MISSING"
PARTS: Final[Mapping[str, str]] = {"store": "s3"}
"""Where the name of a component is another than that of its part of the hub."""
_READY_S: Final = 90
_READ_S: Final = 120.0
_MOUNT: Final = "/volume"
_PROGRAM: Final = """
import io, os, stat, sys, tarfile
LIMIT = 512 << 20
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as out:
    for base, _, names in os.walk(sys.argv[1]):
        for name in names:
            path = os.path.join(base, name)
            try:
                found = os.lstat(path)
                if not stat.S_ISREG(found.st_mode):
                    continue
                # Whole, before its size is said: the file may grow or go while it is read.
                data = b"" if found.st_size > LIMIT else open(path, "rb").read()
            except FileNotFoundError:
                continue
            entry = tarfile.TarInfo(os.path.relpath(path, sys.argv[1]))
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
            if found.st_size > LIMIT:
                sys.exit("a file is larger than can be read: " + entry.name)
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A volume of the hub: its PersistentVolumeClaim, the part of the hub it belongs to, and the node."""

    name: str
    part: str
    node: str


class VolumeReader:
    """Reads volumes of a namespace by pods that mount them read-only.

    Args:
        kubectl: Talks with the cluster.
        namespace: Of the hub.
    """

    def __init__(self, kubectl: Tool, namespace: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._readers: dict[Claim, str] = {}

    async def copy(self, folder: Path) -> list[str]:
        """Copy all files of all volumes below `folder`, by the part of the hub, and return the parts.

        Raises:
            NotFound: There is no volume (CLUSTER_OBJECT_MISSING).
            IntegrityFailure: What arrives is no archive (ARCHIVE_INVALID).
            MeshError: kubectl's last words.
        """
        claims = await self._claims()
        if not claims:
            raise NotFound("the hub has no volume that could be read", reason=NO_VOLUMES)
        await in_parallel([self._copied(claim, folder / claim.part) for claim in claims], at_once=3)
        return sorted({claim.part for claim in claims})

    async def _copied(self, claim: Claim, folder: Path) -> None:
        pod = await self._reader(claim)
        data = await self._kubectl.run(
            "exec", "-n", self._namespace, pod, "--", "python", "-c", _PROGRAM, _MOUNT, timeout_s=_READ_S
        )
        await asyncio.to_thread(_extract, data, folder)

    async def _reader(self, claim: Claim) -> str:
        known = self._readers.get(claim)
        if known is not None:
            return known
        # The node is in the name: a pod that moved with its volume gets a reader there.
        text = hashlib.sha256(f"{claim.name} {claim.node}".encode()).hexdigest()[:10]
        name = f"demo-reader-{text}"
        image = await self._image()
        document = reader_pod(name, claim, image)
        await self._kubectl.run(
            "apply", "-n", self._namespace, "-f", "-", stdin=json.dumps(document).encode()
        )
        await self._kubectl.run(
            "wait",
            "-n",
            self._namespace,
            "--for=condition=Ready",
            f"pod/{name}",
            f"--timeout={_READY_S}s",
            timeout_s=_READY_S + 10,
        )
        self._readers[claim] = name
        return name

    async def _image(self) -> str:
        """Return the image of the operator's tools, as the hub itself has it."""
        pods = await self._kubectl.json("get", "pods", "-n", self._namespace, "-o", "json")
        for pod in pods["items"]:
            for container in pod["spec"]["containers"]:
                if container["name"] == "admin":
                    return str(container["image"])
        raise NotFound("the hub has no pod with the operator's tools", reason=NO_VOLUMES)

    async def _claims(self) -> list[Claim]:
        pods = await self._kubectl.json("get", "pods", "-n", self._namespace, "-o", "json")
        return claims_of(pods["items"])


def claims_of(pods: list[dict[str, Any]]) -> list[Claim]:
    """Return the volumes that the components of a hub hold, from its pods."""
    found = set()
    for pod in pods:
        component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component", "")
        node = pod["spec"].get("nodeName", "")
        if not component or not node or pod["metadata"].get("deletionTimestamp"):
            continue
        for volume in pod["spec"].get("volumes", []):
            claim = volume.get("persistentVolumeClaim")
            if claim is not None:
                found.add(Claim(str(claim["claimName"]), PARTS.get(component, component), node))
    return sorted(found, key=lambda claim: (claim.part, claim.name))


def reader_pod(name: str, claim: Claim, image: str) -> dict[str, Any]:
    """Return the pod that reads a volume: as unprivileged as every other, on the node that has the volume."""
    container = {
        "name": "reader",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", "import time; time.sleep(7200)"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "768Mi"},
        },
        "volumeMounts": [{"name": "volume", "mountPath": _MOUNT, "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "demo-reader"}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "affinity": {"nodeAffinity": _on(claim.node)},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "volume", "persistentVolumeClaim": {"claimName": claim.name, "readOnly": True}}
            ],
        },
    }


def _on(node: str) -> dict[str, Any]:
    # By its name, which the label kubernetes.io/hostname need not be.
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}
    }


def _extract(data: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise IntegrityFailure(
            "what the reader of a volume sent is no archive", reason="ARCHIVE_INVALID"
        ) from error
