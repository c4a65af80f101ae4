"""A datasite on a real cluster: it joins a real hub by one token, says why where it cannot, and leaves its volume."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chart_render import CHARTS, Program, ProgramFailed
from site_render import FLAGS, FOLDER, GIVEN, merged, site_chart

HERE = Path(__file__).parent
CHOSEN = {"registry": os.environ.get("IMAGE_REGISTRY", "syftmesh"), "tag": os.environ.get("IMAGE_TAG", "dev")}

pytestmark = pytest.mark.timeout(420)


@dataclass(frozen=True)
class Hub:
    """A hub that is there for these tests.

    Attributes:
        kubectl: Of its cluster.
        namespace: Where it is.
    """

    kubectl: Program
    namespace: str

    @property
    def url(self) -> str:
        return f"https://mesh-gateway.{self.namespace}.svc"

    def token(self, email: str) -> str:
        return self.kubectl(
            "exec", "--namespace", self.namespace, "deploy/mesh-identity", "--container", "admin", "--",
            "syftmesh", "site", "token", "create", "--email", email, "--quiet",
        )  # fmt: skip

    def authority(self) -> str:
        import base64

        secret = json.loads(
            self.kubectl("get", "secret", "mesh-hub-tls", "--namespace", self.namespace, "--output", "json")
        )
        return base64.b64decode(secret["data"]["ca.crt"]).decode()


@dataclass(frozen=True)
class Site:
    """One place for a release ``site`` of the chart: a namespace and the one of its jobs.

    Attributes:
        kubectl: Of the cluster.
        helm: Of the cluster.
        namespace: Where it is.
        values: With which it is installed.
    """

    kubectl: Program
    helm: Program
    namespace: str
    values: dict[str, Any]

    def helm_run(self, verb: str, *flags: str, **values: Any) -> str:
        return self.helm(
            verb, "site", str(FOLDER), "--namespace", self.namespace, "--values", str(FOLDER / "values-dev.yaml"),
            "--values", "-", *flags, text=json.dumps(merged(self.values, values)), timeout_s=240,
        )  # fmt: skip

    def install(self, *flags: str, **values: Any) -> str:
        return self.helm_run("install", *flags, **values)

    def console(self, *command: str) -> str:
        return self.kubectl("exec", "--namespace", self.namespace, "site-0", "-c", "console", "--", *command)

    def pod(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.kubectl("get", "pod", "site-0", "--namespace", self.namespace, "--output", "json")
        )
        return found

    def last_words(self, container: str, timeout_s: float = 90) -> str:
        """Return what a container said when it ended, as `kubectl describe` shows it."""

        def said() -> str:
            try:
                status = self.pod()["status"]
            except ProgramFailed:
                return ""
            every = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
            states = [
                entry[kind]["terminated"].get("message", "")
                for entry in every
                if entry["name"] == container
                for kind in ("state", "lastState")
                if "terminated" in entry.get(kind, {}) and entry[kind]["terminated"]["exitCode"]
            ]
            return "".join(states)

        return wait_for(said, timeout_s)

    def wait_ready(self, timeout_s: int = 120) -> None:
        self.kubectl(
            "rollout", "status", "statefulset/site", "--namespace", self.namespace, f"--timeout={timeout_s}s",
            timeout_s=timeout_s + 10,
        )  # fmt: skip


def wait_for(ask: Callable[[], str], timeout_s: float) -> str:
    """Return the first answer that is not empty."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.5)
    return answer


@pytest.fixture(scope="module")
def images(kubectl: Program) -> None:
    """Skip where the nodes have no images, unless they are asked for."""
    nodes = json.loads(kubectl("get", "nodes", "--output", "json"))["items"]
    there = {
        name for node in nodes for image in node["status"]["images"] for name in image.get("names") or []
    }
    wanted = f"{CHOSEN['registry']}/agent:{CHOSEN['tag']}"
    if not any(name.endswith(wanted) for name in there) and not os.environ.get("SYFTMESH_IMAGES"):
        pytest.skip(f"the nodes have no image {wanted}: make images images-load")


