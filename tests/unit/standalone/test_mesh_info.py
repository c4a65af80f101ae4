"""The file that says what runs, the profiles that follow it, phrases and leases."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from syftmesh_agent.app import SOCKET_FILE as AGENT_SOCKET_FILE
from syftmesh_client.profile import ProfileStore, embedded_server
from syftmesh_kit.lease import freed_lease
from syftmesh_runner.app import SOCKET_FILE as RUNNER_SOCKET_FILE
from syftmesh_standalone.info import MeshInfo, move_profiles, read_info, remove_info, write_info
from syftmesh_standalone.lease import _OF_THE_HOLDER
from syftmesh_standalone.options import AGENT_SOCKET, RUNNER_SOCKET
from syftmesh_standalone.site_maker import keep_phrase, recovery_file

INFO = MeshInfo(
    server="http://127.0.0.1:8080",
    grpc="127.0.0.1:8081",
    pid=7,
    version="0.1.0",
    processes=False,
    sites=("a@x.example",),
    children={"nats-server": 8, "seaweedfs": 9},
    started_at="2026-01-01T00:00:00+00:00",
)


def test_what_is_written_is_read_by_us_and_by_clients(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    assert read_info(hub) is None
    write_info(hub, INFO)
    assert read_info(hub) == INFO
    assert embedded_server(tmp_path) == INFO.server
    assert stat.S_IMODE((hub / "mesh.json").stat().st_mode) == 0o600
    remove_info(hub)
    remove_info(hub)
    assert read_info(hub) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"server": 1}', '{"children": 3}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "mesh.json").write_text(text)
    assert read_info(tmp_path) is None


def test_profiles_of_this_mesh_follow_it_to_another_port_and_others_stay(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    store = ProfileStore(tmp_path)
    move_profiles(tmp_path, hub, "http://127.0.0.1:8080")
    store.save("a@x.example", "http://127.0.0.1:8080")
    store.save("b@y.example", "https://mesh.example")
    store.save("c@z.example", "http://127.0.0.1:9999")
    move_profiles(tmp_path, hub, "http://127.0.0.1:8090")
    found = {profile.email: profile.server for profile in store.list()}
    assert found == {
        "a@x.example": "http://127.0.0.1:8090",
        "b@y.example": "https://mesh.example",
        "c@z.example": "http://127.0.0.1:9999",
    }


def test_a_recovery_phrase_never_replaces_another(tmp_path: Path) -> None:
    path = recovery_file(tmp_path, "a@x.example")
    for word in ("one", "two", "three"):
        keep_phrase(path, (word, "more"))
    texts = {found.name: found.read_text() for found in path.parent.iterdir()}
    assert texts == {
        "a@x.example.txt": "three more\n",
        "a@x.example.txt.1": "one more\n",
        "a@x.example.txt.2": "two more\n",
    }
    assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_lease_is_freed_with_its_term_and_what_it_keeps() -> None:
    held = {"holder": "r1", "term": 7, "value": {"router": "r1", "base": 3}}
    freed = freed_lease(json.dumps(held).encode(), forget=_OF_THE_HOLDER)
    assert freed is not None
    assert json.loads(freed) == {"holder": "", "term": 7, "value": {"router": "", "base": 3}}
    assert freed_lease(freed) is None
    journal = {"holder": "j", "term": 2, "value": {"epoch": 1, "last": 40}}
    assert json.loads(freed_lease(json.dumps(journal).encode()) or b"")["value"] == journal["value"]


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"app": 5}', b'{"holder": "x"}', b"\xff"])
def test_what_is_no_lease_is_left_alone(value: bytes) -> None:
    assert freed_lease(value) is None


def test_sockets_are_named_as_the_services_name_them() -> None:
    assert (AGENT_SOCKET, RUNNER_SOCKET) == (AGENT_SOCKET_FILE, RUNNER_SOCKET_FILE)
