"""Which Host and Origin headers are ours: foreign pages must not reach a loopback port (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from syftmesh_core.errors import PermissionDenied
from syftmesh_core.quote import quoted


@dataclass(frozen=True, slots=True)
class HostRule:
    """The names under which this gateway may be addressed: lower case, with a port where none is implied."""

    names: frozenset[str]

    def check(self, host: str | None, origin: str | None) -> None:
        """Refuse a request for another host, or one that a page of another origin made.

        Raises:
            PermissionDenied: HOST_REFUSED, ORIGIN_REFUSED.
        """
        if host is None or host.lower() not in self.names:
            raise PermissionDenied(
                f"This gateway does not answer to the name {quoted(host or '')}. Use its own address.",
                reason="HOST_REFUSED",
                metadata={"host": quoted(host or "")},
            )
        if origin is not None and not self._is_own(origin.lower()):
            raise PermissionDenied(
                f"Pages of {quoted(origin)} may not call this gateway.",
                reason="ORIGIN_REFUSED",
                metadata={"origin": quoted(origin)},
            )

    def _is_own(self, origin: str) -> bool:
        scheme, separator, host = origin.partition("://")
        return bool(separator) and scheme in {"http", "https"} and host in self.names


def host_rule(port: int, extra: Iterable[str] = ()) -> HostRule:
    """Return the rule for a gateway on `port` of the loopback interface and for the names in `extra`."""
    loopback = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    return HostRule(frozenset(loopback | {name.lower() for name in extra}))


def is_loopback(peer: str | None) -> bool:
    """Return whether a peer's address is the loopback interface's."""
    return peer is not None and (peer.startswith("127.") or peer in {"::1", "::ffff:127.0.0.1"})