@pytest.fixture(scope="module")
def hub(kubectl: Program, cluster_helm: Program, images: None) -> Iterator[Hub]:
    namespace = f"chartsite-hub-{secrets.token_hex(3)}"
    kubectl("create", "namespace", namespace)
    try:
        chart = CHARTS / "syftmesh"
        cluster_helm(
            "install", "mesh", str(chart), "--namespace", namespace, "--values", str(chart / "values-dev.yaml"),
            "--values", str(HERE / "values-test.yaml"), "--values", "-", "--wait", "--timeout", "180s",
            text=json.dumps({"image": CHOSEN}), timeout_s=200,
        )  # fmt: skip
        yield Hub(kubectl, namespace)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def place(kubectl: Program, cluster_helm: Program) -> Iterator[Callable[..., Site]]:
    """Make places for sites: ``place(email=..., ...)``; everything of them is gone afterwards."""
    made: list[str] = []

    def make(**values: Any) -> Site:
        namespace = f"chartsite-{secrets.token_hex(4)}"
        made.append(namespace)
        kubectl("create", "namespace", namespace)
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        base = {"image": CHOSEN, "storage": {"size": "256Mi"}}
        return Site(kubectl, cluster_helm, namespace, merged(base, values))

    try:
        yield make
    finally:
        for namespace in made:
            for name in (namespace, f"{namespace}-jobs"):
                kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def member(hub: Hub, email: str, token: str) -> dict[str, Any]:
    """Return the values of a site of `hub`."""
    return {
        "email": email,
        "hub": {"url": hub.url, "ca": hub.authority()},
        "joinToken": {"value": token, "waitSeconds": 60},
    }


def new_email() -> str:
    return f"owner-{secrets.token_hex(3)}@hospital.example"


@pytest.mark.parametrize("preset", ["values.yaml", "values-dev.yaml", "values-prod.yaml"])
def test_cluster_takes_every_object(
    helm: Program, kubectl: Program, scratch_namespace: str, preset: str
) -> None:
    chart = site_chart(helm)
    flags = ("--namespace", scratch_namespace)
    values = merged(GIVEN, {"jobs": {"namespace": scratch_namespace + "-runs", "create": False}})
    manifests = chart.render(FOLDER / preset, values=values, flags=(*FLAGS, *flags))
    for manifest in manifests:
        # Nothing is made: what belongs into the namespace of jobs is judged in the one that is there.
        manifest["metadata"]["namespace"] = scratch_namespace
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    said = kubectl("apply", "--dry-run=server", "--filename", "-", text=text)
    assert said.count("(server dry run)") == len(manifests)


def test_missing_runtime_class_is_refused_by_name(place: Callable[..., Site]) -> None:
    site = place(**GIVEN)
    with pytest.raises(ProgramFailed, match='this cluster has no RuntimeClass "not-there"'):
        site.install(jobs={"runtimeClassName": "not-there"})
    assert site.kubectl("get", "all", "--namespace", site.namespace, "--output", "name") == ""


def test_first_site_needs_a_token_before_anything_is_made(place: Callable[..., Site]) -> None:
    site = place(**GIVEN)
    with pytest.raises(ProgramFailed, match="joinToken: a new site needs the token"):
        site.install(joinToken={"value": ""})


def test_network_that_lets_runs_out_is_refused_by_name(place: Callable[..., Site], images: None) -> None:
    site = place(**GIVEN)
    hole = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "hole", "namespace": site.namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    site.kubectl("apply", "--filename", "-", text=json.dumps(hole))
    with pytest.raises(ProgramFailed) as failed:
        site.install("--timeout", "90s", isolationProbe={"graceSeconds": 3})
    assert "site-isolation-probe" in str(failed.value)
    pod = ("--namespace", site.namespace, "job/site-isolation-probe")
    said = site.kubectl("logs", *pod)
    assert "ISOLATION_WEAK" in said
    assert "fail  no-tcp-" in said
    assert "statefulset" not in site.kubectl("get", "all", "--namespace", site.namespace, "--output", "name")


