"""Who reaches whom in an installed mesh, tried from pods: what the table of flows allows, and nothing besides."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from syftmesh_standalone.demo.cluster.installation import Installation
from syftmesh_standalone.demo.story import OWNERS

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "chart"))

from mesh_pod import RESTRICTED, apply, eventually, get, kubectl, pods, tool_pod
from test_hub_flow import BACKENDS, FLOWS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

COMPONENTS = sorted(BACKENDS | {"gateway", "nats", "store", "tools", "bootstrap", "storage-check"})
"""Every component of the hub that has pods; those of Jobs are there for a moment only."""
OPEN = {(name, port) for name in BACKENDS | {"gateway"} for port in (8081, 8086)} - {("gateway", 8081)} | {
    ("superlink", 8090),
    ("gateway", 8443),
    ("nats", 4222),
    ("nats", 8222),
    ("store", 9000),
}
"""Where something listens beyond the pod's own loopback."""
WORLD_PORT = 8443
PUBLIC = {"gateway:8443"}
API = {"api:443", "api:6443"}
DNS = {"dns:53"}
NOTHING: set[str] = set()

PROBE = """
import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor

targets, expected = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))

def reached(target):
    try:
        with socket.create_connection(target, 3):
            return True
    except OSError:
        return False

deadline, agreed = time.monotonic() + 60, 0
while agreed < 2 and time.monotonic() < deadline:  # policies take a moment to hold for a new pod
    with ThreadPoolExecutor(len(targets)) as pool:
        seen = {name for name, yes in zip(targets, pool.map(reached, targets.values())) if yes}
    agreed = agreed + 1 if seen == expected else 0
    time.sleep(0.5)
print(json.dumps(sorted(seen)))
"""
LISTENER = """
import socketserver, sys

class Quiet(socketserver.BaseRequestHandler):
    def handle(self):
        pass

socketserver.ThreadingTCPServer(("0.0.0.0", int(sys.argv[1])), Quiet).serve_forever()
"""


def expected_of(component: str) -> set[str]:
    """Return what pods of a component of the hub reach, by the table that the chart is rendered against."""
    found = {f"{target}:{port}" for source, target, port in FLOWS if source == component}
    return found | DNS | (API if component == "bootstrap" else NOTHING)


EXPECTED = {
    **{component: expected_of(component) for component in COMPONENTS},
    # A policy is of a pod: what the runner may, the agent may.
    "site-a": PUBLIC | API | DNS,
    "site-b": PUBLIC | API | DNS,
    "run": NOTHING,
    # Nothing holds a stranger back but the hub's and the sites' own policies.
    "stranger": PUBLIC | API | DNS | {f"world:{WORLD_PORT}"},
}


@pytest.fixture(scope="module")
def stranger(installed_mesh: Installation) -> Iterator[str]:
    """A namespace that has nothing to do with the mesh, with one pod that listens, as some server outside does."""
    name = f"{installed_mesh.options.prefix}-stranger"
    labels = {**RESTRICTED, "kubernetes.io/metadata.name": name}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        apply(tool_pod(name, "world", LISTENER, str(WORLD_PORT), labels={"app": "world"}, ready=True))
        kubectl("wait", "-n", name, "--for=condition=Ready", "pod/world", "--timeout=90s")
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def targets(installed_mesh: Installation, stranger: str) -> dict[str, tuple[str, int]]:
    """Every address that is tried, by its name in the table."""
    hub = installed_mesh.options.hub_namespace
    found: dict[str, tuple[str, int]] = {}
    for component, port in sorted(OPEN):
        [pod] = pods(hub, component=component)
        found[f"{component}:{port}"] = (pod["status"]["podIP"], port)
    for letter, owner in zip("ab", OWNERS, strict=True):
        pod = get("pod", "site-0", installed_mesh.site_of(owner))
        found |= {f"site-{letter}:{port}": (pod["status"]["podIP"], port) for port in (8086, 8087)}
    service = get("service", "kubernetes", "default")["spec"]
    slices = json.loads(
        kubectl("get", "endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes", "-o", "json")
    )["items"]  # fmt: skip
    found["api:443"] = (service["clusterIP"], 443)
    found["api:6443"] = (slices[0]["endpoints"][0]["addresses"][0], slices[0]["ports"][0]["port"])
    found["dns:53"] = (get("service", "kube-dns", "kube-system")["spec"]["clusterIP"], 53)
    found["metadata:80"] = ("169.254.169.254", 80)
    found[f"world:{WORLD_PORT}"] = (get("pod", "world", stranger)["status"]["podIP"], WORLD_PORT)
    return found


