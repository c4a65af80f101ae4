"""From where a call comes: the connection tells, and a header only where a trusted proxy wrote it."""

from __future__ import annotations

import pytest
from syftmesh_identity.servicer.address import UNKNOWN, CallAddress


class Call:
    """Takes the part of gRPC's context."""

    def __init__(self, peer: str, *headers: str, names: tuple[str, ...] = ()) -> None:
        self._peer = peer
        self._metadata = tuple(("x-real-ip", value) for value in headers)
        self._names = names

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...] | None:
        return self._metadata or None

    def auth_context(self) -> dict[str, list[bytes]]:
        return (
            {"x509_subject_alternative_name": [name.encode() for name in self._names]} if self._names else {}
        )


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:5123", "192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3::9]:5123", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:3::9%5D:5123", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:5123", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5123", "fe80::/64"),
        ("unix:/run/s.sock", UNKNOWN),
        ("unix:", UNKNOWN),
        ("", UNKNOWN),
        ("ipv4:rubbish", UNKNOWN),
    ],
)
def test_the_address_is_the_connections(peer, address):
    assert CallAddress()(Call(peer)) == address


@pytest.mark.parametrize("names", [(), ("gateway",), ("other",)])
def test_no_header_is_looked_at_where_no_proxy_is_trusted(names):
    assert CallAddress()(Call("ipv4:192.0.2.7:1", "198.51.100.1", names=names)) == "192.0.2.7"


@pytest.mark.parametrize("names", [(), ("other",), ("gateway.evil",)])
def test_the_header_of_anybody_but_the_trusted_proxy_is_not_looked_at(names):
    address = CallAddress(frozenset({"gateway"}))
    assert address(Call("ipv4:192.0.2.7:1", "198.51.100.1", names=names)) == "192.0.2.7"


def test_the_trusted_proxy_says_where_a_call_comes_from():
    address = CallAddress(frozenset({"gateway"}))
    names = ("gateway", "gateway.hub.svc")
    assert address(Call("ipv4:10.0.0.1:1", "198.51.100.1", names=names)) == "198.51.100.1"
    assert address(Call("ipv4:10.0.0.1:1", "2001:db8::5", names=names)) == "2001:db8::/64"


@pytest.mark.parametrize(
    "headers", [(), ("",), ("rubbish",), ("198.51.100.1", "198.51.100.2"), ("1.2.3.4, 5.6.7.8",)]
)
def test_calls_of_which_the_trusted_proxy_says_nothing_clear_count_as_one(headers):
    address = CallAddress(frozenset({"gateway"}))
    assert address(Call("ipv4:10.0.0.1:1", *headers, names=("gateway",))) == UNKNOWN
