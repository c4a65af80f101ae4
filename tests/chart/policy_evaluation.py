"""What NetworkPolicy (networking.k8s.io/v1) allows between pods of one namespace, worked out from its objects."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chart_render import Manifest

Labels = Mapping[str, str]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod of the namespace, a pod of another one, or an address outside.

    Attributes:
        labels: Of the pod; None outside.
        namespace: Labels of its namespace; None for the policies' own.
        address: Of an end outside.
    """

    labels: Labels | None = None
    namespace: Labels | None = None
    address: str = ""


def allows(policies: Iterable[Manifest], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Return whether a connection may be made: by the rules at both ends, as far as they are ours."""
    found = list(policies)
    leaves = source.namespace is not None or _one_way(found, "Egress", source, target, port, protocol)
    enters = target.namespace is not None or _one_way(found, "Ingress", target, source, port, protocol)
    return leaves and enters


def _one_way(
    policies: list[Manifest], direction: str, own: End, other: End, port: int, protocol: str
) -> bool:
    if own.labels is None:
        return True
    applying = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"] and _selects(policy["spec"]["podSelector"], own.labels)
    ]
    side = "to" if direction == "Egress" else "from"
    return not applying or any(
        _rule_allows(rule, side, other, port, protocol)
        for spec in applying
        for rule in spec.get(direction.lower()) or []
    )


def _rule_allows(rule: dict[str, Any], side: str, other: End, port: int, protocol: str) -> bool:
    ports, peers = rule.get("ports"), rule.get(side)
    if ports and not any((p.get("protocol", "TCP"), p.get("port", port)) == (protocol, port) for p in ports):
        return False
    return not peers or any(_is_peer(peer, other) for peer in peers)


def _is_peer(peer: dict[str, Any], other: End) -> bool:
    if "ipBlock" in peer:
        # Pods have addresses, too; a policy for outside must be judged by addresses that are outside.
        return bool(other.address) and _within(other.address, peer["ipBlock"]["cidr"])
    if other.labels is None:
        return False
    if "namespaceSelector" in peer:
        if other.namespace is None or not _selects(peer["namespaceSelector"], other.namespace):
            return False
    elif other.namespace is not None:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def _selects(selector: dict[str, Any], labels: Labels) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", []):
        assert term["operator"] == "In", term
        if labels.get(term["key"]) not in term["values"]:
            return False
    return True