def test_site_joins_works_and_comes_back(hub: Hub, place: Callable[..., Site]) -> None:
    email = new_email()
    site = place(**member(hub, email, hub.token(email)))
    began = time.monotonic()
    site.install("--wait", "--timeout", "150s")
    assert time.monotonic() - began < 90
    assert len(site.console("cat", f"/var/lib/syftmesh/recovery/{email}.txt").split()) == 24
    devices = json.loads(site.console("syftmesh", "site", "show", email, "--json"))["devices"]
    assert len(devices) == 3
    site.helm("test", "site", "--namespace", site.namespace, timeout_s=150)

    # A pod that is lost comes back by what is in the volume: the token is used, and its Secret may go.
    site.kubectl("delete", "secret", "site-join", "--namespace", site.namespace)
    site.kubectl("delete", "pod", "site-0", "--namespace", site.namespace, timeout_s=100)
    site.wait_ready()
    assert json.loads(site.console("syftmesh", "site", "show", email, "--json"))["devices"] == devices

    # Nothing but the volume is left, and a new release goes on with it without a token.
    site.helm("uninstall", "site", "--namespace", site.namespace, "--wait", timeout_s=150)
    kinds = "all,secrets,configmaps,networkpolicies,serviceaccounts,persistentvolumeclaims"
    left = site.kubectl("get", kinds, "--namespace", site.namespace, "--output", "name").split()
    own = [name for name in left if name not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]
    assert own == ["persistentvolumeclaim/state-site-0"]
    site.kubectl("wait", "--for=delete", f"namespace/{site.namespace}-jobs", "--timeout=60s")
    site.install("--wait", "--timeout", "150s", joinToken={"value": ""})
    assert json.loads(site.console("syftmesh", "site", "show", email, "--json"))["devices"] == devices


def test_used_token_is_told_and_a_new_one_heals(hub: Hub, place: Callable[..., Site]) -> None:
    email = new_email()
    used = hub.token(email)
    first = place(**member(hub, email, used))
    first.install("--wait", "--timeout", "150s")
    other = place(**member(hub, email, used))
    other.install()
    assert "JOIN_TOKEN_INVALID" in other.last_words("setup")

    someone = new_email()
    wrong = place(**member(hub, someone, "not-a-token"))
    wrong.install()
    assert "JOIN_TOKEN_INVALID" in wrong.last_words("setup")
    wrong.helm_run("upgrade", "--wait", "--timeout", "150s", joinToken={"value": hub.token(someone)})
    assert "site" in wrong.console("syftmesh", "site", "show", someone, "--json")


def test_hub_that_is_away_is_told(place: Callable[..., Site], images: None) -> None:
    values = {"hub": {"url": "https://mesh-gateway.nowhere.svc"}, "joinToken": {"waitSeconds": 2}}
    site = place(**merged(GIVEN, values))
    site.install()
    assert "mesh-gateway.nowhere.svc" in site.last_words("setup")


def test_missing_rights_of_the_runner_are_told(hub: Hub, place: Callable[..., Site]) -> None:
    email = new_email()
    site = place(**member(hub, email, hub.token(email)))
    site.install(rbac={"create": False})

    def told() -> str:
        try:
            said = site.kubectl("logs", "--namespace", site.namespace, "site-0", "-c", "runner", "--tail=-1")
        except ProgramFailed:  # the container has not started yet
            return ""
        return said if "CLUSTER_RIGHTS_MISSING" in said else ""

    assert wait_for(told, 150)
    site.wait_ready()
    with pytest.raises(ProgramFailed) as failed:
        site.console("syftmesh", "doctor")
    lines = [line for line in str(failed.value).splitlines() if line.startswith("fail")]
    assert any("jobs" in line for line in lines), lines
