"""Profiles of a machine: which one is meant, and where the local token of a mesh is offered."""

from __future__ import annotations

import json

import pytest
from syftmesh_client.profile import ProfileStore, default_state, node_login
from syftmesh_core.errors import InvalidInput, NotFound, WrongState

ALICE, BOB = "alice@x.example", "bob@x.example"
SERVER = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def _no_profile_named(monkeypatch):
    monkeypatch.delenv("SYFTMESH_PROFILE", raising=False)
    monkeypatch.delenv("SYFTMESH_STATE", raising=False)


def test_a_profile_is_found_again_by_any_spelling_of_its_email(tmp_path):
    store = ProfileStore(tmp_path / "new")
    saved = store.save("Alice@X.example", SERVER)
    assert store.find("ALICE@x.example") == saved
    assert saved.email == ALICE
    assert saved.folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_only_profile_is_chosen_then_the_last_one_used(tmp_path, monkeypatch):
    store = ProfileStore(tmp_path)
    with pytest.raises(NotFound) as none:
        store.choose(None)
    assert none.value.reason == "PROFILE_MISSING"
    store.save(ALICE, SERVER)
    assert store.choose(None).email == ALICE
    bob = store.save(BOB, SERVER)
    with pytest.raises(InvalidInput) as several:
        store.choose(None)
    assert several.value.reason == "PROFILE_AMBIGUOUS"
    store.note_used(bob)
    assert store.choose(None).email == BOB
    monkeypatch.setenv("SYFTMESH_PROFILE", ALICE)
    assert store.choose(None).email == ALICE
    assert store.choose(BOB).email == BOB


def test_an_unknown_or_damaged_profile_is_named(tmp_path):
    store = ProfileStore(tmp_path)
    with pytest.raises(NotFound) as unknown:
        store.choose(ALICE)
    assert (unknown.value.reason, unknown.value.hint) == (
        "PROFILE_UNKNOWN",
        f"syftmesh login --email {ALICE}",
    )
    profile = store.save(ALICE, SERVER)
    (profile.folder / "profile.json").write_text("[]")
    with pytest.raises(WrongState) as damaged:
        store.choose(ALICE)
    assert damaged.value.reason == "PROFILE_DAMAGED"
    assert store.list() == []
    with pytest.raises(InvalidInput):
        store.save("../x", SERVER)


@pytest.mark.parametrize(
    ("server", "running", "offered"),
    [
        (SERVER, None, True),
        (SERVER, SERVER, True),
        (SERVER, "http://127.0.0.1:9999", False),
        ("https://hub.example.org", None, False),
        ("http://127.0.0.1.evil.example:8080", None, False),
        ("http://[", None, False),
    ],
)
def test_the_local_token_is_offered_to_the_embedded_mesh_alone(tmp_path, server, running, offered):
    hub = tmp_path / "hub"
    hub.mkdir()
    assert node_login(tmp_path, SERVER).local_token_file is None
    (hub / "local.token").write_text("secret")
    if running is not None:
        (hub / "mesh.json").write_text(json.dumps({"server": running}))
    assert (node_login(tmp_path, server).local_token_file is not None) is offered


def test_the_state_folder_is_named_by_the_environment(tmp_path, monkeypatch):
    assert default_state().name == ".syftmesh"
    monkeypatch.setenv("SYFTMESH_STATE", str(tmp_path))
    assert default_state() == tmp_path
