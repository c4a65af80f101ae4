"""Whether anything can be reached from this pod: tried before the job starts, in the network it will have."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

_DNS_PORT = 53
_METADATA = ("169.254.169.254", 80)
_ROUND_S = 0.1
_GRACE_S = 6.0
"""How long a network that is only just being closed may take."""


def targets() -> dict[str, tuple[str, int]]:
    """Return what must not be reachable: the API server, name servers, the machine's metadata service."""
    found: dict[str, tuple[str, int]] = {"metadata": _METADATA}
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    if host:
        found["api_server"] = (host, int(os.environ.get("KUBERNETES_SERVICE_PORT", "443")))
    for number, server in enumerate(_name_servers()):
        found[f"dns_{number}"] = (server, _DNS_PORT)
    return found


def _name_servers() -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text().splitlines():
            if line.startswith("nameserver "):
                address = line.split()[1]
                if not address.startswith("127."):
                    yield address


class NetworkCheck:
    """Connections that are under way."""

    def __init__(self, places: dict[str, tuple[str, int]]) -> None:
        self._places = places
        self._began_s = time.monotonic()
        self._open: dict[str, socket.socket] = {}
        self._start()

    def reached(self, least_s: float) -> dict[str, str]:
        """Return what each attempt came to once none works any more, or after the grace of a slow policy.

        Args:
            least_s: How long to give the first attempts; what nothing stops stands within the time that a packet
                takes to the API server and back.

        ``OPEN`` means that a connection stood; anything else is an error's name or ``DROPPED``.
        """
        time.sleep(max(0.0, self._began_s + least_s - time.monotonic()))
        while True:
            seen = self._look()
            if "OPEN" not in seen.values() or time.monotonic() - self._began_s > _GRACE_S:
                self._close()
                return seen
            self._close()
            self._start()
            time.sleep(_ROUND_S)

    def _start(self) -> None:
        for name, address in self._places.items():
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            client = socket.socket(family, socket.SOCK_STREAM)
            client.setblocking(False)
            client.connect_ex(address)
            self._open[name] = client

    def _look(self) -> dict[str, str]:
        seen = {}
        for name, client in self._open.items():
            _, done, _ = select.select([], [client], [], 0)
            if not done:
                seen[name] = "DROPPED"
                continue
            number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            seen[name] = errno.errorcode.get(number, "FAILED") if number else "OPEN"
        return seen

    def _close(self) -> None:
        for client in self._open.values():
            client.close()
        self._open.clear()
