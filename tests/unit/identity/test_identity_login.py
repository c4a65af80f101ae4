"""Local login and enrolment of devices."""

from __future__ import annotations

import pytest
from syftmesh_core.errors import (
    AlreadyExists,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    WrongState,
)
from syftmesh_identity.domain.model import Device

ALICE, BOB = "alice@x.example", "bob@y.example"


async def test_login_gives_a_pair_for_the_device(world):
    pair = await world.login()
    assert pair.access_token.startswith("alice@x.example|dev-1|")
    assert pair.refresh_expires_ms == world.clock.now_ms() + 3600_000
    assert pair.refresh_token not in repr(pair)
    assert pair.access_token not in repr(pair)


async def test_login_normalises_the_principal(world):
    await world.login(principal="Alice@X.Example")
    assert [d.principal for d in await world.enrolment.devices_of(ALICE)] == [ALICE]


@pytest.mark.parametrize("token", ["", "x", "l" * 42, "l" * 44, "L" * 43])
async def test_login_refuses_any_other_local_token_and_registers_nothing(world, token):
    with pytest.raises(Unauthenticated) as caught:
        await world.local_login.login(token, ALICE, "dev-1", "profile")
    assert caught.value.reason == "LOCAL_TOKEN_INVALID"
    assert not world.stores.devices.rows


async def test_login_is_disabled_without_a_local_token(world):
    world.secret.token = None
    with pytest.raises(WrongState) as caught:
        await world.local_login.login("", ALICE, "dev-1", "profile")
    assert caught.value.reason == "LOCAL_LOGIN_DISABLED"


@pytest.mark.parametrize(
    "principal", ["", "alice", "alice@", "a b@x.example", "alice@x", "*@x.example", "a@x.e\n"]
)
async def test_login_refuses_a_malformed_email(world, principal):
    with pytest.raises(InvalidInput) as caught:
        await world.login(principal=principal)
    assert caught.value.reason == "PRINCIPAL_INVALID"


@pytest.mark.parametrize("device_id", ["", "a/b", "a b", "x" * 65, "dev\n", "*"])
async def test_login_refuses_a_malformed_device_id(world, device_id):
    with pytest.raises(InvalidInput) as caught:
        await world.login(device_id=device_id)
    assert caught.value.reason == "DEVICE_INVALID"


async def test_login_refuses_an_unknown_kind_of_device(world):
    with pytest.raises(InvalidInput) as caught:
        await world.login(label="toaster")
    assert caught.value.reason == "DEVICE_INVALID"


async def test_a_device_id_belongs_to_one_principal(world):
    await world.login(ALICE, "dev-1")
    with pytest.raises(AlreadyExists) as caught:
        await world.login(BOB, "dev-1")
    assert caught.value.reason == "DEVICE_OF_ANOTHER"
    assert await world.enrolment.devices_of(BOB) == []


async def test_of_two_principals_racing_for_one_device_id_one_wins(world):
    def bob_is_quicker() -> None:
        world.stores.devices._put("dev-1", Device("dev-1", BOB, "profile", 1))

    world.stores.devices.before_write = bob_is_quicker
    with pytest.raises(AlreadyExists):
        await world.login(ALICE, "dev-1")


async def test_second_login_keeps_device_and_first_label(world):
    await world.login(label="agent")
    world.clock.advance(5)
    await world.login(label="profile")
    (device,) = await world.enrolment.devices_of(ALICE)
    assert (device.label, device.created_ms) == ("agent", 1_800_000_000_000)


@pytest.mark.parametrize(("label", "expected"), [("profile", []), ("agent", [ALICE]), ("runner", [ALICE])])
async def test_a_principal_becomes_a_site_when_an_agent_or_runner_joins(world, label, expected):
    await world.login(label=label)
    assert [site.principal for site in await world.stores.sites.list()] == expected


async def test_a_site_keeps_the_time_of_its_first_device(world):
    await world.login(device_id="dev-1", label="agent")
    world.clock.advance(60)
    await world.login(device_id="dev-2", label="runner")
    (site,) = await world.stores.sites.list()
    assert site.joined_ms == 1_800_000_000_000


async def test_devices_are_listed_oldest_first(world):
    for number in (3, 1, 2):
        await world.login(device_id=f"dev-{number}")
        world.clock.advance(1)
    assert [d.device_id for d in await world.enrolment.devices_of(ALICE)] == ["dev-3", "dev-1", "dev-2"]


async def test_revoked_device_cannot_log_in_and_is_announced(world):
    await world.login()
    await world.enrolment.revoke(ALICE, "dev-1")
    await world.enrolment.revoke(ALICE, "dev-1")
    assert world.revocations.devices == ["dev-1", "dev-1"]
    with pytest.raises(PermissionDenied) as caught:
        await world.login()
    assert caught.value.reason == "DEVICE_REVOKED"
    (device,) = await world.enrolment.devices_of(ALICE)
    assert device.revoked_ms is not None


@pytest.mark.parametrize("device_id", ["", "unknown", "a/b", "//", "dev-bob"])
async def test_one_revokes_only_ones_own_devices(world, device_id):
    await world.login(BOB, "dev-bob")
    with pytest.raises(NotFound) as caught:
        await world.enrolment.revoke(ALICE, device_id)
    assert caught.value.reason == "DEVICE_UNKNOWN"
    assert world.revocations.devices == []


async def test_a_principal_has_at_most_32_devices_and_a_revoked_one_makes_room(world):
    for number in range(32):
        await world.login(device_id=f"dev-{number}")
    with pytest.raises(LimitExceeded) as caught:
        await world.login(device_id="dev-32")
    assert caught.value.reason == "TOO_MANY_DEVICES"
    await world.enrolment.revoke(ALICE, "dev-7")
    await world.login(device_id="dev-32")
    devices = [d.device_id for d in await world.enrolment.devices_of(ALICE)]
    assert len(devices) == 32
    assert "dev-7" not in devices
    with pytest.raises(PermissionDenied):
        await world.login(device_id="dev-7")


async def test_login_completes_an_enrolment_that_stopped_half_way(world):
    world.stores.devices._put("dev-1", Device("dev-1", ALICE, "agent", 1))
    await world.login()
    assert [d.device_id for d in await world.enrolment.devices_of(ALICE)] == ["dev-1"]
    assert [site.principal for site in await world.stores.sites.list()] == [ALICE]
