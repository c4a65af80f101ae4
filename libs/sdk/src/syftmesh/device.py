"""Devices of people: what the signed list says of them, what the hub says of one's own, and how one is ended."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from mesh.identity.v1 import identity_pb2
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_client.account import remove_devices
from syftmesh_client.node import Node
from syftmesh_core.errors import (
    Conflict,
    DeadlineExceeded,
    MeshError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.identity.device_list import DeviceList
from syftmesh_core.principal import normalise_principal

_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Device:
    """A device of somebody. It works while it is listed and not revoked.

    Attributes:
        device_id: The same in the list and at the hub.
        epoch: Of its keys; None where it is not listed, as the next three.
        serves: Whether it takes calls.
        admin: Whether it may sign device lists, rules, approvals and releases.
        signing_key: Its Ed25519 public key, hex.
        listed: Whether it is in the verified device list: what is sealed for the person is sealed for it.
        revoked: Whether the hub refuses it for ever. None where the hub says nothing, as the next two: it tells
            people of their own devices only, once these have logged in.
        label: ``profile``, ``agent`` or ``runner``.
        created: When it logged in first.
        own: Whether it is this very device.
    """

    device_id: str
    epoch: int | None
    serves: bool | None
    admin: bool | None
    signing_key: str | None
    listed: bool
    revoked: bool | None
    label: str | None
    created: datetime | None
    own: bool


@dataclass(frozen=True, slots=True)
class DeviceEnd:
    """What ending a device has done; what it has not, was done before.

    Attributes:
        device_id: Which one.
        unlisted: Whether it was taken out of the device list now; else it was not in it.
        revoked: Whether the hub was told to refuse it now; else it did before, or never saw it log in.
        known: Whether the hub has seen it log in.
        own: Whether it is this very device, which is logged out now.
    """

    device_id: str
    unlisted: bool
    revoked: bool
    known: bool
    own: bool


async def devices_of(node: Node, email: str) -> list[Device]:
    """Return the devices of somebody: those of the verified list, then those that only the hub knows.

    Raises:
        InvalidInput: PRINCIPAL_INVALID.
        MeshError: As `DeviceDirectory.devices_of`.
    """
    name = normalise_principal(email)
    listed = (await node.directory.devices_of(name, refresh=True)).devices
    at_hub = await _at_hub(node) if name == node.principal else {}
    own_id = node.keystore.device.device_id
    found = [_device(device.device_id, device, at_hub.get(device.device_id), own_id) for device in listed]
    for device in listed:
        at_hub.pop(device.device_id, None)
    return found + [_device(device_id, None, device, own_id) for device_id, device in at_hub.items()]


async def end_device(node: Node, device_id: str) -> DeviceEnd:
    """End a device of the own person: out of the device list first, then refused by the hub.

    In this order nothing is sealed any more for a device that cannot fetch it. What is cut off in between is
    completed by doing it again.

    Raises:
        PermissionDenied: It is listed, and this device may sign no list (ADMIN_DEVICE_REQUIRED).
        WrongState: It is the last admin device (LAST_ADMIN_DEVICE).
        NotFound: It is neither listed nor known to the hub (DEVICE_UNKNOWN).
        Conflict: The device list changes too quickly (DEVICE_LIST_STALE).
        MeshError: As `DeviceDirectory`, or what the hub says.
    """
    own = device_id == node.keystore.device.device_id
    before = (await _at_hub(node)).get(device_id)
    unlisted = await _unlist(node, device_id)
    known = await _revoke(node, device_id, unlisted=unlisted, own=own)
    if own:
        # The hub has ended this login together with the device: the tokens here are forgotten, whatever it says.
        with suppress(Unauthenticated, PermissionDenied, Unavailable, DeadlineExceeded):
            await node.session.logout()
    was_revoked = before is not None and before.revoked
    return DeviceEnd(device_id, unlisted, known and not was_revoked, known, own)


async def _at_hub(node: Node) -> dict[str, identity_pb2.Device]:
    answer = await node.session.identity.ListDevices(rpc.ListDevicesRequest())
    return {device.device_id: device for device in answer.devices}


async def _unlist(node: Node, device_id: str) -> bool:
    """Take a device out of the signed list; return whether it was in it."""
    tries = 0
    while True:
        current = await node.directory.list_of(node.principal, refresh=True)
        if current.find(device_id) is None:
            return False
        _check_may_remove(current, node.keystore.device.device_id, device_id)
        try:
            await node.directory.publish(remove_devices(current, node.keystore.device, [device_id]))
        except Conflict:  # another device has changed the list meanwhile
            tries += 1
            if tries == _TRIES:
                raise
        else:
            return True


def _check_may_remove(current: DeviceList, signer_id: str, device_id: str) -> None:
    signer = current.find(signer_id)
    if signer is None or not signer.admin:
        raise PermissionDenied(
            f"A device is taken out of the list of {current.principal} by an admin device; this device is none.",
            reason="ADMIN_DEVICE_REQUIRED",
            metadata={"device_id": device_id},
            hint="Do it on the machine, and with the profile, where the account was made: `syftmesh keys devices` "
            "says which device is admin.",
        )
    if not any(device.admin for device in current.devices if device.device_id != device_id):
        raise WrongState(
            f"{device_id} is the last admin device of {current.principal}: without it the account could be "
            f"changed by the recovery phrase only.",
            reason="LAST_ADMIN_DEVICE",
            metadata={"device_id": device_id},
            hint="`syftmesh logout` ends its login and keeps it; an administrator of the hub can end the whole "
            "person.",
        )


async def _revoke(node: Node, device_id: str, *, unlisted: bool, own: bool) -> bool:
    """Let the hub refuse a device for ever; return whether it knows the device."""
    try:
        await node.session.identity.RevokeDevice(rpc.RevokeDeviceRequest(device_id=device_id))
    except MeshError as error:
        if unlisted and error.reason == "DEVICE_UNKNOWN":
            return False
        if own and error.reason == "DEVICE_REVOKED":  # the answer was lost, not the revocation
            return True
        if unlisted:
            error.hint = (
                f"It is out of the device list, and its login has not ended: "
                f"`syftmesh keys devices revoke {device_id}` once more."
            )
        raise
    return True


def _device(
    device_id: str, listed: DevicePublic | None, at_hub: identity_pb2.Device | None, own_id: str
) -> Device:
    return Device(
        device_id=device_id,
        epoch=listed.epoch if listed else None,
        serves=listed.serves if listed else None,
        admin=listed.admin if listed else None,
        signing_key=listed.signing_key.hex() if listed else None,
        listed=listed is not None,
        revoked=at_hub.revoked if at_hub else None,
        label=at_hub.label if at_hub else None,
        created=at_hub.created_at.ToDatetime(tzinfo=UTC) if at_hub else None,
        own=device_id == own_id,
    )
