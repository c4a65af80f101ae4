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


async def _refused(world, secret: str, principal: str = ALICE, device_id: str = "dev-1") -> None:
    with pytest.raises(Unauthenticated) as caught:
        await world.join_tokens.redeem(secret, principal, device_id)
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
    await world.join_tokens.redeem(secret, ALICE, "dev-1")
    await _refused(world, secret, device_id="dev-1")
    await _refused(world, secret, device_id="dev-2")


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
