"""The bytes of a sealed blob: its header, its wraps, and the container around them.

``blob = ENC('sealed-object', [signed bytes, signature, ciphertext])``, where the signed bytes are
``ENC('sealed', suite, kind, sender root key, e-mail, device, receiver or path, ids, expiry, readers, SHA-256
of the ciphertext)`` and each reader is the list (e-mail, device id, wrapped key).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from syftmesh_core.enc import MAX_INTEGER, PREFIX, Reader, Value, as_text, encode, item_fields
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.identity import ed25519, xwing
from syftmesh_core.identity.device import is_device_id, is_principal
from syftmesh_core.padding import padme

SUITE = 1
"""X-Wing, HKDF-SHA-256, AES-256-GCM, SHA-256, Ed25519."""

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_READERS = 1024
MAX_IDS = 16
KEY_BYTES = 32
TAG_BYTES = 16
COMMITMENT_BYTES = 32
WRAPPED_BYTES = KEY_BYTES + xwing.WRAP_OVERHEAD_BYTES

_MAX_KIND_BYTES = 64
_MAX_RECEIVER_BYTES = 2048
_MAX_ID_BYTES = 256
_MAX_WRAP_ITEM_BYTES = 2048
_MAX_CIPHERTEXT_BYTES = COMMITMENT_BYTES + padme(MAX_BODY_BYTES + 8) + TAG_BYTES
_MAX_SIGNED_BYTES = MAX_READERS * _MAX_WRAP_ITEM_BYTES + 16384
MAX_BLOB_BYTES = _MAX_SIGNED_BYTES + _MAX_CIPHERTEXT_BYTES + 1024
"""Longest blob that is looked at, in bytes."""

_BLOB_HEAD = PREFIX + b"sealed-object\0"


@dataclass(frozen=True, slots=True)
class SealHeader:
    """What everybody may see of a sealed blob, and what its signature binds.

    Attributes:
        kind: What it is, e.g. ``rds.submission``; at most 64 bytes.
        sender_root: Account root of the author, 32 bytes.
        sender: E-mail address of the author, normalised.
        sender_device: Device id of the author.
        receiver: E-mail address of the receiver, or a path; at most 2,048 bytes.
        ids: What it belongs to (call id, job id, ...), in the order the kind defines; at most 16 of 256
            bytes.
        expires_ms: Unix milliseconds from which nobody opens it any more, or None.

    Raises:
        InvalidInput: SEAL_REFUSED for a field beyond these limits.
    """

    kind: str
    sender_root: bytes = field(repr=False)
    sender: str
    sender_device: str
    receiver: str
    ids: tuple[str, ...] = ()
    expires_ms: int | None = None

    def __post_init__(self) -> None:
        texts = ((self.kind, _MAX_KIND_BYTES), (self.receiver, _MAX_RECEIVER_BYTES))
        sound = (
            all(0 < _size(text) <= limit for text, limit in texts)
            and len(self.sender_root) == ed25519.KEY_BYTES
            and is_principal(self.sender)
            and is_device_id(self.sender_device)
            and len(self.ids) <= MAX_IDS
            and all(_size(text) <= _MAX_ID_BYTES for text in self.ids)
            and (self.expires_ms is None or 0 <= self.expires_ms <= MAX_INTEGER)
        )
        if not sound:
            raise InvalidInput("A field of the seal's header is beyond its limits.", reason="SEAL_REFUSED")


@dataclass(frozen=True, slots=True)
class SealedInfo:
    """What a blob says of itself before anything was checked; for routing and display only.

    Attributes:
        header: Its header.
        readers: E-mail address and device id of each reading device.
        body_bytes: Padded size of the body.
        blob_bytes: Size of the whole blob.
    """

    header: SealHeader
    readers: tuple[tuple[str, str], ...]
    body_bytes: int
    blob_bytes: int


@dataclass(frozen=True, slots=True)
class Wrap:
    """One reading device and the content key wrapped to it (HPKE output, 1,168 bytes)."""

    principal: str
    device_id: str
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Container:
    """The parts of a parsed blob; views are into the blob as received."""

    header: SealHeader
    wraps: tuple[Wrap, ...]
    digest: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    ciphertext: memoryview = field(repr=False)


def signed_bytes(header: SealHeader, wraps: Sequence[Wrap], digest: bytes) -> bytes:
    """Return ``ENC('sealed', …)``, the bytes under the author's signature."""
    readers: list[Value] = [[wrap.principal, wrap.device_id, wrap.wrapped] for wrap in wraps]
    return encode("sealed", [*_header_fields(header), readers, digest])


