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
_PAUSE_S = 0.025
"""Between two rounds: each leaves a connection without a word at the API server."""
_PATIENCE = 4
"""How many times as long as the slowest one that stood the next attempts are given."""
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
        self._began_s = self._round_s = time.monotonic()
        self._slowest_s = 0.0
        self._open: dict[str, socket.socket] = {}
        self._seen: dict[str, str] = {}
        self._start()

    def reached(self, least_s: float) -> dict[str, str]:
        """Return what each attempt came to once none works any more, or after the grace of a slow policy.

        Args:
            least_s: How long attempts are given at least; what nothing stops stands within the time that a packet
                takes to the API server and back. Where one that stood took long, the next are given longer.

        ``OPEN`` means that a connection stood; anything else is an error's name or ``DROPPED``.
        """
        while True:
            seen = self._answered(max(least_s, _PATIENCE * self._slowest_s))
            if "OPEN" not in seen.values() or time.monotonic() - self._began_s > _GRACE_S:
                return seen
            time.sleep(_PAUSE_S)
            self._round_s = time.monotonic()
            self._start()

    def _start(self) -> None:
        self._seen.clear()
        for name, address in self._places.items():
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            client = socket.socket(family, socket.SOCK_STREAM)
            client.setblocking(False)
            number = client.connect_ex(address)
            self._open[name] = client
            if number != errno.EINPROGRESS:
                self._note(name, number)

    def _answered(self, least_s: float) -> dict[str, str]:
        """Return what the attempts came to: as soon as one of them stands, else after their time."""
        is_first = self._round_s == self._began_s
        while True:
            left_s = max(0.0, self._round_s + least_s - time.monotonic())
            _, done, _ = select.select([], list(self._open.values()), [], left_s)
            for name, client in list(self._open.items()):
                if client in done:
                    # To ask takes the error away: each is asked once.
                    self._note(name, client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            if "OPEN" in self._seen.values():
                # The first attempts may have stood long before they were looked at.
                took_s = 0.0 if is_first else time.monotonic() - self._round_s
                self._slowest_s = max(self._slowest_s, took_s)
                break
            if not left_s or not self._open:
                break
        for name, client in self._open.items():
            self._seen[name] = "DROPPED"
            client.close()
        self._open.clear()
        return dict(self._seen)

    def _note(self, name: str, number: int) -> None:
        self._seen[name] = errno.errorcode.get(number, "FAILED") if number else "OPEN"
        self._open.pop(name).close()
