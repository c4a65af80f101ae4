"""Programs that are run, and what they render as Python objects."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parents[2] / "charts"
KUBERNETES = "1.34.0"
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")

Manifest = dict[str, Any]

# The one of C is ten times as fast, and not everywhere.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ProgramFailed(Exception):
    """A program ended with an error; the message is what it said."""


class Program:
    """A program that is called with arguments and gives its standard output.

    Args:
        command: The program, with whatever comes before its arguments.
    """

    def __init__(self, *command: str) -> None:
        self._command = command

    def __call__(self, *arguments: str, text: str | None = None, timeout_s: float = 120) -> str:
        """Run it.

        Raises:
            ProgramFailed: Its exit code is not 0.
        """
        done = subprocess.run(
            [*self._command, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise ProgramFailed(f"{done.stdout}\n{done.stderr}")
        return done.stdout


@dataclass(frozen=True)
class Chart:
    """One chart as helm renders it.

    Attributes:
        helm: Helm.
        folder: The chart's.
        release: Name of the release.
        namespace: Its namespace.
    """

    helm: Program
    folder: Path
    release: str = "mesh"
    namespace: str = "hub"

    def render(
        self, *files: Path, values: dict[str, Any] | None = None, flags: tuple[str, ...] = ()
    ) -> list[Manifest]:
        """Return what is rendered with values files and with `values` over them.

        Raises:
            ProgramFailed: Helm refuses, as for values that the schema forbids.
        """
        text = self.text(*files, values=values, flags=flags)
        return [document for document in yaml.load_all(text, _LOADER) if document]

    def text(self, *files: Path, values: dict[str, Any] | None = None, flags: tuple[str, ...] = ()) -> str:
        """Return the same as helm writes it; see `render`."""
        given = [item for file in files for item in ("--values", str(file))]
        return self.helm(
            "template", self.release, str(self.folder), "--namespace", self.namespace,
            *given, "--values", "-", "--kube-version", KUBERNETES, *flags, text=json.dumps(values or {}),
        )  # fmt: skip

    def values(self) -> dict[str, Any]:
        """Return the chart's own values."""
        found: dict[str, Any] = yaml.safe_load((self.folder / "values.yaml").read_text())
        return found


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Return the manifests of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one manifest of that kind and name."""
    found = [item for item in of_kind(manifests, kind) if item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_template(workload: Manifest) -> Manifest:
    """Return metadata and spec of the pods of a workload."""
    if workload["kind"] == "Pod":
        return workload
    spec = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: Manifest = spec["template"]
    return template


def containers(template: Manifest) -> Iterator[Manifest]:
    """Yield the containers of a pod, those that come first included."""
    yield from template["spec"].get("initContainers", [])
    yield from template["spec"]["containers"]


def leaves(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value that is no map, or an empty one, with its path."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def with_value(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a copy of `values` with one more or another value."""
    changed = copy.deepcopy(values)
    inner = changed
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return changed


_CPU = {"m": 1e-3, "": 1.0}
_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


def quantity(text: str | float) -> float:
    """Return a Kubernetes quantity in cores or bytes."""
    word = str(text)
    number = word.rstrip("KMGim")
    return float(number) * {**_CPU, **_BYTES}[word[len(number) :]]


def requested(manifests: list[Manifest]) -> tuple[float, float]:
    """Return the cores and bytes that long-running pods ask for, replicas counted."""
    cores = size_bytes = 0.0
    for workload in of_kind(manifests, "Deployment", "StatefulSet"):
        for container in pod_template(workload)["spec"]["containers"]:
            requests = container["resources"]["requests"]
            replicas = workload["spec"].get("replicas", 1)
            cores += replicas * quantity(requests["cpu"])
            size_bytes += replicas * quantity(requests["memory"])
    return cores, size_bytes