def body_data(header: SealHeader) -> bytes:
    """Return the associated data of the body.

    It names the author, so nobody can put a signature of their own over somebody else's body and wraps.
    """
    return encode("sealed-body", _header_fields(header))


def key_info(header: SealHeader, device_id: str) -> bytes:
    """Return HPKE's info for the content key of one reading device."""
    return encode("sealed-key", [SUITE, list(header.ids), device_id])


def write_container(signed: bytes, signature: bytes, ciphertext: bytearray) -> bytes:
    """Return the blob; joined by hand, so that a large ciphertext is copied once."""
    parts: list[bytes | bytearray] = [_BLOB_HEAD]
    for part in (signed, signature, ciphertext):
        parts += [len(part).to_bytes(4, "big"), part]
    return b"".join(parts)


def parse_container(blob: bytes) -> Container:
    """Return the parts of `blob`, form and limits checked, nothing else.

    Raises:
        IntegrityFailure: SEAL_INVALID.
    """
    try:
        return _parse(blob)
    except (IntegrityFailure, InvalidInput):
        raise seal_invalid() from None


def seal_invalid() -> IntegrityFailure:
    """Return the one error for whatever does not hold, so that it tells an attacker nothing."""
    return IntegrityFailure(
        "The sealed content does not hold: it was damaged, or is not what and from whom it claims to be.",
        reason="SEAL_INVALID",
    )


def _parse(blob: bytes) -> Container:
    outer = Reader("sealed-object", blob, max_bytes=MAX_BLOB_BYTES)
    signed, signature, ciphertext = outer.raw(), outer.raw(ed25519.SIGNATURE_BYTES), outer.view()
    outer.end()
    padded_bytes = len(ciphertext) - COMMITMENT_BYTES - TAG_BYTES
    reader = Reader("sealed", signed, max_bytes=_MAX_SIGNED_BYTES)
    if reader.integer() != SUITE or len(ciphertext) > _MAX_CIPHERTEXT_BYTES or padded_bytes < 8:
        raise seal_invalid()
    kind, root = reader.text(), reader.raw(ed25519.KEY_BYTES)
    sender, sender_device, receiver = reader.text(), reader.text(), reader.text()
    header = SealHeader(
        kind=kind,
        sender_root=root,
        sender=sender,
        sender_device=sender_device,
        receiver=receiver,
        ids=reader.texts(MAX_IDS),
        expires_ms=reader.optional_integer(),
    )
    wraps = tuple(_parse_wrap(item) for item in reader.items(MAX_READERS))
    digest = reader.raw(32)
    reader.end()
    if not wraps or len({(wrap.principal, wrap.device_id) for wrap in wraps}) != len(wraps):
        raise seal_invalid()
    return Container(header, wraps, digest, signed, signature, ciphertext)


def _parse_wrap(item: bytes) -> Wrap:
    fields = item_fields(item, 3)
    if len(fields) != 3 or len(fields[2]) != WRAPPED_BYTES:
        raise seal_invalid()
    principal, device_id = as_text(fields[0]), as_text(fields[1])
    if not is_principal(principal) or not is_device_id(device_id):
        raise seal_invalid()
    return Wrap(principal, device_id, fields[2])


def _header_fields(header: SealHeader) -> list[int | str | bytes | list[str] | None]:
    return [
        SUITE,
        header.kind,
        header.sender_root,
        header.sender,
        header.sender_device,
        header.receiver,
        list(header.ids),
        header.expires_ms,
    ]


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
