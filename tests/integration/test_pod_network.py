"""What the launcher of a run finds out about its network, against sockets that answer, refuse or keep silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from syftmesh_executor.pod import network
from syftmesh_executor.pod.network import NetworkCheck

pytestmark = pytest.mark.integration

LOOPBACK = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0), backlog=64) as server:
        yield server


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_what_answers_is_open_once_the_grace_is_over(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_GRACE_S", 0.2)
    places = {"api_server": listener.getsockname(), "dns_0": (LOOPBACK, free_port())}
    assert NetworkCheck(places).reached(0.03)["api_server"] == "OPEN"


def test_what_refuses_is_not_open_however_long_it_is_asked() -> None:
    assert NetworkCheck({"dns_0": (LOOPBACK, free_port())}).reached(0.2) == {"dns_0": "ECONNREFUSED"}


def test_what_keeps_silent_is_dropped() -> None:
    with (
        socket.create_server((LOOPBACK, 0), backlog=0) as full,
        socket.socket() as first,
        socket.socket() as more,
    ):
        # The queue of a server that takes nobody in is full: the kernel answers no further request.
        for client in (first, more):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        assert NetworkCheck({"metadata": full.getsockname()}).reached(0.1) == {"metadata": "DROPPED"}


def test_an_address_without_a_way_is_not_open() -> None:
    found = NetworkCheck({"metadata": ("255.255.255.255", 80)}).reached(0.05)
    assert found["metadata"] in {"ENETUNREACH", "EHOSTUNREACH", "EINVAL", "EACCES", "DROPPED"}


def test_a_network_that_closes_is_waited_for(listener: socket.socket) -> None:
    address = listener.getsockname()
    check = NetworkCheck({"api_server": address})
    closing = threading.Timer(0.15, listener.close)
    closing.start()
    try:
        assert check.reached(0.03) == {"api_server": "ECONNREFUSED"}
    finally:
        closing.join()
    assert check._slowest_s > 0, "an attempt that stood was seen before"
