"""What the isolation probe calls reached: a connection that is made, a question that is answered."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from syftmesh_cluster import isolation_probe as probing

pytestmark = pytest.mark.integration


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def name_server() -> Iterator[str]:
    """Answers one question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            question, asker = server.recvfrom(512)
            assert question[12:23] == b"\x0akubernetes"
            server.sendto(question[:2] + b"\x81\x83" + question[4:], asker)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_listener_is_reached(listening):
    assert probing.tcp_reached(listening)


def test_who_refuses_is_not_reached():
    assert not probing.tcp_reached(f"127.0.0.1:{free_port()}")
    assert not probing.udp_answered(f"127.0.0.1:{free_port()}")


def test_a_name_server_that_answers_is_reached(name_server):
    assert probing.udp_answered(name_server)


def test_a_name_server_that_is_silent_is_not_reached(monkeypatch):
    monkeypatch.setattr(probing, "CONNECT_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert not probing.udp_answered(f"127.0.0.1:{silent.getsockname()[1]}")


def test_the_file_alone_runs_without_its_package_and_names_an_open_target(listening):
    done = subprocess.run(
        [sys.executable, "-I", probing.__file__],
        env={"SYFTMESH_PROBE_TARGETS": listening, "SYFTMESH_PROBE_GRACE_S": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert f"fail  no-tcp-{listening}: reached" in done.stdout.splitlines()
    assert "next: Install a network plugin that enforces NetworkPolicy" in done.stdout
