"""Rotation of refresh tokens, detection of reuse, logout."""

from __future__ import annotations

import asyncio

import pytest
from syftmesh_core.errors import Unauthenticated
from syftmesh_identity.domain.refresh import MAX_LIVE_ACCESS, parse_refresh_token


async def _refused(world, token: str, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await world.sessions.renew(token)
    assert caught.value.reason == reason


async def test_refresh_gives_a_new_pair_and_kills_the_old_token(world):
    first = await world.login()
    second = await world.sessions.renew(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    third = await world.sessions.renew(second.refresh_token)
    assert third.refresh_token != second.refresh_token


async def test_reuse_revokes_the_family_and_its_access_tokens(world):
    first = await world.login()
    second = await world.sessions.renew(first.refresh_token)
    await _refused(world, first.refresh_token, "REFRESH_REUSED")
    await _refused(world, second.refresh_token, "REFRESH_INVALID")
    revoked = {pair.access_token.rpartition("|")[2] for pair in (first, second)}
    assert set(world.revocations.tokens) == revoked


async def test_reuse_leaves_other_logins_of_the_device_alone(world):
    one, other = await world.login(), await world.login()
    await world.sessions.renew(one.refresh_token)
    await _refused(world, one.refresh_token, "REFRESH_REUSED")
    await world.sessions.renew(other.refresh_token)


async def test_of_two_that_race_with_one_token_at_most_one_gets_a_pair_and_the_family_ends(world):
    first = await world.login()
    results = await asyncio.gather(
        world.sessions.renew(first.refresh_token),
        world.sessions.renew(first.refresh_token),
        return_exceptions=True,
    )
    errors = [result for result in results if isinstance(result, Unauthenticated)]
    assert [error.reason for error in errors] == ["REFRESH_REUSED"]
    (winner,) = [result for result in results if not isinstance(result, Exception)]
    await _refused(world, winner.refresh_token, "REFRESH_INVALID")


@pytest.mark.parametrize(
    "token",
    ["", "x", "smr1", "smr1...", "smr2.a.b.c", "smr1.a/b.c.d", "smr1.a.b.c", "smr1." + "a" * 300 + ".b.c"],
)
async def test_refresh_refuses_what_is_no_token_of_ours(world, token):
    await world.login()
    await _refused(world, token, "REFRESH_INVALID")


async def test_a_forged_token_of_a_known_family_revokes_nothing(world):
    pair = await world.login()
    family = parse_refresh_token(pair.refresh_token).family_id
    await _refused(world, f"smr1.{family}.{'A' * 43}.{'B' * 43}", "REFRESH_INVALID")
    await world.sessions.renew(pair.refresh_token)


async def test_refresh_token_ends_with_its_time_and_each_use_starts_it_anew(world):
    pair = await world.login()
    world.clock.advance(3599)
    pair = await world.sessions.renew(pair.refresh_token)
    world.clock.advance(3599)
    pair = await world.sessions.renew(pair.refresh_token)
    world.clock.advance(3600)
    await _refused(world, pair.refresh_token, "REFRESH_INVALID")


async def test_refresh_of_a_revoked_device_is_refused(world):
    pair = await world.login()
    await world.enrolment.revoke("alice@x.example", "dev-1")
    await _refused(world, pair.refresh_token, "REFRESH_INVALID")


async def test_logout_ends_the_family_and_is_idempotent(world):
    first = await world.login()
    second = await world.sessions.renew(first.refresh_token)
    await world.sessions.close(first.refresh_token)
    await world.sessions.close(second.refresh_token)
    await _refused(world, second.refresh_token, "REFRESH_INVALID")
    assert len(set(world.revocations.tokens)) == 2


async def test_logout_of_a_family_that_is_gone_is_no_error(world):
    pair = await world.login()
    world.stores.families.rows.clear()
    await world.sessions.close(pair.refresh_token)


@pytest.mark.parametrize("token", ["", "x", "smr1.a.b"])
async def test_logout_refuses_what_is_no_refresh_token(world, token):
    with pytest.raises(Unauthenticated) as caught:
        await world.sessions.close(token)
    assert caught.value.reason == "REFRESH_INVALID"


async def test_expired_access_tokens_are_not_announced(world):
    pair = await world.login()
    world.clock.advance(901)
    await world.sessions.close(pair.refresh_token)
    assert world.revocations.tokens == []


async def test_a_family_has_a_bounded_number_of_live_access_tokens(world):
    pair = await world.login()
    first_id = pair.access_token.rpartition("|")[2]
    for _ in range(MAX_LIVE_ACCESS):
        pair = await world.sessions.renew(pair.refresh_token)
    assert world.revocations.tokens == [first_id]


async def test_no_secret_is_stored(world):
    pair = await world.login()
    token = parse_refresh_token(pair.refresh_token)
    stored = repr(world.stores.families.rows) + str(
        [vars_of(r.record) for r in world.stores.families.rows.values()]
    )
    assert token.secret not in stored
    assert token.proof not in stored
    assert pair.access_token not in stored


def vars_of(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
