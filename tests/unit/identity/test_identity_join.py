"""Join tokens: bound, single use, taken back, expiring."""

from __future__ import annotations

import asyncio

import pytest
from syftmesh_core.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from syftmesh_identity.domain.model import JoinState
from syftmesh_identity.domain.page import page_of

ALICE, BOB, ADMIN = "alice@x.example", "bob@y.example", "admin@hub.example"

RETRY = "device-one-asks-again"


async def _refused(world, secret: str, principal: str = ALICE, device_id: str = "dev-1") -> None:
    with pytest.raises(Unauthenticated) as caught:
        await world.join_tokens.redeem(secret, principal, device_id, RETRY)
    assert caught.value.reason == "JOIN_TOKEN_INVALID"


async def test_redeeming_admits_the_device_with_the_label_of_the_token(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "runner", 0)
    pair = await world.join_tokens.redeem(secret, ALICE, "dev-1")
    assert pair.access_token.startswith("alice@x.example|dev-1|")
    (device,) = await world.enrolment.devices_of(ALICE)
    assert device.label == "runner"
    assert [site.principal for site in await world.stores.sites.list()] == [ALICE]


async def test_a_token_is_used_once(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    pair = await world.join_tokens.redeem(secret, ALICE, "dev-1")
    await _refused(world, secret, device_id="dev-2")
    await world.sessions.renew(pair.refresh_token)
    await _refused(world, secret, device_id="dev-1")


@pytest.mark.parametrize("retry_id", ["", "short", "x" * 129, "not this one at all"])
async def test_a_token_works_exactly_once_for_who_names_no_retry(world, retry_id):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    await world.join_tokens.redeem(secret, ALICE, "dev-1", retry_id)
    for again in (retry_id, RETRY):
        with pytest.raises(Unauthenticated) as caught:
            await world.join_tokens.redeem(secret, ALICE, "dev-1", again)
        assert caught.value.reason == "JOIN_TOKEN_INVALID"


async def test_a_device_whose_answer_was_lost_gets_another_and_the_first_is_dead(world):
    token, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    lost = await world.join_tokens.redeem(secret, ALICE, "dev-1", RETRY)
    again = await world.join_tokens.redeem(secret, ALICE, "dev-1", RETRY)
    with pytest.raises(Unauthenticated) as caught:
        await world.sessions.renew(lost.refresh_token)
    assert caught.value.reason == "REFRESH_INVALID"
    assert world.revocations.tokens == [lost.access_token.rpartition("|")[2]]
    assert len(await world.enrolment.devices_of(ALICE)) == 1
    (listed,) = await world.join_tokens.list(ALICE)
    assert (listed.token_id, listed.state, listed.device_id) == (
        token.token_id,
        JoinState.REDEEMED,
        "dev-1",
    )
    await world.sessions.renew(again.refresh_token)


async def test_a_redemption_that_was_cut_off_is_completed_by_the_next(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)

    def cut() -> None:
        raise ConnectionError

    world.stores.devices.before_write = cut  # the token is marked, nothing else was done
    with pytest.raises(ConnectionError):
        await world.join_tokens.redeem(secret, ALICE, "dev-1", RETRY)
    await _refused(world, secret, device_id="dev-2")
    pair = await world.join_tokens.redeem(secret, ALICE, "dev-1", RETRY)
    await world.sessions.renew(pair.refresh_token)


async def test_of_a_device_that_asks_twice_at_once_one_pair_stays(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    pairs = await asyncio.gather(*(world.join_tokens.redeem(secret, ALICE, "dev-1", RETRY) for _ in range(3)))
    renewed = [world.sessions.renew(pair.refresh_token) for pair in pairs]
    results = await asyncio.gather(*renewed, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Unauthenticated)]
    assert [error.reason for error in refused] == ["REFRESH_INVALID"] * 2


async def test_a_logout_ends_the_second_chance_and_so_does_a_day(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 7 * 24 * 3600)
    pair = await world.join_tokens.redeem(secret, ALICE, "dev-1", RETRY)
    await world.sessions.close(pair.refresh_token)
    await _refused(world, secret)
    _, other = await world.join_tokens.create(ALICE, ALICE, "agent", 7 * 24 * 3600)
    await world.join_tokens.redeem(other, ALICE, "dev-2", RETRY)
    world.clock.advance(24 * 3600)
    await _refused(world, other, device_id="dev-2")


async def test_a_token_of_a_domain_admits_one_person_of_exactly_that_domain(world):
    token, secret = await world.join_tokens.create(ADMIN, "", "profile", 0, "X.example")
    assert (token.domain, token.principal) == ("x.example", "")
    for other in (BOB, "alice@a.x.example", "alice@ax.example", "alice@x.example.org"):
        await _refused(world, secret, other)
    await world.join_tokens.redeem(secret, ALICE, "dev-1")
    await _refused(world, secret, "carol@x.example", "dev-2")
    (listed,) = await world.join_tokens.list(ADMIN)
    assert (listed.principal, listed.domain) == (ALICE, "x.example")


@pytest.mark.parametrize(
    ("principal", "domain", "reason"),
    [
        (ALICE, "x.example", "DOMAIN_INVALID"),
        ("", "localhost", "DOMAIN_INVALID"),
        ("", "*.example", "DOMAIN_INVALID"),
        ("", "b@x.example", "DOMAIN_INVALID"),
        ("", "x.example ", "DOMAIN_INVALID"),
        ("", "x" * 300 + ".example", "DOMAIN_INVALID"),
        ("", "", "PRINCIPAL_INVALID"),
    ],
)
async def test_a_token_is_for_an_email_or_for_a_domain(world, principal, domain, reason):
    with pytest.raises(InvalidInput) as caught:
        await world.join_tokens.create(ADMIN, principal, "agent", 0, domain)
    assert caught.value.reason == reason


async def test_only_an_administrator_makes_tokens_for_a_domain(world):
    with pytest.raises(PermissionDenied) as caught:
        await world.join_tokens.create(ALICE, "", "agent", 0, "x.example")
    assert caught.value.reason == "PERMISSION_DENIED"


async def test_a_revoked_person_gets_no_token_and_redeems_none(world):
    _, secret = await world.join_tokens.create(ADMIN, ALICE, "agent", 0)
    await world.people.revoke(ALICE)
    for work in (
        world.join_tokens.redeem(secret, ALICE, "dev-1"),
        world.join_tokens.create(ADMIN, ALICE, "agent", 0),
    ):
        with pytest.raises(PermissionDenied) as caught:
            await work
        assert caught.value.reason == "PRINCIPAL_REVOKED"
    await world.people.reinstate(ALICE)
    await world.join_tokens.redeem(secret, ALICE, "dev-1")


async def test_tokens_of_an_administrator_who_was_revoked_admit_nobody(world):
    _, secret = await world.join_tokens.create(ADMIN, ALICE, "agent", 0)
    await world.people.revoke(ADMIN)
    await _refused(world, secret)


async def test_of_many_that_race_one_wins(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    results = await asyncio.gather(
        *(world.join_tokens.redeem(secret, ALICE, f"dev-{n}") for n in range(8)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert len(await world.enrolment.devices_of(ALICE)) == 1


async def test_a_token_is_bound_to_its_principal(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    await _refused(world, secret, BOB)
    await world.join_tokens.redeem(secret, "ALICE@x.example", "dev-1")


@pytest.mark.parametrize(
    "secret", ["", "x", "smj1...", "smj1.a.b.c", "smj1./.b.c", "smj2.a.b.c", "é" * 8, "smj1.a.b." + "c" * 400]
)
async def test_redeem_refuses_what_is_no_token_of_ours(world, secret):
    await _refused(world, secret)


async def test_redeem_refuses_a_guessed_secret_of_a_known_token(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    await _refused(world, secret[:-1] + ("A" if secret[-1] != "A" else "B"))


async def test_redeem_checks_names_before_it_uses_the_token(world):
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    for principal, device_id, reason in (
        ("alice", "dev-1", "PRINCIPAL_INVALID"),
        (ALICE, "a/b", "DEVICE_INVALID"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await world.join_tokens.redeem(secret, principal, device_id)
        assert caught.value.reason == reason
    await world.join_tokens.redeem(secret, ALICE, "dev-1")


async def test_a_device_id_of_another_leaves_the_token_open(world):
    await world.login(BOB, "dev-bob")
    _, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    with pytest.raises(AlreadyExists):
        await world.join_tokens.redeem(secret, ALICE, "dev-bob")
    await world.join_tokens.redeem(secret, ALICE, "dev-1")


async def test_a_token_expires(world):
    token, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 60)
    world.clock.advance(60)
    await _refused(world, secret)
    assert token.state_at(world.clock.now_ms()) is JoinState.EXPIRED


async def test_default_life_is_a_day(world):
    token, _ = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    assert token.expires_ms - token.created_ms == 24 * 3600 * 1000


async def test_life_above_30_days_is_refused(world):
    await world.join_tokens.create(ALICE, ALICE, "agent", 30 * 24 * 3600)
    with pytest.raises(InvalidInput) as caught:
        await world.join_tokens.create(ALICE, ALICE, "agent", 30 * 24 * 3600 + 1)
    assert caught.value.reason == "TTL_INVALID"


async def test_only_an_administrator_makes_tokens_for_others(world):
    with pytest.raises(PermissionDenied) as caught:
        await world.join_tokens.create(BOB, ALICE, "agent", 0)
    assert caught.value.reason == "PERMISSION_DENIED"
    _, secret = await world.join_tokens.create(ADMIN, ALICE, "agent", 0)
    await world.join_tokens.redeem(secret, ALICE, "dev-1")


@pytest.mark.parametrize(
    ("principal", "label", "reason"),
    [("nobody", "agent", "PRINCIPAL_INVALID"), (ALICE, "tv", "DEVICE_INVALID")],
)
async def test_create_refuses_bad_input(world, principal, label, reason):
    with pytest.raises(InvalidInput) as caught:
        await world.join_tokens.create(ALICE, principal, label, 0)
    assert caught.value.reason == reason


async def test_a_revoked_token_is_refused_and_revoking_is_idempotent(world):
    token, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    await world.join_tokens.revoke(ALICE, token.token_id)
    await world.join_tokens.revoke(ALICE, token.token_id)
    await _refused(world, secret)


async def test_revoking_a_used_token_leaves_it_redeemed(world):
    token, secret = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    await world.join_tokens.redeem(secret, ALICE, "dev-1")
    await world.join_tokens.revoke(ALICE, token.token_id)
    assert [t.state for t in await world.join_tokens.list(ALICE)] == [JoinState.REDEEMED]


@pytest.mark.parametrize("token_id", ["", "x", "a/b", "//", "*"])
async def test_revoking_an_unknown_token_is_not_found(world, token_id):
    with pytest.raises(NotFound) as caught:
        await world.join_tokens.revoke(ALICE, token_id)
    assert caught.value.reason == "JOIN_TOKEN_UNKNOWN"


async def test_nobody_sees_or_revokes_the_tokens_of_another(world):
    token, _ = await world.join_tokens.create(ALICE, ALICE, "agent", 0)
    assert await world.join_tokens.list(BOB) == []
    with pytest.raises(NotFound):
        await world.join_tokens.revoke(BOB, token.token_id)


async def test_tokens_are_listed_newest_first_without_secrets(world):
    made = []
    for _ in range(3):
        made.append(await world.join_tokens.create(ALICE, ALICE, "agent", 0))
        world.clock.advance(1)
    listed = await world.join_tokens.list(ALICE)
    assert [t.token_id for t in listed] == [t.token_id for t, _ in reversed(made)]
    for _, secret in made:
        assert secret.rpartition(".")[2] not in str([(t.secret_hash, t) for t in listed])


def test_pages_cover_the_list_once():
    items = [f"s{n:03d}@x.example" for n in range(7)]
    seen, token = [], ""
    while True:
        page, token = page_of(items, str, kind="site", page_size=3, page_token=token)
        seen += page
        if not token:
            break
    assert seen == items


@pytest.mark.parametrize("token", ["x", "!!", "c2l0ZTpnb25l", "YWxpY2U", "a" * 2000, "é"])
def test_a_foreign_page_token_is_refused(token):
    with pytest.raises(InvalidInput) as caught:
        page_of(["a", "b"], str, kind="site", page_size=1, page_token=token)
    assert caught.value.reason == "PAGE_INVALID"


def test_a_page_token_of_another_list_is_refused():
    _, token = page_of(["a", "b"], str, kind="join-token", page_size=1, page_token="")
    with pytest.raises(InvalidInput):
        page_of(["a", "b"], str, kind="site", page_size=1, page_token=token)


def test_a_negative_page_size_is_refused_and_a_large_one_is_cut():
    with pytest.raises(InvalidInput):
        page_of(["a"], str, kind="site", page_size=-1, page_token="")
    page, token = page_of([str(n) for n in range(2000)], str, kind="site", page_size=5000, page_token="")
    assert (len(page), bool(token)) == (1000, True)
