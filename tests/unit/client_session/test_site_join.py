"""Agent and runner of a site that joins a hub elsewhere, and its state on a volume of a pod."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh_client import volume
from syftmesh_client.site import SiteFolders
from syftmesh_client.site_join import invite_programs
from syftmesh_client.token_file import StoredTokens, TokenFile
from syftmesh_client.trust import CA_FILE, HubTrust
from syftmesh_client.volume import is_mounted, tighten, tighten_volume
from syftmesh_core.clock import system_random
from syftmesh_core.errors import Unavailable
from syftmesh_kit.testing import FakeClock

ALICE = "alice@hospital.example"
NOW_MS = 1_767_225_600_000


@dataclass
class Identity:
    """Makes join tokens."""

    asked: list[Any] = field(default_factory=list)
    error: Exception | None = None

    async def CreateJoinToken(self, request: Any) -> Any:  # noqa: N802 - name of the RPC
        if self.error is not None:
            raise self.error
        self.asked.append(request)
        return SimpleNamespace(secret=f"smj1.{request.label}.{len(self.asked)}")


@dataclass
class Place:
    folders: SiteFolders
    identity: Identity
    node: Any

    async def log_in(self, folder: Path, ends_ms: int) -> None:
        tokens = StoredTokens(ALICE, "device", "access", ends_ms, "refresh", ends_ms)
        await TokenFile(folder).write(tokens)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folders = SiteFolders.of(tmp_path, ALICE)
    for folder in (folders.agent, folders.runner_keys):
        folder.mkdir(parents=True, mode=0o700)
    identity = Identity()
    node = SimpleNamespace(
        principal=ALICE,
        session=SimpleNamespace(identity=identity),
        trust=HubTrust(b"certificates"),
        clock=FakeClock(now_ms=NOW_MS),
        random=system_random,
    )
    return Place(folders, identity, node)


async def test_each_program_gets_a_token_of_its_own_and_what_proves_the_hub(place: Place) -> None:
    assert await invite_programs(place.node, place.folders) == ["agent", "runner"]
    assert [(r.principal, r.label, r.ttl_seconds) for r in place.identity.asked] == [
        (ALICE, "agent", 86400),
        (ALICE, "runner", 86400),
    ]
    for folder, token in ((place.folders.agent, "smj1.agent.1\n"), (place.folders.runner, "smj1.runner.2\n")):
        assert (folder / "join.token").read_text() == token
        assert (folder / "join.token").stat().st_mode & 0o777 == 0o600
    for keys in (place.folders.agent, place.folders.runner_keys):
        assert (keys / CA_FILE).read_bytes() == b"certificates"


async def test_a_program_that_is_logged_in_gets_none_and_loses_the_one_it_has_used(place: Place) -> None:
    await invite_programs(place.node, place.folders)
    await place.log_in(place.folders.agent, NOW_MS + 1)
    assert await invite_programs(place.node, place.folders) == ["runner"]
    assert not (place.folders.agent / "join.token").exists()
    assert (place.folders.runner / "join.token").read_text() == "smj1.runner.3\n"


async def test_a_program_that_was_away_for_long_is_invited_again(place: Place) -> None:
    await place.log_in(place.folders.agent, NOW_MS)
    await place.log_in(place.folders.runner_keys, NOW_MS + 1)
    assert await invite_programs(place.node, place.folders) == ["agent"]


async def test_what_proved_another_hub_is_forgotten(place: Place) -> None:
    (place.folders.agent / CA_FILE).write_bytes(b"old")
    place.node.trust = HubTrust()
    await invite_programs(place.node, place.folders)
    assert not (place.folders.agent / CA_FILE).exists()


async def test_a_hub_that_is_away_leaves_no_empty_token(place: Place) -> None:
    place.identity.error = Unavailable("away", reason="SERVER_UNREACHABLE")
    with pytest.raises(Unavailable):
        await invite_programs(place.node, place.folders)
    assert not (place.folders.agent / "join.token").exists()


def _stat(mode: int, user: int, group: int) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, user, group, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "group", "user", "mounted"),
    [
        (0o2775, 0, 65532, 65532, True),
        (0o2770, 0, 65532, 65532, True),
        (0o775, 0, 65532, 65532, False),
        (0o2770, 1000, 65532, 65532, False),
        (0o2770, 65532, 65532, 65532, False),
        (0o2770, 0, 7, 65532, False),
        (0o2770, 0, 65532, 0, False),
    ],
)
def test_a_pods_volume_is_told_from_a_folder_of_a_person(
    mode: int, owner: int, group: int, user: int, mounted: object
) -> None:
    assert is_mounted(_stat(mode, owner, group), user, {65532}) is mounted


def _opened(state: Path) -> Path:
    keys = state / "profiles/alice"
    keys.mkdir(parents=True)
    (keys / "device.key").write_bytes(b"k")
    (keys / "device.key").chmod(0o660)
    (keys / "link").symlink_to("/etc/passwd")
    keys.chmod(0o2770)
    return keys


def test_what_kubelet_opened_to_the_group_is_the_owners_alone_again(tmp_path: Path) -> None:
    keys = _opened(tmp_path)
    before = Path("/etc/passwd").stat().st_mode
    tighten(tmp_path)
    assert stat.S_IMODE(keys.stat().st_mode) & 0o777 == 0o700
    assert (keys / "device.key").stat().st_mode & 0o777 == 0o600
    assert Path("/etc/passwd").stat().st_mode == before


def test_a_persons_own_folder_is_left_for_the_person_to_mend(tmp_path: Path) -> None:
    keys = _opened(tmp_path)
    assert tighten_volume(tmp_path) is False
    assert tighten_volume(tmp_path / "none") is False
    assert (keys / "device.key").stat().st_mode & 0o777 == 0o660


def test_a_volume_is_tightened_below_its_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = _opened(tmp_path)
    tmp_path.chmod(0o2770)
    monkeypatch.setattr(volume, "is_mounted", lambda *_: True)
    assert tighten_volume(tmp_path) is True
    assert (keys / "device.key").stat().st_mode & 0o777 == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o2770
