"""Rotation of refresh tokens, detection of reuse, logout."""

from __future__ import annotations

import asyncio

import pytest
from syftmesh_core.errors import InvalidInput, Unauthenticated
from syftmesh_identity.domain.refresh import MAX_LIVE_ACCESS, REPEAT_S, parse_refresh_token
from syftmesh_identity.domain.secret import is_secret


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
    third = await world.sessions.renew(second.refresh_token)
    await _refused(world, first.refresh_token, "REFRESH_REUSED")
    await _refused(world, third.refresh_token, "REFRESH_INVALID")
    revoked = {pair.access_token.rpartition("|")[2] for pair in (first, second, third)}
    assert set(world.revocations.tokens) == revoked


async def test_reuse_leaves_other_logins_of_the_device_alone(world):
    one, other = await world.login(), await world.login()
    one_more = await world.sessions.renew(one.refresh_token)
    await world.sessions.renew(one_more.refresh_token)
    await _refused(world, one.refresh_token, "REFRESH_REUSED")
    await world.sessions.renew(other.refresh_token)


async def test_a_client_whose_answer_was_lost_gets_another_within_its_time(world):
    first = await world.login()
    lost = await world.sessions.renew(first.refresh_token)
    world.clock.advance(REPEAT_S - 1)
    again = await world.sessions.renew(first.refresh_token)
    assert world.revocations.tokens == [lost.access_token.rpartition("|")[2]]
    following = await world.sessions.renew(again.refresh_token)
    await world.sessions.renew(following.refresh_token)


async def test_a_used_token_is_reuse_once_its_time_is_over(world):
    first = await world.login()
    second = await world.sessions.renew(first.refresh_token)
    world.clock.advance(REPEAT_S)
    await _refused(world, first.refresh_token, "REFRESH_REUSED")
    await _refused(world, second.refresh_token, "REFRESH_INVALID")


async def test_a_used_token_works_a_second_time_and_not_a_third(world):
    first = await world.login()
    await world.sessions.renew(first.refresh_token)
    again = await world.sessions.renew(first.refresh_token)
    await _refused(world, first.refresh_token, "REFRESH_REUSED")
    await _refused(world, again.refresh_token, "REFRESH_INVALID")


@pytest.mark.parametrize("thief_first", [True, False])
async def test_a_stolen_token_ends_the_login_when_both_holders_go_on(world, thief_first):
    stolen = await world.login()
    one = await world.sessions.renew(stolen.refresh_token)
    two = await world.sessions.renew(stolen.refresh_token)  # within its time: an answer might have been lost
    assert one.access_token.rpartition("|")[2] in world.revocations.tokens
    if thief_first:
        two = await world.sessions.renew(two.refresh_token)
    await _refused(world, one.refresh_token, "REFRESH_REUSED")
    await _refused(world, two.refresh_token, "REFRESH_INVALID")
    assert two.access_token.rpartition("|")[2] in world.revocations.tokens


async def test_of_two_that_race_with_one_token_the_first_pair_is_dead_and_tells(world):
    first = await world.login()
    pairs = await asyncio.gather(*(world.sessions.renew(first.refresh_token) for _ in range(2)))
    families = (await world.stores.families.list())[0]
    (newest,) = [p for p in pairs if is_secret(p.refresh_token.split(".")[3], families.secret_hash)]
    (dead,) = [p for p in pairs if p is not newest]
    await _refused(world, dead.refresh_token, "REFRESH_REUSED")
    await _refused(world, newest.refresh_token, "REFRESH_INVALID")


async def test_many_that_race_with_one_token_end_the_login(world):
    first = await world.login()
    results = await asyncio.gather(
        *(world.sessions.renew(first.refresh_token) for _ in range(5)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) <= 2
    (family,) = await world.stores.families.list()
    assert family.revoked


async def test_a_refresh_narrows_the_access_token_to_the_services_named(world):
    pair = await world.login()
    pair = await world.sessions.renew(pair.refresh_token, ("superlink",))
    assert world.issuer.audiences[-1] == ("superlink",)
    await world.sessions.renew(pair.refresh_token)
    assert world.issuer.audiences[-1] == ()


async def test_an_unknown_service_is_refused_before_the_token_is_used(world):
    pair = await world.login()
    for wrong in (("other",), ("sync", ""), ("syftmesh",)):
        with pytest.raises(InvalidInput) as caught:
            await world.sessions.renew(pair.refresh_token, wrong)
        assert caught.value.reason == "AUDIENCE_INVALID"
    (family,) = await world.stores.families.list()
    assert family.renewed_ms == 0


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