@pytest.fixture(scope="module")
def seen(
    installed_mesh: Installation, stranger: str, targets: dict[str, tuple[str, int]]
) -> Iterator[dict[str, set[str]]]:
    """What each kind of pod reaches: one pod of each, with its labels, in its namespace, and without its secrets."""
    made = [
        tool_pod(place, f"flow-{name}", PROBE, json.dumps(targets), json.dumps(sorted(EXPECTED[name])), labels=labels)
        for name, (place, labels) in _sources(installed_mesh, stranger).items()
    ]  # fmt: skip
    try:
        apply(*made)
        yield {pod["metadata"]["name"].removeprefix("flow-"): set(_said(pod["metadata"])) for pod in made}
    finally:
        for pod in made:
            place = ("-n", pod["metadata"]["namespace"])
            kubectl("delete", "pod", pod["metadata"]["name"], *place, "--ignore-not-found", "--wait=false")


def _sources(mesh: Installation, stranger: str) -> dict[str, tuple[str, dict[str, str]]]:
    hub = mesh.options.hub_namespace
    common = {"app.kubernetes.io/name": "syftmesh", "app.kubernetes.io/instance": "hub"}
    found = {name: (hub, {**common, "app.kubernetes.io/component": name}) for name in COMPONENTS}
    for letter, owner in zip("ab", OWNERS, strict=True):
        place = mesh.site_of(owner)
        own = get("pod", "site-0", place)["metadata"]["labels"]
        found[f"site-{letter}"] = (
            place,
            {key: own[key] for key in own if key.startswith("app.kubernetes.io/")},
        )
    found["run"] = (f"{mesh.site_of(OWNERS[0])}-jobs", {"app": "run"})
    found["stranger"] = (stranger, {"app": "stranger"})
    return found


def _said(pod: dict[str, str]) -> list[str]:
    where = ("-n", pod["namespace"])

    def phase() -> bool:
        status: dict[str, Any] = get("pod", pod["name"], pod["namespace"])["status"]
        assert status["phase"] != "Failed", kubectl("logs", pod["name"], *where)
        return bool(status["phase"] == "Succeeded")

    eventually(phase, 180, f"the end of pod {pod['name']}")
    found: list[str] = json.loads(kubectl("logs", pod["name"], *where))
    return found


@pytest.mark.parametrize("source", sorted(EXPECTED))
def test_a_pod_reaches_what_the_table_allows_and_nothing_besides(
    seen: dict[str, set[str]], source: str
) -> None:
    assert seen[source] == EXPECTED[source]


def test_every_address_of_the_table_is_tried_and_what_is_open_to_nobody_listens(
    targets: dict[str, tuple[str, int]], seen: dict[str, set[str]], installed_mesh: Installation
) -> None:
    assert {f"{target}:{port}" for _, target, port in FLOWS} <= set(targets)
    nobody = set(targets) - set.union(*seen.values())
    health = {f"{name}:8086" for name in BACKENDS | {"gateway"}}
    assert nobody == health | {"metadata:80"} | {f"site-{x}:{port}" for x in "ab" for port in (8086, 8087)}
    # kubelet asks there, from the node: pods that are ready are what shows that these ports are open.
    for place in installed_mesh.namespaces[:3]:
        for pod in pods(place):
            if pod["status"]["phase"] == "Running":
                ready = {state["name"]: state["ready"] for state in pod["status"]["containerStatuses"]}
                assert all(ready.values()), ready
