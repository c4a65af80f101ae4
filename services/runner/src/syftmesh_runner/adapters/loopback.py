"""Ports of this machine's own network."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a TCP port that nobody listens on at 127.0.0.1 now; the system does not give it out at once again."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
