"""One mesh on one state."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from syftmesh_core.errors import WrongState
from syftmesh_standalone.state_lock import LOCK_FILE, StateLock, holder


def test_a_second_mesh_is_told_who_holds_the_state(tmp_path: Path) -> None:
    with StateLock.acquire(tmp_path):
        with pytest.raises(WrongState) as refused:
            StateLock.acquire(tmp_path)
    assert refused.value.reason == "STATE_LOCKED"
    assert refused.value.metadata == {"pid": str(os.getpid())}
    assert str(os.getpid()) in refused.value.message


def test_the_lock_can_be_taken_again_once_it_is_released(tmp_path: Path) -> None:
    StateLock.acquire(tmp_path).release()
    StateLock.acquire(tmp_path).release()


def test_the_holder_is_known_while_the_lock_is_held_and_no_longer(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with StateLock.acquire(tmp_path):
        assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None


def test_a_lock_file_that_a_killed_mesh_left_holds_nobody_off(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("4711\n")
    assert holder(tmp_path) is None
    with StateLock.acquire(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_the_lock_file_is_private(tmp_path: Path) -> None:
    with StateLock.acquire(tmp_path):
        assert stat.S_IMODE((tmp_path / LOCK_FILE).stat().st_mode) == 0o600


def test_a_link_in_place_of_the_lock_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        StateLock.acquire(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
