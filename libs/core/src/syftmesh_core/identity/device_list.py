"""Device lists: which devices are a principal's, as a signed chain that starts at the account root.

List 1 is signed by the root; each later one by an admin device of the list before it, or by the root. The
signature covers ``ENC('device-list', principal, version, root key, devices, digest of the previous list,
signer)``; a list's digest is the SHA-256 of these bytes, the signer is a device id or absent for the root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.identity import ed25519
from syftmesh_core.identity.device import MAX_DEVICE_BYTES, DevicePublic, DeviceSecret, is_principal
from syftmesh_core.identity.phrase import AccountRoot

MAX_DEVICES = 32
DIGEST_BYTES = 32
MAX_LIST_BYTES = MAX_DEVICES * MAX_DEVICE_BYTES + 4096
"""Longest encoding of a signed list, in bytes."""


@dataclass(frozen=True, slots=True)
class DeviceList:
    """One version of a principal's devices.

    `parse_list` checks form and the devices' own signatures; that the list itself is signed by who may, only
    `verify_chain` and `verify_successor` say.

    Attributes:
        principal: E-mail address of the owner, normalised.
        version: From 1, without gaps.
        root_key: Account root's public key, raw, 32 bytes.
        devices: 1 to 32 devices with distinct ids and signing keys.
        previous_digest: Digest of the list before, None for list 1.
        signer: Device id of the list before, None for the root.
        encoded: The signed bytes as received.
        digest: SHA-256 of the bytes under the signature.
    """

    principal: str
    version: int
    root_key: bytes = field(repr=False)
    devices: tuple[DevicePublic, ...]
    previous_digest: bytes | None = field(repr=False)
    signer: str | None
    encoded: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def find(self, device_id: str) -> DevicePublic | None:
        """Return the device of that id, or None where the list has none."""
        return next((device for device in self.devices if device.device_id == device_id), None)


def sign_first_list(principal: str, devices: Sequence[DevicePublic], root: AccountRoot) -> bytes:
    """Return the signed list 1 of `principal`.

    Raises:
        InvalidInput: DEVICE_LIST_INVALID for no device, a device of somebody else, or ids or keys used twice.
        LimitExceeded: TOO_MANY_DEVICES above 32.
    """
    return _sign(principal, 1, root.public_key, devices, None, root)


def sign_next_list(
    previous: DeviceList, devices: Sequence[DevicePublic], signer: DeviceSecret | AccountRoot
) -> bytes:
    """Return the signed list that replaces `previous` (verified) by `devices`.

    Raises:
        InvalidInput: DEVICE_LIST_INVALID as `sign_first_list`, or when `signer` may not sign it.
        LimitExceeded: TOO_MANY_DEVICES above 32.
    """
    data = _sign(
        previous.principal, previous.version + 1, previous.root_key, devices, previous.digest, signer
    )
    try:
        verify_successor(previous, parse_list(data))
    except IntegrityFailure as failure:
        raise InvalidInput(failure.message, reason="DEVICE_LIST_INVALID") from failure
    return data


def parse_list(data: bytes) -> DeviceList:
    """Return the list in `data`: form, limits and each device's own signature checked, not the list's.

    Raises:
        IntegrityFailure: ENCODING_INVALID, DEVICE_INVALID, or DEVICE_LIST_INVALID.
    """
    body, _ = _split(data)
    reader = Reader("device-list", body)
    found = DeviceList(
        principal=reader.text(),
        version=reader.integer(),
        root_key=reader.raw(ed25519.KEY_BYTES),
        devices=tuple(DevicePublic.from_bytes(item) for item in reader.items(MAX_DEVICES)),
        previous_digest=reader.optional_raw(DIGEST_BYTES),
        signer=reader.optional_text(),
        encoded=bytes(data),
        digest=hashlib.sha256(body).digest(),
    )
    reader.end()
    problem = _problem(found.principal, found.devices)
    if problem:
        _refuse(problem)
    if found.version < 1 or (found.version == 1) != (found.previous_digest is None):
        _refuse("list 1 replaces nothing, and every later one names what it replaces")
    if not ed25519.is_sound_key(found.root_key):
        _refuse("its root key is unusable")
    return found


def verify_first(data: bytes, *, pinned_root: bytes | None = None) -> DeviceList:
    """Return list 1 in `data`, signed by its root.

    Raises:
        IntegrityFailure: KEY_CHANGED when its root is not `pinned_root`; DEVICE_LIST_INVALID,
            ENCODING_INVALID or DEVICE_INVALID otherwise.
    """
    found = parse_list(data)
    if pinned_root is not None and found.root_key != pinned_root:
        _refuse_root(found.principal)
    if found.version != 1 or found.signer is not None:
        _refuse("the first list is list 1, signed by the root")
    _check_signature(found, found.root_key)
    return found


def verify_successor(previous: DeviceList, new: DeviceList | bytes) -> DeviceList:
    """Return `new`, which must replace `previous` (verified already).

    Raises:
        IntegrityFailure: KEY_CHANGED when the root differs; DEVICE_LIST_INVALID when it is another
            principal's, not the next version, names another predecessor, brings new keys for an old id
            without a higher epoch, or is not signed by an admin device of `previous` or by the root;
            ENCODING_INVALID or DEVICE_INVALID for bytes that do not parse.
    """
    found = new if isinstance(new, DeviceList) else parse_list(new)
    if found.principal != previous.principal:
        _refuse("it is another principal's")
    if found.root_key != previous.root_key:
        _refuse_root(found.principal)
    if found.version != previous.version + 1 or found.previous_digest != previous.digest:
        _refuse("it does not follow the list before it")
    for device in found.devices:
        old = previous.find(device.device_id)
        if old is not None and old.encoded != device.encoded and device.epoch <= old.epoch:
            _refuse("a device changed without a higher epoch")
    _check_signature(found, _signing_key(previous, found.signer))
    return found


def verify_chain(lists: Sequence[bytes], *, pinned_root: bytes | None = None) -> DeviceList:
    """Return the last of `lists`, which are all signed lists of one principal from list 1 on.

    Args:
        lists: Signed lists in order.
        pinned_root: The root known from before, 32 bytes, or None at first contact.

    Raises:
        IntegrityFailure: KEY_CHANGED when the root is another than `pinned_root` or changes within the chain;
            DEVICE_LIST_INVALID for no list or one that does not chain; ENCODING_INVALID or DEVICE_INVALID for
            bytes that do not parse.
    """
    if not lists:
        _refuse("there is none")
    current = verify_first(lists[0], pinned_root=pinned_root)
    for data in lists[1:]:
        current = verify_successor(current, data)
    return current


def _sign(
    principal: str,
    version: int,
    root_key: bytes,
    devices: Sequence[DevicePublic],
    previous_digest: bytes | None,
    signer: DeviceSecret | AccountRoot,
) -> bytes:
    if len(devices) > MAX_DEVICES:
        raise LimitExceeded(
            f"A principal has at most {MAX_DEVICES} devices: remove one first.",
            reason="TOO_MANY_DEVICES",
            metadata={"limit": str(MAX_DEVICES)},
        )
    problem = _problem(principal, devices)
    if problem:
        raise InvalidInput(f"The device list is refused: {problem}.", reason="DEVICE_LIST_INVALID")
    name = signer.device_id if isinstance(signer, DeviceSecret) else None
    encoded_devices = [device.encoded for device in devices]
    body = encode("device-list", [principal, version, root_key, encoded_devices, previous_digest, name])
    return encode("device-list-signed", [body, signer.sign(body)])


def _split(data: bytes) -> tuple[bytes, bytes]:
    reader = Reader("device-list-signed", data, max_bytes=MAX_LIST_BYTES)
    body, signature = reader.raw(), reader.raw(ed25519.SIGNATURE_BYTES)
    reader.end()
    return body, signature


def _problem(principal: str, devices: Sequence[DevicePublic]) -> str:
    if not is_principal(principal):
        return "its principal is no e-mail address"
    if not devices:
        return "it holds no device"
    if any(device.principal != principal for device in devices):
        return "it holds a device of another principal"
    for keys in ({d.device_id for d in devices}, {d.signing_key for d in devices}):
        if len(keys) != len(devices):
            return "two of its devices share an id or a signing key"
    return ""


def _signing_key(previous: DeviceList, signer: str | None) -> bytes:
    if signer is None:
        return previous.root_key
    device = previous.find(signer)
    if device is None or not device.admin:
        _refuse("its signer is no admin device of the list before it")
    return device.signing_key


def _check_signature(found: DeviceList, key: bytes) -> None:
    body, signature = _split(found.encoded)
    if not ed25519.is_signed_by(key, signature, body):
        _refuse("its signature does not hold")


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The device list is refused: {what}.", reason="DEVICE_LIST_INVALID")


def _refuse_root(principal: str) -> NoReturn:
    raise IntegrityFailure(
        f"The account key of {principal} is not the one known from before: nothing is sent or opened until a "
        f"person has checked it.",
        reason="KEY_CHANGED",
        metadata={"principal": principal},
        hint=f"syftmesh keys verify {principal}",
    )
