"""The public half of a reader set, signed by a device that may grant.

Signed is ``ENC('reader-set', datasite, epoch, reader-list digest, commitment, X-Wing public key)``. Signature
and right are checked before any use, also by those who may only create: who seals to a key of a stranger
has sealed for the stranger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, MeshError
from syftmesh_core.identity import ed25519, xwing
from syftmesh_core.identity.device import DevicePublic, DeviceSecret, is_device_id, is_principal
from syftmesh_core.object.reader_secret import (
    DIGEST_BYTES,
    ReaderSecret,
    ReaderSetId,
    check_content_key,
    content_key_info,
    set_fields,
)

MAX_READER_SET_BYTES = 4096
"""Longest encoding of a signed reader set, in bytes."""

Granters = Callable[[str, str], DevicePublic | None]
"""Return the device of that principal and id, from its verified device list, when it is one of the datasite's
owner or of an admin of the path by the signed rules; None for every other."""


@dataclass(frozen=True, slots=True)
class ReaderSet:
    """A reader set whose signature and granter's right were checked; made by `verify_reader_set` only.

    Attributes:
        set_id: Which set.
        commitment: What the secret must fit, 32 bytes.
        xwing_key: To whom content keys are sealed by those who may only create, 1,216 bytes.
        granter: E-mail address of who signed it.
        device_id: The signing device.
    """

    set_id: ReaderSetId
    commitment: bytes = field(repr=False)
    xwing_key: bytes = field(repr=False)
    granter: str
    device_id: str

    def fields(self) -> list[str | int | bytes]:
        """Return the fields under its signature, in their order; those of its grants begin with them."""
        return [*set_fields(self.set_id), self.commitment, self.xwing_key]

    def seal_key(self, content_key: bytes) -> bytes:
        """Return `content_key` sealed to the set by one who may only create, 1,168 bytes.

        Raises:
            InvalidInput: READER_SET_REFUSED when a content key has not 32 bytes.
        """
        check_content_key(content_key)
        return xwing.wrap(content_key, self.xwing_key, content_key_info(self.set_id))


def sign_reader_set(secret: ReaderSecret, signer: DeviceSecret) -> bytes:
    """Return the public half of `secret`'s set, signed: what is published."""
    signed = encode("reader-set", [*set_fields(secret.set_id), secret.commitment, secret.xwing_key])
    return encode("reader-set-signed", [signed, signer.principal, signer.device_id, signer.sign(signed)])


def verify_reader_set(data: bytes, *, expect: ReaderSetId, granters: Granters) -> ReaderSet:
    """Return the reader set in `data`, once its signature and the signer's right hold.

    Args:
        data: As received.
        expect: The set that the signed rules and groups give, computed by the caller itself.
        granters: Who may grant.

    Raises:
        IntegrityFailure: READER_SET_INVALID when form, set, right, signature or key do not hold.
    """
    try:
        outer = Reader("reader-set-signed", data, max_bytes=MAX_READER_SET_BYTES)
        signed, granter, device_id = outer.raw(), outer.text(), outer.text()
        signature = outer.raw(ed25519.SIGNATURE_BYTES)
        outer.end()
    except MeshError:
        _refuse("its encoding does not hold")
    device = find_granter(granters, granter, device_id)
    if device is None:
        _refuse("its signer may not grant")
    if not device.has_signed(signature, signed):
        _refuse("its signature does not hold")
    found = _parse(signed, granter, device_id)
    if found.set_id != expect:
        _refuse("it is of another datasite, epoch or list of readers")
    if not xwing.is_sound_key(found.xwing_key):
        _refuse("its key is unusable")
    return found


def find_granter(granters: Granters, granter: str, device_id: str) -> DevicePublic | None:
    """Return the device of those names when it may grant; a wrong answer of the port counts as none."""
    if not is_principal(granter) or not is_device_id(device_id):
        return None
    device = granters(granter, device_id)
    if device is None or (device.principal, device.device_id) != (granter, device_id):
        return None
    return device


def _parse(signed: bytes, granter: str, device_id: str) -> ReaderSet:
    try:
        reader = Reader("reader-set", signed)
        set_id = ReaderSetId(reader.text(), reader.integer(), reader.raw(DIGEST_BYTES))
        commitment, xwing_key = reader.raw(DIGEST_BYTES), reader.raw(xwing.PUBLIC_BYTES)
        reader.end()
    except MeshError:
        _refuse("its encoding does not hold")
    return ReaderSet(set_id, commitment, xwing_key, granter, device_id)


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The reader set is refused: {what}.", reason="READER_SET_INVALID")
