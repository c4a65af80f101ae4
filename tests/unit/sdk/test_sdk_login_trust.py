"""By what a login takes the hub for the hub, and what the profile keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from syftmesh import connection
from syftmesh.connection import login_async
from syftmesh_client.profile import ProfileStore, keep_trust
from syftmesh_client.trust import CA_FILE, HubTrust, downgrade
from syftmesh_core.errors import IntegrityFailure, Unauthenticated

CAROL = "carol@lab.example"
OLD, NEW = "https://old.example", "https://new.example"
PRIVATE, INTERNET = b"private authority", None


class World:
    """Hubs by address, and the authority that each is proven by."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.hubs: dict[str, bytes | None] = {OLD: PRIVATE, NEW: INTERNET}
        self.asked: list[tuple[str, bytes | None]] = []
        self.error: Exception | None = None

    async def discover(self, server: str, *, trust: HubTrust) -> None:
        self.asked.append((server, trust.pem))
        if self.hubs[server] != trust.pem:
            raise IntegrityFailure("no", reason="SERVER_UNTRUSTED")

    async def open_account(self, _profile: Any, _login: Any, **_options: Any) -> bool:
        if self.error is not None:
            raise self.error
        return False

    async def log_in(self, server: str | None = None, ca_file: Path | None = None) -> None:
        token = self.state.parent / "token"
        await login_async(server, email=CAROL, token_file=token, ca_file=ca_file, state=self.state)

    def kept(self) -> bytes | None:
        file = self.state / "profiles" / CAROL / CA_FILE
        return file.read_bytes() if file.exists() else None


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "state")
    monkeypatch.setattr(connection, "discover", made.discover)
    monkeypatch.setattr(connection, "open_account", made.open_account)
    monkeypatch.setattr(HubTrust, "of_file", classmethod(lambda cls, path: cls(path.read_bytes())))
    monkeypatch.delenv("SYFTMESH_SERVER", raising=False)
    return made


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(PRIVATE)
    return file


async def test_what_proved_the_hub_is_kept_and_used_from_then_on(world: World, ca_file: Path) -> None:
    await world.log_in(OLD, ca_file)
    assert world.kept() == PRIVATE
    await world.log_in()
    assert world.asked == [(OLD, PRIVATE)] * 2


async def test_nothing_is_kept_of_a_hub_that_did_not_prove_itself(world: World, ca_file: Path) -> None:
    with pytest.raises(IntegrityFailure):
        await world.log_in(NEW, ca_file)
    assert not world.state.exists()


async def test_a_login_that_comes_to_nothing_leaves_nothing(world: World, ca_file: Path) -> None:
    world.error = Unauthenticated("used", reason="JOIN_TOKEN_INVALID")
    with pytest.raises(Unauthenticated):
        await world.log_in(OLD, ca_file)
    assert not (world.state / "profiles" / CAROL).exists()


async def test_the_internets_authorities_never_stand_in_for_those_given_for_a_hub(world: World) -> None:
    profile = ProfileStore(world.state).save(CAROL, OLD)
    keep_trust(profile.folder, HubTrust(PRIVATE))
    world.hubs[OLD] = INTERNET
    with pytest.raises(IntegrityFailure):
        await world.log_in()
    with pytest.raises(IntegrityFailure):
        await world.log_in(f"{OLD}")
    assert [pem for _, pem in world.asked] == [PRIVATE, PRIVATE]
    assert world.kept() == PRIVATE


async def test_a_profile_may_move_to_a_hub_that_the_internets_authorities_prove(world: World) -> None:
    profile = ProfileStore(world.state).save(CAROL, OLD)
    keep_trust(profile.folder, HubTrust(PRIVATE))
    await world.log_in(NEW)
    assert world.asked == [(NEW, PRIVATE), (NEW, INTERNET)]
    assert world.kept() is None


async def test_another_refusal_is_no_reason_to_try_other_authorities(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ProfileStore(world.state).save(CAROL, OLD)
    keep_trust(profile.folder, HubTrust(PRIVATE))
    asked: list[HubTrust] = []

    async def discover(_server: str, *, trust: HubTrust) -> None:
        asked.append(trust)
        raise downgrade("gRPC port")

    monkeypatch.setattr(connection, "discover", discover)
    with pytest.raises(IntegrityFailure) as caught:
        await world.log_in(NEW)
    assert (caught.value.reason, len(asked)) == ("SERVER_DOWNGRADE", 1)


async def test_nothing_is_made_where_nobody_is_let_in_by_name_alone(world: World, ca_file: Path) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await login_async(OLD, email=CAROL, ca_file=ca_file, state=world.state)
    assert caught.value.reason == "NOT_LOGGED_IN"
    assert not world.state.exists()
