"""Who may speak to whom in the hub: the policies that the chart renders, against the table of flows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chart_render import CHARTS, WORKLOADS, Chart, Manifest, Program, of_kind, pod_template
from policy_evaluation import End, allows

FOLDER = CHARTS / "syftmesh"
OUTSIDE = Path(__file__).parent / "values-hub-outside.yaml"
BACKENDS = {"identity", "sync", "permissions", "crypto", "router", "superlink"}
STORE_USERS = {"sync", "permissions", "crypto", "router", "gateway", "storage-check", "tools"}
PORTS = (8081, 8086, 8090, 8080, 8443, 4222, 6222, 8222, 9000, 443, 22)

FLOWS = (
    {("gateway", name, 8081) for name in BACKENDS}
    | {("gateway", "superlink", 8090)}
    | {(name, "nats", 4222) for name in BACKENDS | {"tools"}}
    | {("tools", "nats", 8222)}
    | {(name, "store", 9000) for name in STORE_USERS}
    | {("tools", "gateway", 8443)}
)


@pytest.fixture(scope="module")
def chart(helm: Program) -> Chart:
    return Chart(helm, FOLDER)


def _ends(manifests: list[Manifest]) -> Iterator[tuple[str, End]]:
    for workload in of_kind(manifests, *WORKLOADS):
        labels = pod_template(workload)["metadata"]["labels"]
        yield labels["app.kubernetes.io/component"], End(labels)


def _allowed(manifests: list[Manifest]) -> set[tuple[str, str, int]]:
    policies = of_kind(manifests, "NetworkPolicy")
    ends = dict(_ends(manifests))
    return {
        (one, other, port)
        for one, source in ends.items()
        for other, target in ends.items()
        for port in PORTS
        if allows(policies, source, target, port)
    }


def test_flows_are_exactly_those_of_the_table(chart: Chart) -> None:
    assert _allowed(chart.render(FOLDER / "values-dev.yaml")) == FLOWS


def test_servers_of_a_bus_of_three_replicate(chart: Chart) -> None:
    manifests = chart.render(FOLDER / "values-dev.yaml", values={"nats": {"replicas": 3}})
    assert _allowed(manifests) == FLOWS | {("nats", "nats", 6222)}


def test_parts_outside_are_reached_where_they_are(chart: Chart) -> None:
    manifests = chart.render(OUTSIDE)
    assert _allowed(manifests) == {flow for flow in FLOWS if flow[1] not in ("nats", "store")}
    policies, ends = of_kind(manifests, "NetworkPolicy"), dict(_ends(manifests))
    bus, store = End(address="198.51.100.7"), End(address="198.51.101.7")
    assert {name for name, end in ends.items() if allows(policies, end, bus, 4223)} == BACKENDS | {"tools"}
    assert {name for name, end in ends.items() if allows(policies, end, store, 8443)} == STORE_USERS
    assert not any(allows(policies, end, store, 22) for end in ends.values())


def test_identity_alone_reaches_the_mail_server_and_nothing_beside_it(chart: Chart) -> None:
    mail = {"host": "mail.example.org", "from": "mesh@example.org", "cidrs": ["198.51.102.7/32"]}
    manifests = chart.render(FOLDER / "values-dev.yaml", values={"identity": {"mail": mail}})
    policies, ends = of_kind(manifests, "NetworkPolicy"), dict(_ends(manifests))
    server, neighbour = End(address="198.51.102.7"), End(address="198.51.102.8")
    assert {name for name, end in ends.items() if allows(policies, end, server, 587)} == {"identity"}
    assert not allows(policies, ends["identity"], server, 25)
    assert not allows(policies, ends["identity"], neighbour, 587)
    assert _allowed(manifests) == FLOWS


def test_identity_alone_reaches_the_providers(chart: Chart) -> None:
    house = {"name": "house", "issuer": "https://sso.example.org", "clientId": "hub", "public": True}
    providers = {"list": [house], "cidrs": ["198.51.103.7/32"]}
    manifests = chart.render(FOLDER / "values-dev.yaml", values={"identity": {"providers": providers}})
    policies, ends = of_kind(manifests, "NetworkPolicy"), dict(_ends(manifests))
    server = End(address="198.51.103.7")
    assert {name for name, end in ends.items() if allows(policies, end, server, 443)} == {
        "identity",
        "bootstrap",
    }
    assert not allows(policies, ends["identity"], server, 8443)
    assert not allows(policies, ends["identity"], End(address="198.51.103.8"), 443)


def test_every_pod_is_held_by_the_default_denial(chart: Chart) -> None:
    manifests = chart.render(FOLDER / "values-dev.yaml")
    [denial] = [
        p for p in of_kind(manifests, "NetworkPolicy") if p["metadata"]["name"] == "mesh-default-deny"
    ]
    assert denial["spec"]["policyTypes"] == ["Ingress", "Egress"]
    ends = dict(_ends(manifests))
    stranger = End({"app.kubernetes.io/name": "syftmesh", "app.kubernetes.io/instance": "another"})
    for name, end in ends.items():
        assert not any(allows([denial], end, other, 8081) for other in ends.values()), name
        assert not allows([denial], stranger, end, 8081), name


def test_world_reaches_the_public_port_alone(chart: Chart) -> None:
    manifests = chart.render(FOLDER / "values-dev.yaml")
    policies, ends = of_kind(manifests, "NetworkPolicy"), dict(_ends(manifests))
    for world in (End(address="203.0.113.9"), End({"app": "x"}, namespace={"team": "y"}, address="10.0.0.9")):
        reached = {
            (name, port) for name, end in ends.items() for port in PORTS if allows(policies, world, end, port)
        }
        assert reached == {("gateway", 8443)}


def test_public_port_can_be_narrowed(chart: Chart) -> None:
    manifests = chart.render(
        FOLDER / "values-dev.yaml", values={"networkPolicy": {"publicCidrs": ["192.0.2.0/24"]}}
    )
    policies, gateway = of_kind(manifests, "NetworkPolicy"), dict(_ends(manifests))["gateway"]
    assert allows(policies, End(address="192.0.2.1"), gateway, 8443)
    assert not allows(policies, End(address="203.0.113.9"), gateway, 8443)


def test_only_bootstrap_leaves_the_release_and_all_look_up_names(chart: Chart) -> None:
    manifests = chart.render(FOLDER / "values-dev.yaml")
    policies, ends = of_kind(manifests, "NetworkPolicy"), dict(_ends(manifests))
    world = End(address="203.0.113.9")
    leaving = {
        (name, port)
        for name, end in ends.items()
        for port in (*PORTS, 6443)
        if allows(policies, end, world, port)
    }
    assert leaving == {("bootstrap", 443), ("bootstrap", 6443)}
    dns = End({"k8s-app": "kube-dns"}, namespace={"kubernetes.io/metadata.name": "kube-system"})
    for end in ends.values():
        assert allows(policies, end, dns, 53, "UDP")
        assert allows(policies, end, dns, 53)
        assert not allows(policies, end, dns, 443)
    assert not allows(policies, ends["sync"], End({"k8s-app": "kube-dns"}, namespace={"name": "other"}), 53)


def test_every_flow_says_why(chart: Chart) -> None:
    policies = of_kind(chart.render(FOLDER / "values-dev.yaml"), "NetworkPolicy")
    assert len(policies) > 10
    for policy in policies:
        assert len(policy["metadata"]["annotations"]["syftmesh.org/reason"]) > 20


def test_policies_can_be_left_to_others(chart: Chart) -> None:
    off = chart.render(FOLDER / "values-dev.yaml", values={"networkPolicy": {"enabled": False}})
    assert not of_kind(off, "NetworkPolicy")
