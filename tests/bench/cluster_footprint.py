"""What the containers of a namespace ask for, and what they use as kubelet measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from syftmesh_standalone.demo.cluster.kubectl import Tool

_UNITS: Final = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Container:
    """One container.

    Attributes:
        name: Its pod's component and its own name.
        mib: Memory asked for.
        used_cpu: CPU used lately.
        used_mib: Memory that it works with (the working set: what the kernel cannot take back).
    """

    name: str
    mib: float
    used_cpu: float
    used_mib: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """One pod.

    Attributes:
        cpu: CPU that it asks for: its containers together, or one before them that asks for more.
        mib: Memory that it asks for, in the same way.
        containers: Its containers.
    """

    cpu: float
    mib: float
    containers: tuple[Container, ...]


async def footprints(kubectl: Tool, namespace: str) -> list[Footprint]:
    """Return all pods of a namespace that run.

    Raises:
        MeshError: As `Tool.run`.
        ValueError: A container has no request, or kubelet knows nothing of it.
    """
    pods = (await kubectl.json("get", "pods", "-n", namespace, "-o", "json"))["items"]
    running = [pod for pod in pods if pod["status"]["phase"] == "Running"]
    used: dict[tuple[str, str], Mapping[str, Any]] = {}
    for node in sorted({pod["spec"]["nodeName"] for pod in running}):
        summary = await kubectl.json("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")
        used |= _by_container(summary, namespace)
    return [footprint(pod, used) for pod in running]


def footprint(pod: Mapping[str, Any], used: Mapping[tuple[str, str], Mapping[str, Any]]) -> Footprint:
    """Return what a pod asks for, and what its containers use.

    Args:
        pod: The pod.
        used: kubelet's statistics by names of pod and container.

    Raises:
        ValueError: A container has no request, or kubelet knows nothing of it.
    """
    spec = pod["spec"]
    asked = [_asked(container) for container in spec["containers"]]
    before = [_asked(container) for container in spec.get("initContainers", [])]
    cpu, mib = (max(sum(found[i] for found in asked), *(found[i] for found in before), 0.0) for i in (0, 1))
    component = pod["metadata"]["labels"].get("app.kubernetes.io/component", "")
    found = []
    for container, (_, own_mib) in zip(spec["containers"], asked, strict=True):
        name = container["name"]
        told = used.get((pod["metadata"]["name"], name))
        if told is None or not {"cpu", "memory"} <= told.keys():
            raise ValueError(f"kubelet tells nothing of {name} of {pod['metadata']['name']}")
        found.append(
            Container(
                name if component == name else f"{component}/{name}",
                own_mib,
                told["cpu"]["usageNanoCores"] / 1e9,
                told["memory"]["workingSetBytes"] / _MIB,
            )
        )
    return Footprint(cpu, mib, tuple(found))


def quantity(text: str) -> float:
    """Return a quantity as Kubernetes writes it, in its base unit.

    Raises:
        ValueError: It is none, or has a unit that is not used here.
    """
    number = text.rstrip("kKMGim")
    unit = text[len(number) :]
    if unit not in _UNITS:
        raise ValueError(f"{text!r} has an unknown unit")
    return float(number) * _UNITS[unit]


def _asked(container: Mapping[str, Any]) -> tuple[float, float]:
    asked = container.get("resources", {}).get("requests", {})
    if not {"cpu", "memory"} <= asked.keys():
        raise ValueError(f"{container['name']} does not say what it asks for")
    return quantity(asked["cpu"]), quantity(asked["memory"]) / _MIB


def _by_container(summary: Mapping[str, Any], namespace: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (pod["podRef"]["name"], container["name"]): container
        for pod in summary["pods"]
        if pod["podRef"]["namespace"] == namespace
        for container in pod.get("containers", [])
    }
