"""The directory against a hub that lies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mesh.crypto.v1 import crypto_pb2
from mesh.crypto.v1 import crypto_service_pb2 as rpc
from syftmesh_client import directory as module
from syftmesh_client.account import add_devices, create_account
from syftmesh_client.directory import DeviceDirectory
from syftmesh_client.keystore import KeyStore
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound, Unavailable
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import parse_list

ALICE, BOB = "alice@x.example", "bob@y.example"


class Clock(SystemClock):
    def __init__(self) -> None:
        self.at_s = 0.0

    def monotonic_s(self) -> float:
        return self.at_s


class KeyDirectory:
    """A key directory that answers whatever `chain` holds."""

    def __init__(self) -> None:
        self.chain: list[bytes] = []
        self.asked: list[int] = []
        self.published: list[bytes] = []
        self.away = False

    async def ListDevices(self, request: Any) -> Any:  # noqa: N802
        await asyncio.sleep(0)
        self.asked.append(request.from_version)
        if self.away:
            raise Unavailable("away")
        if not self.chain:
            raise NotFound("none", reason="PRINCIPAL_UNKNOWN")
        page = self.chain[max(request.from_version, 1) - 1 :]
        lists = [crypto_pb2.SignedDeviceList(device_list=data) for data in page]
        return rpc.ListDevicesResponse(device_lists=lists)

    async def PublishDeviceList(self, request: Any) -> Any:  # noqa: N802
        self.published.append(request.device_list.device_list)
        return rpc.PublishDeviceListResponse(version=7)


class Session:
    def __init__(self) -> None:
        self.crypto = KeyDirectory()


class World:
    def __init__(self, folder: Any) -> None:
        self.clock, self.session, self.folder = Clock(), Session(), folder
        system = SystemClock()
        self.alice, self.bob = create_account(ALICE, system), create_account(BOB, system)
        self.store = KeyStore.create(folder, device=self.bob.device, own_root=self.bob.root_public)
        self.directory = DeviceDirectory(self.session, self.store, self.clock)
        self.lists = [self.alice.device_list]
        for number in range(3):
            device = DeviceSecret.generate(ALICE, f"agent-{number}", serves=True)
            self.lists.append(add_devices(parse_list(self.lists[-1]), self.alice.device, [device.public()]))

    @property
    def hub(self) -> KeyDirectory:
        return self.session.crypto

    def reopened(self) -> DeviceDirectory:
        return DeviceDirectory(self.session, KeyStore.open(self.folder), self.clock)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path / "keys")


async def _refused(call: Any, reason: str) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        await call
    assert caught.value.reason == reason


async def test_first_contact_pins_the_root_on_disk(world):
    world.hub.chain = world.lists[:2]
    keys = await world.directory.devices_of("Alice@X.example")
    assert (keys.principal, keys.root, keys.version) == (ALICE, world.alice.root_public, 2)
    assert [device.device_id for device in await world.directory.serving_devices(ALICE)] == ["agent-0"]
    again = KeyStore.open(world.folder)
    assert (again.pinned(ALICE), again.list_version(ALICE)) == (world.alice.root_public, 2)


async def test_a_chain_is_asked_for_once_a_minute_and_then_only_what_is_new(world):
    world.hub.chain = world.lists[:2]
    for _ in range(3):
        await world.directory.devices_of(ALICE)
    assert world.hub.asked == [0]
    world.clock.at_s = 60
    world.hub.chain = world.lists
    assert (await world.directory.devices_of(ALICE)).version == 4
    assert (await world.directory.devices_of(ALICE, refresh=True)).version == 4
    assert world.hub.asked == [0, 3, 5]


async def test_many_that_ask_at_once_ask_the_hub_once(world):
    world.hub.chain = world.lists[:1]
    await asyncio.gather(*(world.directory.devices_of(ALICE) for _ in range(10)))
    assert world.hub.asked == [0]


async def test_another_root_is_a_changed_key_and_replaces_nothing(world):
    world.hub.chain = world.lists[:1]
    await world.directory.devices_of(ALICE)
    world.hub.chain = [create_account(ALICE, SystemClock()).device_list]
    await _refused(world.reopened().devices_of(ALICE), "KEY_CHANGED")
    assert KeyStore.open(world.folder).pinned(ALICE) == world.alice.root_public


async def test_an_older_chain_after_a_restart_is_a_rollback(world):
    world.hub.chain = world.lists
    await world.directory.devices_of(ALICE)
    world.hub.chain = world.lists[:2]
    await _refused(world.reopened().devices_of(ALICE), "DEVICE_LIST_ROLLBACK")


async def test_a_hub_that_hides_what_is_new_cannot_take_back_what_was_seen(world):
    world.hub.chain = world.lists
    await world.directory.devices_of(ALICE)
    world.hub.chain = world.lists[:1]
    assert (await world.directory.devices_of(ALICE, refresh=True)).version == 4


async def test_a_fork_of_the_chain_is_refused(world):
    world.hub.chain = world.lists[:2]
    await world.directory.devices_of(ALICE)
    device = DeviceSecret.generate(ALICE, "other", serves=True)
    fork = add_devices(parse_list(world.lists[0]), world.alice.device, [device.public()])
    more = add_devices(parse_list(fork), world.alice.device, [DeviceSecret.generate(ALICE, "x").public()])
    world.hub.chain = [world.lists[0], fork, more]
    await _refused(world.directory.devices_of(ALICE, refresh=True), "DEVICE_LIST_INVALID")


@pytest.mark.parametrize(
    "bend",
    [
        lambda world: [world.lists[0], world.lists[2]],
        lambda world: [world.lists[1]],
        lambda world: [world.bob.device_list],
        lambda world: [world.lists[0], world.lists[1][:-1] + bytes([world.lists[1][-1] ^ 1])],
    ],
    ids=["gap", "no first list", "somebody else's", "damaged"],
)
async def test_a_chain_that_does_not_hold_is_refused_and_not_pinned(world, bend):
    world.hub.chain = bend(world)
    await _refused(world.directory.devices_of(ALICE), "DEVICE_LIST_INVALID")
    assert world.store.pinned(ALICE) is None


async def test_a_root_that_a_person_accepted_is_verified_anew(world):
    world.hub.chain = world.lists[:2]
    await world.directory.devices_of(ALICE)
    changed = create_account(ALICE, SystemClock())
    world.hub.chain = [changed.device_list]
    world.store.accept_root(ALICE, old=world.alice.root_public, new=changed.root_public)
    assert (await world.directory.devices_of(ALICE)).root == changed.root_public


async def test_long_chains_come_in_pages(world, monkeypatch):
    monkeypatch.setattr(module, "_PAGE_BYTES", 1)
    world.hub.chain = world.lists
    assert (await world.directory.devices_of(ALICE)).version == 4
    assert world.hub.asked == [0, 5]


async def test_unknown_malformed_and_away_are_told(world):
    with pytest.raises(NotFound):
        await world.directory.devices_of(ALICE)
    with pytest.raises(InvalidInput):
        await world.directory.devices_of("alice")
    world.hub.away = True
    with pytest.raises(Unavailable):
        await world.directory.devices_of(ALICE)


async def test_a_stale_chain_is_never_used_when_the_hub_is_away(world):
    world.hub.chain = world.lists[:1]
    await world.directory.devices_of(ALICE)
    world.hub.away = True
    await world.directory.devices_of(ALICE)
    world.clock.at_s = 60
    with pytest.raises(Unavailable):
        await world.directory.devices_of(ALICE)


async def test_publishing_makes_the_own_chain_stale(world):
    world.hub.chain = [world.bob.device_list]
    await world.directory.devices_of(BOB)
    assert await world.directory.publish(b"signed") == 7
    assert world.hub.published == [b"signed"]
    await world.directory.devices_of(BOB)
    assert world.hub.asked == [0, 2]


async def test_the_list_itself_is_given_to_sign_the_next_one(world):
    world.hub.chain = world.lists[:2]
    assert (await world.directory.list_of(ALICE)).encoded == world.lists[1]
