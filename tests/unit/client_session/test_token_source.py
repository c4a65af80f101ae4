"""Tokens on disk, renewed once at a time, shared between processes."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace

import pytest
from syftmesh_client.login import read_local_token
from syftmesh_client.token_file import StoredTokens, TokenFile
from syftmesh_client.token_source import TokenSource
from syftmesh_core.errors import NotFound, Unauthenticated, Unavailable, WrongState

FIRST = StoredTokens("alice@x.example", "dev-1", "access-1", 900_000, "refresh-1", 9_000_000)


class Clock:
    def __init__(self) -> None:
        self.at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000


class Identity:
    """Rotates refresh tokens as the hub does."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.newest, self.used = clock, 1, []

    async def refresh(self, tokens: StoredTokens) -> StoredTokens:
        await asyncio.sleep(0)
        self.used.append(tokens.refresh_token)
        if tokens.refresh_token != f"refresh-{self.newest}":
            raise Unauthenticated("used", reason="REFRESH_REUSED")
        self.newest += 1
        return replace(
            tokens,
            access_token=f"access-{self.newest}",
            access_expires_ms=self.clock.at_ms + 900_000,
            refresh_token=f"refresh-{self.newest}",
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock) -> Identity:
    return Identity(clock)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "profile"


async def _source(folder, clock, **options) -> TokenSource:
    source = TokenSource(TokenFile(folder), clock, **options)
    await source.store(FIRST)
    return source


async def test_a_fresh_token_is_given_without_asking(folder, clock, hub):
    source = await _source(folder, clock)
    assert await source.access_token(hub.refresh) == "access-1"
    assert hub.used == []


async def test_a_token_is_renewed_a_minute_before_its_end(folder, clock, hub):
    source = await _source(folder, clock)
    clock.at_ms = 839_999
    assert await source.access_token(hub.refresh) == "access-1"
    clock.at_ms = 840_000
    assert await source.access_token(hub.refresh) == "access-2"
    assert (source.tokens.principal, source.tokens.device_id) == ("alice@x.example", "dev-1")


async def test_many_callers_renew_once(folder, clock, hub):
    source = await _source(folder, clock)
    clock.at_ms = 900_000
    tokens = await asyncio.gather(*(source.access_token(hub.refresh) for _ in range(20)))
    assert set(tokens) == {"access-2"}
    assert hub.used == ["refresh-1"]


async def test_programs_that_share_a_profile_renew_once(folder, clock, hub):
    one, two = await _source(folder, clock), TokenSource(TokenFile(folder), clock)
    await two.open()
    clock.at_ms = 900_000
    tokens = await asyncio.gather(one.access_token(hub.refresh), two.access_token(hub.refresh))
    assert set(tokens) == {"access-2"}
    assert hub.used == ["refresh-1"]


async def test_a_renewed_pair_is_on_disk_private_before_it_is_used(folder, clock, hub):
    source = await _source(folder, clock)
    source.refuse("access-1")
    assert await source.access_token(hub.refresh) == "access-2"
    assert stat.S_IMODE((folder / "tokens.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    again = TokenSource(TokenFile(folder), clock)
    assert (await again.open()).refresh_token == "refresh-2"


async def test_a_hub_that_is_away_keeps_the_old_pair(folder, clock):
    async def away(tokens: StoredTokens) -> StoredTokens:
        raise Unavailable("away")

    source = await _source(folder, clock)
    clock.at_ms = 900_000
    with pytest.raises(Unavailable):
        await source.access_token(away)
    assert (await TokenFile(folder).read()) == FIRST


async def test_a_dead_refresh_token_is_told_without_a_way_to_log_in(folder, clock, hub):
    source = await _source(folder, clock)
    hub.newest, clock.at_ms = 7, 900_000
    with pytest.raises(Unauthenticated) as caught:
        await source.access_token(hub.refresh)
    assert caught.value.reason == "REFRESH_REUSED"


async def test_a_dead_refresh_token_leads_to_a_new_login_where_that_needs_no_person(folder, clock, hub):
    async def relogin() -> StoredTokens:
        return replace(FIRST, access_token="anew", access_expires_ms=9_000_000)

    source = await _source(folder, clock, relogin=relogin)
    hub.newest, clock.at_ms = 7, 900_000
    assert await source.access_token(hub.refresh) == "anew"


async def test_nobody_logged_in_is_said(folder, clock, hub):
    source = TokenSource(TokenFile(folder), clock)
    for call in (source.open(), source.access_token(hub.refresh)):
        with pytest.raises(Unauthenticated) as caught:
            await call
        assert caught.value.reason == "NOT_LOGGED_IN"


async def test_cleared_tokens_are_gone_from_disk(folder, clock):
    source = await _source(folder, clock)
    await source.clear()
    await source.clear()
    assert not (folder / "tokens.json").exists()
    with pytest.raises(Unauthenticated):
        _ = source.tokens


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b"{}", b'{"principal": 1}', b"\xff"])
async def test_a_damaged_file_means_logging_in_again(folder, clock, content):
    await _source(folder, clock)
    (folder / "tokens.json").write_bytes(content)
    assert await TokenFile(folder).read() is None


async def test_a_file_open_to_others_is_refused(folder, clock):
    await _source(folder, clock)
    (folder / "tokens.json").chmod(0o644)
    with pytest.raises(WrongState):
        await TokenFile(folder).read()


async def test_a_cancelled_wait_for_the_lock_leaves_it_free(folder):
    file = TokenFile(folder)
    async with file.locked():
        waiting = asyncio.create_task(_lock_once(TokenFile(folder)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1):
        await _lock_once(file)


async def _lock_once(file: TokenFile) -> None:
    async with file.locked():
        pass


def test_tokens_do_not_show_themselves():
    assert "access-1" not in repr(FIRST)
    assert "refresh-1" not in repr(FIRST)


def test_a_missing_local_token_is_said(tmp_path):
    with pytest.raises(NotFound) as caught:
        read_local_token(tmp_path / "local.token")
    assert caught.value.reason == "LOCAL_TOKEN_MISSING"
    assert str(tmp_path) not in caught.value.message
    (tmp_path / "local.token").write_text("secret\n")
    assert read_local_token(tmp_path / "local.token") == "secret"


async def test_a_narrow_token_is_given_away_and_the_own_one_stays_in_use(folder, clock, hub):
    source = await _source(folder, clock)
    assert await source.narrow_token(hub.refresh) == "access-2"
    kept = await TokenFile(folder).read()
    assert kept is not None
    assert (kept.access_token, kept.access_expires_ms, kept.refresh_token) == (
        "access-1",
        900_000,
        "refresh-2",
    )
    assert await source.access_token(hub.refresh) == "access-1"
    clock.at_ms = 900_000
    assert await source.access_token(hub.refresh) == "access-3"


async def test_a_narrow_token_needs_a_login_that_holds(folder, clock, hub):
    source = await _source(folder, clock)
    hub.newest = 7
    with pytest.raises(Unauthenticated):
        await source.narrow_token(hub.refresh)

    async def log_in() -> StoredTokens:
        hub.newest = 8
        return replace(FIRST, access_token="access-8", refresh_token="refresh-8")

    source = await _source(folder, clock, relogin=log_in)
    assert await source.narrow_token(hub.refresh) == "access-9"
    assert source.tokens.access_token == "access-8"
