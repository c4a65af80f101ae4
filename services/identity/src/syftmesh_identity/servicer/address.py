"""From where a call comes, as far as that can be told: what limits per address count by."""

from __future__ import annotations

import ipaddress
from typing import Any, Final
from urllib.parse import unquote

from syftmesh_kit.tls import peer_names

PROXY_HEADER: Final = "x-real-ip"
"""Metadata in which a trusted proxy names who is connected to it, over whatever a client wrote there."""

UNKNOWN: Final = "unknown"
_IPV6_NETWORK_BITS: Final = 64


class CallAddress:
    """Tells the address of calls.

    Args:
        trusted_proxies: Names of which the certificate of whoever is connected must bear one for its
            `PROXY_HEADER` to count; from anybody else, and with no names, the header is not looked at.
    """

    def __init__(self, trusted_proxies: frozenset[str] = frozenset()) -> None:
        self._proxies = trusted_proxies

    def __call__(self, context: Any) -> str:
        """Return the IPv4 address or IPv6 network (/64, what one subscriber has) that a call comes from.

        Calls of which it cannot be told share one address: a limit then holds for all of them together.
        """
        if self._proxies and not self._proxies.isdisjoint(peer_names(context.auth_context())):
            named = [value for key, value in context.invocation_metadata() or () if key == PROXY_HEADER]
            return _network(named[0]) if len(named) == 1 else UNKNOWN
        return _network(_host(context.peer()))


def _host(peer: str) -> str:
    """Return the host in gRPC's ``ipv4:1.2.3.4:5`` or ``ipv6:[::1]:5``, empty for a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return rest.rpartition(":")[0].strip("[]")


def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
