"""Rights and flows of a datasite: exactly these, in the rendered chart."""

from __future__ import annotations

import re
from typing import Any

import pytest
from chart_render import Manifest, Program, named, of_kind, pod_template
from policy_evaluation import End, allows
from site_render import FOLDER, render_site

RIGHTS = {
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/exec"): {"create", "get"},
    ("", "events"): {"create", "list"},
}

HUB, API, DNS, OTHER = "203.0.113.7", "198.51.100.1", "dns", "192.0.2.66"
GATEWAY, STRANGER = "gateway", "stranger"
ENDS = {
    DNS: End({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}),
    GATEWAY: End({"app.kubernetes.io/component": "gateway"}, {"kubernetes.io/metadata.name": "mesh"}),
    STRANGER: End({"app.kubernetes.io/component": "store"}, {"kubernetes.io/metadata.name": "mesh"}),
}
TARGETS = [
    (DNS, "UDP", 53), (DNS, "TCP", 53), (DNS, "TCP", 9153), (HUB, "TCP", 443), (HUB, "TCP", 80), (HUB, "UDP", 443),
    (API, "TCP", 6443), (API, "TCP", 22), (GATEWAY, "TCP", 8443), (GATEWAY, "TCP", 8080), (STRANGER, "TCP", 9000),
    (OTHER, "TCP", 443), (OTHER, "TCP", 53), ("169.254.169.254", "TCP", 80),
]  # fmt: skip

NARROW: dict[str, Any] = {
    "hub": {"cidrs": [f"{HUB}/32"], "inCluster": {"namespace": "mesh"}},
    "kubeApi": {"cidrs": [f"{API}/32"], "ports": [6443]},
}


@pytest.fixture
def manifests(helm: Program) -> list[Manifest]:
    return render_site(helm)


def allowed(manifests: list[Manifest], labels: dict[str, str]) -> set[tuple[str, str, int]]:
    """Return the targets that a pod of the release's namespace reaches."""
    policies = [p for p in of_kind(manifests, "NetworkPolicy") if p["metadata"]["namespace"] == "alice"]
    return {
        (target, protocol, port)
        for target, protocol, port in TARGETS
        if allows(policies, End(labels), ENDS.get(target, End(address=target)), port, protocol)
    }


def _labels(manifests: list[Manifest], kind: str, name: str) -> dict[str, str]:
    labels: dict[str, str] = pod_template(named(manifests, kind, name))["metadata"]["labels"]
    return labels


def test_runner_may_do_exactly_this(manifests: list[Manifest]) -> None:
    assert not of_kind(manifests, "ClusterRole", "ClusterRoleBinding")
    (role,) = of_kind(manifests, "Role")
    assert role["metadata"]["namespace"] == "alice-jobs"
    found = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert found == RIGHTS
    assert all("resourceNames" not in rule for rule in role["rules"])


def test_rights_are_the_runners_pod_alone(manifests: list[Manifest]) -> None:
    (binding,) = of_kind(manifests, "RoleBinding")
    assert binding["metadata"]["namespace"] == "alice-jobs"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "alice", "namespace": "alice"}]
    assert pod_template(named(manifests, "StatefulSet", "alice"))["spec"]["serviceAccountName"] == "alice"
    for pod in (named(manifests, "Pod", "alice-doctor"), pod_template(of_kind(manifests, "Job")[0])):
        assert "serviceAccountName" not in pod["spec"]


def test_manual_lists_the_rights() -> None:
    told = {}
    for line in (FOLDER / "values.yaml").read_text().splitlines():
        found = re.fullmatch(r"# {3}(batch)? +([a-z/]+) +((?:[a-z]+ )+) +[a-z].*", line)
        if found:
            told[found[1] or "", found[2]] = set(found[3].split())
    assert told == RIGHTS


def test_no_right_is_made_when_somebody_else_makes_it(helm: Program) -> None:
    assert not of_kind(render_site(helm, rbac={"create": False}), "Role", "RoleBinding")


def test_service_accounts_mount_no_token(manifests: list[Manifest]) -> None:
    accounts = of_kind(manifests, "ServiceAccount")
    assert {(a["metadata"]["namespace"], a["metadata"]["name"]) for a in accounts} == {
        ("alice", "alice"),
        ("alice-jobs", "job"),
    }
    assert all(account["automountServiceAccountToken"] is False for account in accounts)


def test_runs_are_of_the_account_without_rights(manifests: list[Manifest]) -> None:
    pod = pod_template(named(manifests, "StatefulSet", "alice"))["spec"]
    [runner] = [container for container in pod["containers"] if container["name"] == "runner"]
    told = {entry["name"]: entry.get("value") for entry in runner["env"]}
    accounts = [a for a in of_kind(manifests, "ServiceAccount") if a["metadata"]["namespace"] == "alice-jobs"]
    assert [a["metadata"]["name"] for a in accounts] == [told["SYFTMESH_RUNNER_JOB_SERVICE_ACCOUNT"]]


