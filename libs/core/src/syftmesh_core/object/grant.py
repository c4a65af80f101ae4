"""Key grants: the secret of a reader set for one device.

The secret is wrapped by HPKE (X-Wing) with the info ``ENC('grant', datasite, epoch, device id, reader-list
digest)``. The granting device signs ``ENC('grant-sig', datasite, epoch, reader-list digest, commitment, X-Wing
public key, device id, SHA-256 of the HPKE output)``. It travels as ``ENC('key-grant', datasite, epoch,
reader-list digest, device id, granter, granter's device id, HPKE output, signature)``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, LimitExceeded, MeshError, PermissionDenied
from syftmesh_core.identity import ed25519, xwing
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.object.reader_secret import (
    DIGEST_BYTES,
    SECRET_BYTES,
    ReaderSecret,
    ReaderSetId,
    commitment_of,
    reader_list_digest,
    refuse_set_input,
    set_fields,
)
from syftmesh_core.object.reader_set import Granters, ReaderSet, find_granter

MAX_GRANTS = 5000
"""Most devices of one reader set."""

MAX_GRANT_BYTES = 4096
"""Longest encoding of a grant, in bytes; a real one has about 1.5 KiB."""

_WRAPPED_BYTES = SECRET_BYTES + xwing.WRAP_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class GrantClaim:
    """What a grant says of itself before anything was checked; to find the set and the granter's device.

    Attributes:
        set_id: The set it is for.
        device_id: The device it is for.
        granter: E-mail address of who signed it.
        granter_device: The signing device.
    """

    set_id: ReaderSetId
    device_id: str
    granter: str
    granter_device: str
    wrapped: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def grant_all(
    secret: ReaderSecret,
    *,
    readers: Collection[str],
    devices: Sequence[DevicePublic],
    signer: DeviceSecret,
) -> Iterator[tuple[DevicePublic, bytes]]:
    """Return an iterator over a signed grant for each of `devices`; what is refused is refused at once.

    Args:
        secret: Of the set.
        readers: The principals of the set.
        devices: From the readers' verified device lists, each once; those granted before may be left out.
        signer: A device of the owner, or of an admin of the path.

    Raises:
        InvalidInput: READER_SET_REFUSED when `readers` are not those of the set, a device is not of a reader,
            or is there twice.
        LimitExceeded: TOO_MANY_WRAPS above 5,000 devices, TOO_MANY_READERS above 1,000 readers.
    """
    if len(devices) > MAX_GRANTS:
        raise LimitExceeded(
            f"At most {MAX_GRANTS} devices read one reader set, not {len(devices)}: name fewer readers.",
            reason="TOO_MANY_WRAPS",
            metadata={"limit": str(MAX_GRANTS)},
        )
    if reader_list_digest(readers) != secret.set_id.readers_digest:
        refuse_set_input("these are not the readers it was made for")
    if not {device.principal for device in devices} <= set(readers):
        refuse_set_input("a device is not of one of its readers")
    if len({(device.principal, device.device_id) for device in devices}) != len(devices):
        refuse_set_input("a device is granted it twice")
    return ((device, _grant(secret, device, signer)) for device in devices)


def parse_grant(data: bytes) -> GrantClaim:
    """Return what `data` says of itself, form checked, nothing else.

    Raises:
        IntegrityFailure: GRANT_INVALID.
    """
    try:
        reader = Reader("key-grant", data, max_bytes=MAX_GRANT_BYTES)
        claim = GrantClaim(
            set_id=ReaderSetId(reader.text(), reader.integer(), reader.raw(DIGEST_BYTES)),
            device_id=reader.text(),
            granter=reader.text(),
            granter_device=reader.text(),
            wrapped=reader.raw(_WRAPPED_BYTES),
            signature=reader.raw(ed25519.SIGNATURE_BYTES),
        )
        reader.end()
    except MeshError:
        _refuse("its encoding does not hold")
    return claim


def open_grant(
    data: bytes, *, reader_set: ReaderSet, device: DeviceSecret, granters: Granters
) -> ReaderSecret:
    """Return the secret in `data`, once the granter's right and signature hold and it fits the commitment.

    Args:
        data: As received.
        reader_set: The verified set it must be of.
        device: The device that opens.
        granters: Who may grant.

    Raises:
        IntegrityFailure: GRANT_INVALID when form, set, right, signature, key or commitment do not hold.
        PermissionDenied: NO_KEY_FOR_DEVICE when it is genuine and for another device.
    """
    claim = parse_grant(data)
    if claim.set_id != reader_set.set_id:
        _refuse("it is of another datasite, epoch or list of readers")
    granter = find_granter(granters, claim.granter, claim.granter_device)
    if granter is None:
        _refuse("its signer may not grant")
    signed = _signed_bytes(reader_set.fields(), claim.device_id, claim.wrapped)
    if not granter.has_signed(claim.signature, signed):
        _refuse("its signature does not hold")
    if claim.device_id != device.device_id:
        raise PermissionDenied(
            "The key grant is for another device.",
            reason="NO_KEY_FOR_DEVICE",
            metadata={"device_id": device.device_id},
            hint="Ask an owner or admin of the datasite for a grant for this device.",
        )
    secret = device.unwrap(claim.wrapped, _info(claim.set_id, device.device_id))
    if secret is None or len(secret) != SECRET_BYTES:
        _refuse("it was not made for this device's keys")
    if not hmac.compare_digest(commitment_of(claim.set_id, secret), reader_set.commitment):
        _refuse("its secret is not the one that all readers got")
    opened = ReaderSecret(claim.set_id, secret)
    if opened.xwing_key != reader_set.xwing_key:
        _refuse("the set's public key does not follow from its secret")
    return opened


def _grant(secret: ReaderSecret, device: DevicePublic, signer: DeviceSecret) -> bytes:
    set_id = secret.set_id
    wrapped = secret.wrap_to(device.xwing_key, _info(set_id, device.device_id))
    fields = [*set_fields(set_id), secret.commitment, secret.xwing_key]
    signature = signer.sign(_signed_bytes(fields, device.device_id, wrapped))
    names = [device.device_id, signer.principal, signer.device_id]
    return encode("key-grant", [*set_fields(set_id), *names, wrapped, signature])


def _signed_bytes(fields: list[str | int | bytes], device_id: str, wrapped: bytes) -> bytes:
    return encode("grant-sig", [*fields, device_id, hashlib.sha256(wrapped).digest()])


def _info(set_id: ReaderSetId, device_id: str) -> bytes:
    return encode("grant", [set_id.site, set_id.epoch, device_id, set_id.readers_digest])


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The key grant is refused: {what}.", reason="GRANT_INVALID")
