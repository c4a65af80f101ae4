"""Which files are secrets of this process alone: one's own, and those that kubelet mounts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from syftmesh_core.errors import WrongState
from syftmesh_kit import private_file
from syftmesh_kit.private_file import is_private, read_private, write_private

OURS, GROUP, OTHER = 65532, 65532, 1000


@pytest.fixture
def as_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of the user and groups that a pod has."""
    monkeypatch.setattr(os, "geteuid", lambda: OURS)
    monkeypatch.setattr(os, "getegid", lambda: GROUP)
    monkeypatch.setattr(os, "getgroups", lambda: [GROUP, 4711])


def _stat(mode: int, uid: int, gid: int, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, uid, gid, 10, 0, 0, 0))


@pytest.mark.usefixtures("as_pod")
@pytest.mark.parametrize(
    ("mode", "uid", "gid"),
    [(0o600, OURS, GROUP), (0o400, OURS, OTHER), (0o440, 0, GROUP), (0o440, 0, 4711)],
)
def test_own_and_mounted_secrets_are_private(mode: int, uid: int, gid: int) -> None:
    assert is_private(_stat(mode, uid, gid))


@pytest.mark.usefixtures("as_pod")
@pytest.mark.parametrize(
    ("mode", "uid", "gid"),
    [
        (0o640, OURS, GROUP),  # readable by the group, and not root's
        (0o440, OURS, GROUP),
        (0o440, OTHER, GROUP),
        (0o600, OTHER, GROUP),
        (0o444, 0, GROUP),  # root's, and everybody's
        (0o660, 0, GROUP),  # root's, and written by the group
        (0o640, 0, GROUP),
        (0o440, 0, OTHER),  # of a group that is not ours
        (0o4440, 0, GROUP),
    ],
)
def test_what_others_can_open_is_not_private(mode: int, uid: int, gid: int) -> None:
    assert not is_private(_stat(mode, uid, gid))


@pytest.mark.usefixtures("as_pod")
@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_only_regular_files_are_private(kind: int) -> None:
    assert not is_private(_stat(0o600, OURS, GROUP, kind))


def test_written_files_are_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"
    write_private(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_private(path, b"two")
    assert read_private(path) == b"one"
    assert [p.name for p in path.parent.iterdir()] == ["secret"]
    assert read_private(tmp_path / "none") is None


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(WrongState) as caught:
        read_private(tmp_path / "pipe")
    assert caught.value.reason == "FILE_NOT_PRIVATE"


def _mounted(folder: Path) -> Path:
    """Lay a secret out as kubelet does: a link to a link to the folder of the newest version."""
    version = folder / "..2026_01_01"
    version.mkdir()
    write_private(version / "signing.pem", b"secret")
    (folder / "..data").symlink_to(version.name)
    (folder / "signing.pem").symlink_to("..data/signing.pem")
    return folder / "signing.pem"


def test_links_of_ones_own_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _mounted(tmp_path)
    os.lchown(path, OTHER, OTHER) if os.getuid() == 0 else None
    monkeypatch.setattr(os, "geteuid", lambda: OURS)
    with pytest.raises(WrongState):
        read_private(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make the files that kubelet makes")
def test_links_of_roots_are_followed_to_a_mounted_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _mounted(tmp_path)
    path.resolve().chmod(0o440)
    monkeypatch.setattr(os, "geteuid", lambda: OURS)
    assert read_private(path) == b"secret"
    path.resolve().chmod(0o444)
    with pytest.raises(WrongState):
        read_private(path)


def test_root_itself_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _mounted(tmp_path)
    monkeypatch.setattr(private_file.os, "geteuid", lambda: 0)
    with pytest.raises(WrongState):
        read_private(path)