@pytest.mark.parametrize("create", [True, False])
def test_namespace_of_jobs_holds_runs_back(helm: Program, create: bool) -> None:  # noqa: FBT001
    manifests = render_site(helm, jobs={"create": create, "namespace": "runs"})
    found = of_kind(manifests, "Namespace")
    assert [item["metadata"]["name"] for item in found] == (["runs"] if create else [])
    for namespace in found:
        labels = namespace["metadata"]["labels"]
        assert all(
            labels[f"pod-security.kubernetes.io/{kind}"] == "restricted" for kind in ("enforce", "warn")
        )
    inside = {item["kind"] for item in manifests if item["metadata"].get("namespace") == "runs"}
    assert inside == {"ServiceAccount", "NetworkPolicy", "ResourceQuota", "LimitRange", "Role", "RoleBinding"}


def test_runs_reach_nothing_and_nothing_reaches_them(helm: Program) -> None:
    for enabled in (True, False):
        manifests = render_site(helm, networkPolicy={"enabled": enabled, "extraEgress": [{}]})
        policies = [
            p for p in of_kind(manifests, "NetworkPolicy") if p["metadata"]["namespace"] == "alice-jobs"
        ]
        assert [policy["spec"] for policy in policies] == [
            {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        ]


def test_site_reaches_exactly_hub_api_and_names(helm: Program) -> None:
    manifests = render_site(helm, networkPolicy=NARROW)
    assert allowed(manifests, _labels(manifests, "StatefulSet", "alice")) == {
        (DNS, "UDP", 53), (DNS, "TCP", 53), (HUB, "TCP", 443), (API, "TCP", 6443), (GATEWAY, "TCP", 8443),
    }  # fmt: skip


def test_without_addresses_the_ports_alone_are_bounded(manifests: list[Manifest]) -> None:
    found = allowed(manifests, _labels(manifests, "StatefulSet", "alice"))
    assert found == {
        (DNS, "UDP", 53), (DNS, "TCP", 53), (HUB, "TCP", 443), (OTHER, "TCP", 443), (API, "TCP", 6443),
    }  # fmt: skip


def test_doctor_reaches_the_hub_and_not_the_api_server(helm: Program) -> None:
    manifests = render_site(helm, networkPolicy=NARROW)
    labels = named(manifests, "Pod", "alice-doctor")["metadata"]["labels"]
    assert allowed(manifests, labels) == {
        (DNS, "UDP", 53), (DNS, "TCP", 53), (HUB, "TCP", 443), (GATEWAY, "TCP", 8443),
    }  # fmt: skip


def test_probe_reaches_nothing_before_and_after_the_release_is_there(manifests: list[Manifest]) -> None:
    labels = _labels(manifests, "Job", "alice-isolation-probe")
    hooks = [item for item in manifests if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    assert allowed(hooks, labels) == set()
    assert allowed(manifests, labels) == set()


def test_nothing_may_come_in(manifests: list[Manifest]) -> None:
    policies = [p for p in of_kind(manifests, "NetworkPolicy") if p["metadata"]["namespace"] == "alice"]
    site = End(_labels(manifests, "StatefulSet", "alice"))
    probe = End(_labels(manifests, "Job", "alice-isolation-probe"))
    sources = (End({"app": "neighbour"}), ENDS[GATEWAY], End(address=HUB))
    for target in (site, probe):
        assert not any(allows(policies, source, target, port) for source in sources for port in (8086, 8087))


@pytest.mark.parametrize(
    ("url", "port", "namespace"),
    [
        ("https://mesh.example", 443, None),
        ("https://mesh.example:8443/", 8443, None),
        ("https://mesh-gateway.mesh.svc", 443, "mesh"),
        ("https://mesh-gateway.mesh.svc.cluster.local:444", 444, "mesh"),
        ("https://a.svc.example", 443, None),
    ],
)
def test_hub_is_found_by_its_url(helm: Program, url: str, port: int, namespace: str | None) -> None:
    policy = named(render_site(helm, hub={"url": url}), "NetworkPolicy", "alice-hub")
    rules = policy["spec"]["egress"]
    assert rules[1]["ports"] == [{"protocol": "TCP", "port": port}]
    spaces = [r["to"][0]["namespaceSelector"]["matchLabels"] for r in rules[2:]]
    assert spaces == ([{"kubernetes.io/metadata.name": namespace}] if namespace else [])


def test_probe_has_what_runs_have(helm: Program) -> None:
    manifests = render_site(helm, jobs={"runtimeClassName": "gvisor"})
    (job,) = of_kind(manifests, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"
    assert job["spec"]["backoffLimit"] == 0
    spec = pod_template(job)["spec"]
    assert (spec["hostUsers"], spec["runtimeClassName"]) == (False, "gvisor")
    policy = named(manifests, "NetworkPolicy", "alice-isolation-probe")
    weights = [int(item["metadata"]["annotations"]["helm.sh/hook-weight"]) for item in (policy, job)]
    assert weights[0] < weights[1]


def test_probe_can_be_left_out(helm: Program) -> None:
    manifests = render_site(helm, isolationProbe={"enabled": False})
    assert not of_kind(manifests, "Job")
    assert len(of_kind(manifests, "NetworkPolicy")) == len(of_kind(render_site(helm), "NetworkPolicy")) - 1
