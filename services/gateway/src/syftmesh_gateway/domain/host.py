"""Which Host and Origin headers are ours: foreign pages must not reach a loopback port (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from syftmesh_core.errors import PermissionDenied
from syftmesh_core.quote import quoted


@dataclass(frozen=True, slots=True)
class HostRule:
    """The names under which this gateway may be addressed, lower case.

    A name with a port stands for that port alone, one without for every port: the one public port of a cluster
    is reached by others too, such as those of ``kubectl port-forward``.
    """

    names: frozenset[str]

    def check(self, host: str | None, origin: str | None) -> None:
        """Refuse a request for another host, or one that a page of another origin made.

        Raises:
            PermissionDenied: HOST_REFUSED, ORIGIN_REFUSED.
        """
        if host is None or not self._is_ours(host.lower()):
            raise PermissionDenied(
                f"This gateway does not answer to the name {quoted(host or '')}. Use its own address.",
                reason="HOST_REFUSED",
                metadata={"host": quoted(host or "")},
            )
        if origin is not None and not self._is_own_page(origin.lower()):
            raise PermissionDenied(
                f"Pages of {quoted(origin)} may not call this gateway.",
                reason="ORIGIN_REFUSED",
                metadata={"origin": quoted(origin)},
            )

    def _is_ours(self, host: str) -> bool:
        name, port = split_host(host)
        return host in self.names or (bool(name) and port != "" and name in self.names)

    def _is_own_page(self, origin: str) -> bool:
        scheme, separator, host = origin.partition("://")
        return bool(separator) and scheme in {"http", "https"} and self._is_ours(host)


def host_rule(port: int, extra: Iterable[str] = ()) -> HostRule:
    """Return the rule for a gateway on `port` of the loopback interface and for the names in `extra`."""
    loopback = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    return HostRule(frozenset(loopback | {name.lower() for name in extra}))


def split_host(host: str) -> tuple[str, str]:
    """Return name and port of a Host header; the port is empty when none, or none that may be one, is there."""
    name, separator, port = host.rpartition(":")
    is_port = bool(separator) and port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536
    if not is_port or (":" in name and not name.endswith("]")):
        return host, ""
    return name, port


def is_loopback(peer: str | None) -> bool:
    """Return whether a peer's address is the loopback interface's."""
    return peer is not None and (peer.startswith("127.") or peer in {"::1", "::ffff:127.0.0.1"})
