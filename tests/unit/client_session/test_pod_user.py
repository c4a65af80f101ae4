"""Keys, tokens and secret files of a process that runs as a pod's user, on a volume that kubelet has prepared."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from syftmesh_client.account import create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.node import read_private
from syftmesh_client.profile import ProfileStore, keep_trust
from syftmesh_client.trust import CA_FILE, HubTrust
from syftmesh_client.volume import tighten_volume
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import NotFound, WrongState

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a pod's user")

USER = 65532
ALICE = "alice@hospital.example"


def as_pod(work: Callable[[], None]) -> None:
    """Do `work` in a child that is uid 65532 in group 65532 alone, and fail as it fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - told on stderr, and by the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as text:
        Path(text).chmod(0o755)
        yield Path(text)


@pytest.fixture
def volume(place: Path) -> Path:
    """The root of a volume as kubelet leaves it: root's, of the pod's group, set-group-ID."""
    made = place / "volume"
    made.mkdir()
    os.chown(made, 0, USER)
    made.chmod(0o2775)
    return made


def _make_profile(state: Path) -> Path:
    folder = ProfileStore(state).save(ALICE, "https://hub.example").folder
    account = create_account(ALICE, SystemClock())
    KeyStore.create(folder, device=account.device, own_root=account.root_public)
    keep_trust(folder, HubTrust(b"pem"))
    return folder


def test_keys_on_a_volume_are_private_from_their_first_byte(volume: Path) -> None:
    as_pod(lambda: _open(_make_profile(volume)))
    folder = volume / "profiles" / ALICE
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_keys_that_kubelet_opened_with_the_next_mount_are_refused_until_they_are_tightened(
    volume: Path,
) -> None:
    as_pod(lambda: _open(_make_profile(volume)))
    folder = volume / "profiles" / ALICE
    for path in (volume / "profiles", folder, *folder.iterdir()):  # what fsGroup does with policy Always
        path.chmod(0o2770 if path.is_dir() else 0o660)

    def refused_then_opened() -> None:
        with pytest.raises(WrongState):
            KeyStore.open(folder)
        assert tighten_volume(volume)
        _open(folder)

    as_pod(refused_then_opened)
    assert (folder / CA_FILE).stat().st_mode & 0o777 == 0o600


def _open(folder: Path) -> None:
    assert KeyStore.open(folder).device.principal == ALICE


@pytest.mark.parametrize(
    ("owner", "group", "mode", "taken"),
    [
        (0, USER, 0o440, True),
        (USER, USER, 0o600, True),
        (USER, USER, 0o400, True),
        (USER, USER, 0o440, False),
        (0, USER, 0o444, False),
        (0, USER, 0o640, False),
        (1000, USER, 0o440, False),
    ],
)
def test_a_mounted_secret_is_taken_and_an_open_file_is_not(
    place: Path, owner: int, group: int, mode: int, taken: object
) -> None:
    data = place / "..data"
    data.mkdir()
    file = data / "token"
    file.write_text("smj1.a.b.c\n")
    os.chown(file, owner, group)
    file.chmod(mode)
    (place / "token").symlink_to("..data/token")  # as kubelet lays a Secret out

    def read() -> None:
        if taken:
            assert read_private(file) == "smj1.a.b.c"
            assert read_private(place / "token") == "smj1.a.b.c"
            return
        with pytest.raises(WrongState) as caught:
            read_private(place / "token")
        assert caught.value.reason == "FILE_NOT_PRIVATE"

    as_pod(read)


def test_a_token_that_is_not_mounted_is_missing(place: Path) -> None:
    def read() -> None:
        with pytest.raises(NotFound):
            read_private(place / "token")

    as_pod(read)
