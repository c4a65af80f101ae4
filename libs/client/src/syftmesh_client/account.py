"""Accounts: the first keys of a principal, and changes of its device list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from syftmesh_core.clock import Clock, Random, system_random, uuid7
from syftmesh_core.errors import InvalidInput
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.identity.device_list import DeviceList, sign_first_list, sign_next_list
from syftmesh_core.identity.phrase import ENTROPY_BYTES, AccountRoot, phrase_of


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What `create_account` makes. The phrase is shown once and kept nowhere.

    Attributes:
        phrase: The 24 words of the recovery phrase; never shown by `repr`.
        root_public: The account root's public key, raw, 32 bytes: what others pin.
        device: The first device, flagged `admin`.
        device_list: Signed bytes of device list 1.
    """

    phrase: tuple[str, ...] = field(repr=False)
    root_public: bytes
    device: DeviceSecret
    device_list: bytes = field(repr=False)


def create_account(
    email: str,
    clock: Clock,
    random: Random = system_random,
    *,
    serves: bool = False,
    device_id: str | None = None,
) -> NewAccount:
    """Return a new account: phrase, root, first device and device list 1. The root's private key is dropped.

    Args:
        email: The principal, normalised.
        clock: Gives the device id its time.
        random: Source of all keys.
        serves: Whether the first device takes calls.
        device_id: Id of the first device; None makes one.

    Raises:
        InvalidInput: DEVICE_INVALID when `email` cannot be a principal.
    """
    name = device_id or uuid7(clock, random)
    device = DeviceSecret.generate(email, name, serves=serves, admin=True, random=random)
    entropy = random(ENTROPY_BYTES)
    root = AccountRoot(entropy)
    return NewAccount(
        phrase=phrase_of(entropy),
        root_public=root.public_key,
        device=device,
        device_list=sign_first_list(email, [device.public()], root),
    )


def add_devices(current: DeviceList, admin: DeviceSecret, devices: Sequence[DevicePublic]) -> bytes:
    """Return the signed list that follows `current` with `devices` added; one of a known id replaces it.

    Args:
        current: The newest list, verified.
        admin: An admin device of `current`.
        devices: The devices to add, their public halves fetched over a channel the owner trusts.

    Raises:
        InvalidInput: DEVICE_LIST_INVALID when `admin` may not sign, a device is somebody else's, or one
            changes without a higher epoch.
        LimitExceeded: TOO_MANY_DEVICES above 32.
    """
    return sign_next_list(current, _merged(current, devices), admin)


def remove_devices(current: DeviceList, admin: DeviceSecret, device_ids: Sequence[str]) -> bytes:
    """Return the signed list that follows `current` without the devices of these ids.

    Raises:
        InvalidInput: DEVICE_LIST_INVALID when an id is not in the list, nothing would remain, or `admin` may
            not sign.
    """
    for device_id in device_ids:
        if current.find(device_id) is None:
            raise InvalidInput(
                f"The device list has no device {device_id}.",
                reason="DEVICE_LIST_INVALID",
                metadata={"device_id": device_id},
            )
    remaining = [device for device in current.devices if device.device_id not in device_ids]
    return sign_next_list(current, remaining, admin)


def recover_devices(
    current: DeviceList, phrase: str | Sequence[str], devices: Sequence[DevicePublic]
) -> bytes:
    """Return the list that follows `current` with `devices` added, signed by the root from the `phrase`.

    Raises:
        InvalidInput: PHRASE_INVALID for no such phrase, PHRASE_OTHER_ACCOUNT for one of another account,
            DEVICE_LIST_INVALID as `add_devices`.
        LimitExceeded: TOO_MANY_DEVICES above 32.
    """
    root = AccountRoot.from_phrase(phrase)
    if root.public_key != current.root_key:
        raise InvalidInput(
            f"The recovery phrase is not the one of {current.principal}.",
            reason="PHRASE_OTHER_ACCOUNT",
            metadata={"principal": current.principal},
        )
    return sign_next_list(current, _merged(current, devices), root)


def _merged(current: DeviceList, devices: Sequence[DevicePublic]) -> list[DevicePublic]:
    by_id = {device.device_id: device for device in current.devices}
    by_id.update((device.device_id, device) for device in devices)
    return list(by_id.values())
