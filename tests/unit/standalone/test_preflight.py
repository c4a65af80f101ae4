"""What must hold before anything is started."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from syftmesh_core.errors import InvalidInput, NotFound, Unavailable, WrongState, mesh_error
from syftmesh_kit.settings import load_settings
from syftmesh_runner.settings import RunnerSettings
from syftmesh_standalone.options import HubPlace, parse_sites
from syftmesh_standalone.preflight import (
    known_sites,
    prepare_state,
    require_sandbox,
    require_space,
)

GB = 1_000_000_000


def test_a_new_state_is_private(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    assert prepare_state(state) == state / "hub"
    for folder in (state, state / "hub", state / "sites"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_state_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    state = tmp_path / "open state"
    state.mkdir(mode=0o755)
    with pytest.raises(WrongState) as refused:
        prepare_state(state)
    assert refused.value.reason == "STATE_UNUSABLE"
    assert f"chmod 700 '{state}'" in refused.value.hint
    state.chmod(0o700)
    prepare_state(state)


def test_a_hub_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "hub").mkdir(mode=0o750)
    with pytest.raises(WrongState) as refused:
        prepare_state(tmp_path)
    assert refused.value.reason == "STATE_UNUSABLE"


def test_a_file_in_place_of_the_state_is_refused_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(WrongState) as refused:
        prepare_state(tmp_path / "state")
    assert refused.value.reason == "STATE_UNUSABLE"
    assert str(tmp_path) not in refused.value.message


def test_a_state_whose_path_the_object_store_would_take_for_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongState) as refused:
        prepare_state(tmp_path / "one,two")
    assert refused.value.reason == "STATE_UNUSABLE"
    assert not (tmp_path / "one,two").exists()


@pytest.mark.parametrize(("total", "free"), [(10 * GB, GB // 10), (1000 * GB, 9 * GB)])
def test_a_disk_that_is_all_but_full_is_refused(tmp_path: Path, total: int, free: int) -> None:
    with pytest.raises(Unavailable) as refused:
        require_space(tmp_path, lambda _: (total, free))
    assert refused.value.reason == "NO_SPACE"
    assert refused.value.metadata["free_bytes"] == str(free)
    assert "--state" in refused.value.hint


def test_a_disk_with_room_is_taken(tmp_path: Path) -> None:
    require_space(tmp_path, lambda _: (10 * GB, GB))
    require_space(tmp_path, lambda _: (1000 * GB, 12 * GB))


def test_sites_without_a_sandbox_are_refused_by_name_and_a_hub_alone_is_not() -> None:
    require_sandbox((), which=lambda _: None)
    require_sandbox(("a@x.example",), which=lambda _: "/usr/bin/bwrap")
    with pytest.raises(Unavailable) as refused:
        require_sandbox(("a@x.example", "b@y.example"), which=lambda _: None)
    assert refused.value.reason == "SANDBOX_MISSING"
    assert "a@x.example, b@y.example" in refused.value.message
    assert "install bubblewrap" in refused.value.hint


def test_known_sites_are_the_folders_with_the_name_of_a_principal(tmp_path: Path) -> None:
    assert known_sites(tmp_path) == ()
    for name in ("b@y.example", "a@x.example", "lost+found", "A@X.example"):
        (tmp_path / "sites" / name).mkdir(parents=True)
    (tmp_path / "sites" / "c@z.example").write_text("")
    assert known_sites(tmp_path) == ("a@x.example", "b@y.example")


def test_an_error_is_found_inside_of_groups_and_defects_are_none() -> None:
    error = NotFound("x")
    assert mesh_error(error) is error
    assert mesh_error(ExceptionGroup("a", [ValueError(), ExceptionGroup("b", [error])])) is error
    assert mesh_error(ExceptionGroup("a", [ValueError()])) is None
    assert mesh_error(KeyError()) is None


def test_sites_are_normalised_and_named_once() -> None:
    assert parse_sites(" A@X.example, b@y.example,a@x.example,,") == ("a@x.example", "b@y.example")
    assert parse_sites("") == ()
    with pytest.raises(InvalidInput) as refused:
        parse_sites("a@x.example,nobody")
    assert refused.value.reason == "PRINCIPAL_INVALID"
    with pytest.raises(InvalidInput) as refused:
        parse_sites(",".join(f"a{number}@x.example" for number in range(40)))
    assert refused.value.reason == "TOO_MANY_SITES"


def test_settings_come_from_us_then_from_the_environment_and_a_wrong_one_is_named_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYFTMESH_RUNNER_PARALLEL", "3")
    monkeypatch.setenv("SYFTMESH_RUNNER_SERVER_URL", "http://elsewhere")
    found = load_settings(RunnerSettings, state_dir=tmp_path, server_url="http://here")
    assert (found.parallel, found.server_url) == (3, "http://here")
    monkeypatch.setenv("SYFTMESH_RUNNER_PARALLEL", "hunter2")
    with pytest.raises(InvalidInput) as refused:
        load_settings(RunnerSettings, state_dir=tmp_path)
    assert refused.value.metadata == {"variable": "SYFTMESH_RUNNER_PARALLEL"}
    assert "hunter2" not in refused.value.message


def test_presigned_requests_lead_through_the_gateway(tmp_path: Path) -> None:
    place = HubPlace(tmp_path, 8080, 8081)
    assert place.server == "http://127.0.0.1:8080"
    assert place.grpc == "127.0.0.1:8081"
    assert place.object_base == "http://127.0.0.1:8080/objects"
