"""Administrators end people and let them in again."""

from __future__ import annotations

import asyncio

import pytest
from syftmesh_core.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated

ALICE, BOB, ADMIN = "alice@x.example", "bob@y.example", "admin@hub.example"


async def _revoked(work) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await work
    assert caught.value.reason == "PRINCIPAL_REVOKED"


def test_only_administrators_administer(world):
    world.administrators.require(ADMIN)
    for name in (ALICE, "", "guest", ADMIN.upper()):
        with pytest.raises(PermissionDenied) as caught:
            world.administrators.require(name)
        assert caught.value.reason == "PERMISSION_DENIED"


async def test_a_revoked_person_is_out_with_every_device_and_cannot_come_back(world):
    one, two = await world.login(device_id="dev-1"), await world.login(device_id="dev-2")
    await world.people.revoke("ALICE@x.example")
    assert world.revocations.principals == [ALICE]
    assert set(world.revocations.devices) == {"dev-1", "dev-2"}
    for pair in (one, two):
        with pytest.raises(Unauthenticated) as caught:
            await world.sessions.renew(pair.refresh_token)
        assert caught.value.reason == "REFRESH_INVALID"
    await _revoked(world.login(device_id="dev-1"))
    await _revoked(world.login(device_id="dev-3"))
    assert await world.stores.devices.get("dev-3") is None
    await world.login(BOB, "dev-bob")


async def test_a_refresh_looks_at_the_person_also_when_no_device_was_revoked_yet(world):
    pair = await world.login()

    def cut() -> None:
        raise ConnectionError

    world.stores.devices.before_write = cut
    with pytest.raises(ConnectionError):
        await world.people.revoke(ALICE)
    with pytest.raises(Unauthenticated) as caught:
        await world.sessions.renew(pair.refresh_token)
    assert caught.value.reason == "REFRESH_INVALID"
    await world.people.reinstate(ALICE)  # completes what was cut off: the device stays out
    with pytest.raises(PermissionDenied) as denied:
        await world.login()
    assert denied.value.reason == "DEVICE_REVOKED"


async def test_a_reinstated_person_logs_in_with_a_new_device_only(world):
    await world.login(device_id="dev-1")
    await world.people.revoke(ALICE)
    await world.people.reinstate(ALICE)
    await world.people.reinstate(ALICE)
    with pytest.raises(PermissionDenied) as caught:
        await world.login(device_id="dev-1")
    assert caught.value.reason == "DEVICE_REVOKED"
    await world.login(device_id="dev-2")


async def test_revoking_is_idempotent_and_repeats_the_announcement(world):
    await world.login()
    await world.people.revoke(ALICE)
    (before,) = await world.people.list()
    world.clock.advance(60)
    await world.people.revoke(ALICE)
    assert await world.people.list() == [before]
    assert world.revocations.principals == [ALICE, ALICE]


async def test_somebody_who_was_never_here_can_be_kept_out(world):
    await world.people.revoke(BOB)
    await _revoked(world.login(BOB, "dev-bob"))


@pytest.mark.parametrize("name", ["", "guest", "operator", "*@x.example"])
async def test_names_of_nobody_are_refused(world, name):
    for work in (world.people.revoke(name), world.people.reinstate(name)):
        with pytest.raises(InvalidInput) as caught:
            await work
        assert caught.value.reason == "PRINCIPAL_INVALID"


async def test_reinstating_somebody_unknown_is_not_found(world):
    with pytest.raises(NotFound) as caught:
        await world.people.reinstate(BOB)
    assert caught.value.reason == "PRINCIPAL_UNKNOWN"


async def test_people_are_listed_by_email(world):
    await world.login(BOB, "dev-bob")
    await world.login(ALICE, "dev-1")
    await world.login(ALICE, "dev-2")
    await world.people.revoke(BOB)
    found = [(a.principal, len(a.device_ids), a.revoked_ms is not None) for a in await world.people.list()]
    assert found == [(ALICE, 2, False), (BOB, 1, True)]


@pytest.mark.parametrize("step", range(12))
async def test_a_login_that_races_with_the_revocation_leaves_nothing_that_works(world, step):
    await world.login(device_id="dev-0")

    async def late() -> None:
        for _ in range(step):
            await asyncio.sleep(0)
        await world.people.revoke(ALICE)

    results = await asyncio.gather(world.login(device_id="dev-1"), late(), return_exceptions=True)
    pair = results[0]
    if isinstance(pair, Exception):
        assert isinstance(pair, PermissionDenied)
        assert pair.reason in {"PRINCIPAL_REVOKED", "DEVICE_REVOKED"}
    else:
        # Given out before the announcement, which covers it.
        with pytest.raises(Unauthenticated):
            await world.sessions.renew(pair.refresh_token)
    await _revoked(world.login(device_id="dev-2"))
