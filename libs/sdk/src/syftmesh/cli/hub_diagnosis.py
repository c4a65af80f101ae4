"""The checks of doctor on the way to a hub: its name, its certificate, the parts behind it."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from syftmesh_core.clock import Clock

from syftmesh.cli.diagnosis import Finding, Status

if TYPE_CHECKING:
    from syftmesh_client.trust import HubTrust

LOOK_S: Final = 10.0
_DAY_S: Final = 86400.0
_DAYS_WARN: Final = 14
_RENEW: Final = "Ask the hub's operator to renew the certificate."

Resolve = Callable[[str], list[str]]
"""Returns the addresses of a name; raises OSError when it has none."""

Look = Callable[[str, int, ssl.SSLContext], Mapping[str, Any]]
"""Returns the certificate at a host and port, verified; raises OSError (`ssl.SSLError` is one)."""


def resolve(name: str) -> list[str]:
    """Return the addresses that this machine's resolver gives for `name`.

    Raises:
        OSError: There is none, or no resolver answers.
    """
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})


def look(host: str, port: int, context: ssl.SSLContext) -> Mapping[str, Any]:
    """Return the certificate that is shown at `host`, verified by `context`.

    Raises:
        OSError: Nobody answers, or it does not verify (`ssl.SSLCertVerificationError`).
    """
    with (
        socket.create_connection((host, port), LOOK_S) as connection,
        context.wrap_socket(connection, server_hostname=host) as secure,
    ):
        return secure.getpeercert() or {}


def dns_finding(server: str, ask: Resolve = resolve) -> Finding | None:
    """Look whether the hub's name is known here; None where the address names none."""
    name = _host(server)
    if name is None or name == "localhost" or _is_address(name):
        return None
    try:
        found = ask(name)
    except OSError:
        return Finding("dns", Status.FAIL, f"The name {name} is not known here.", f"nslookup {name}")
    return Finding("dns", Status.OK, f"{name} is {', '.join(found[:3])}")


def certificate_finding(server: str, trust: HubTrust, clock: Clock, see: Look = look) -> Finding | None:
    """Look whether the hub proves itself, and for how long its chain holds; None without TLS or answer."""
    from syftmesh_client.trust import untrusted

    parts = urlsplit(server)
    if parts.scheme != "https" or parts.hostname is None:
        return None
    context = trust.context()
    try:
        found = see(parts.hostname, parts.port or 443, context)
    except ssl.SSLCertVerificationError as error:
        said = untrusted(error, server)
        return Finding("tls", Status.FAIL, said.message, said.hint)
    except ssl.SSLError:
        return Finding("tls", Status.FAIL, "What answers there speaks no TLS.", f"curl -v {server}")
    except OSError:
        return None  # that nobody answers is for the next check to say
    chain = [found, *(context.get_ca_certs() if trust.pem is not None else ())]
    days = int((_end_s(chain) - clock.now_ms() / 1000) // _DAY_S)
    whose = "the authority given" if trust.pem is not None else "a well-known authority"
    detail = f"proven by {whose}, for {days} more days"
    if days < _DAYS_WARN:
        return Finding("tls", Status.WARN, detail, _RENEW)
    return Finding("tls", Status.OK, detail)


def parts_finding(server: str, parts: Mapping[str, bool] | None) -> Finding:
    """Look at the services behind the hub's address, as it tells of them itself; None: it does not."""
    follow = "syftmesh status" if is_loopback(server) else "kubectl get pods"
    if not parts:
        return Finding("parts", Status.WARN, "The hub does not tell how its parts are.", follow)
    silent = sorted(name for name, serves in parts.items() if not serves)
    if silent:
        return Finding("parts", Status.FAIL, f"Not serving: {', '.join(silent)}.", follow)
    return Finding("parts", Status.OK, f"{', '.join(sorted(parts))} serve")


def is_loopback(server: str) -> bool:
    """Return whether a hub's address is one of this machine alone."""
    name = _host(server)
    if name is None or name == "localhost":
        return name is not None
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _host(server: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(server).hostname
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _end_s(chain: list[Mapping[str, Any]]) -> float:
    return min(ssl.cert_time_to_seconds(str(found["notAfter"])) for found in chain if "notAfter" in found)
