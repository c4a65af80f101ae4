"""Signed records of files, sealed or plain, tombstones too.

The author's device signs ``ENC('record', datasite, path, revision, digest of the record replaced, digest of
the content header, epoch, deleted, rules checkpoint, author, device id, created)``; the content header rides
beside it and is bound by its SHA-256. A record's digest is the SHA-256 of the bytes under its signature.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import NoReturn

from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, MeshError
from syftmesh_core.identity import ed25519
from syftmesh_core.identity.device import DevicePublic, DeviceSecret, is_device_id, is_principal

MAX_RECORD_BYTES = 4096
"""Limit of record, content header and signature together, in bytes."""

DIGEST_BYTES = 32

_OBJECT_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ContentHeader:
    """What a record says of the stored object.

    Attributes:
        sealed: Whether the object is ciphertext.
        object_id: SHA-256 of the stored object, 64 lower-case hex digits.
        stored_size_bytes: Size of the stored object.
        plain_blake3: BLAKE3 of the content, 32 bytes; for plain files, absent for sealed ones.
        plain_size_bytes: Exact size of the content; for plain files, absent for sealed ones.

    Raises:
        InvalidInput: RECORD_INVALID when these do not fit together.
    """

    sealed: bool
    object_id: str
    stored_size_bytes: int
    plain_blake3: bytes | None = field(default=None, repr=False)
    plain_size_bytes: int | None = None

    def __post_init__(self) -> None:
        if not _OBJECT_ID.fullmatch(self.object_id):
            _refuse_input("an object id is 64 lower-case hex digits")
        if self.plain_blake3 is not None and len(self.plain_blake3) != DIGEST_BYTES:
            _refuse_input("a BLAKE3 digest has 32 bytes")
        shown = (self.plain_blake3 is not None, self.plain_size_bytes is not None)
        if shown != (not self.sealed, not self.sealed):
            _refuse_input("a plain file shows digest and size of its content, a sealed one neither")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One revision of one path.

    Attributes:
        site: E-mail address of the datasite's owner.
        path: Path within the datasite.
        revision: From 1; each record is its predecessor's plus one.
        previous_digest: `record_digest` of the record replaced, 32 bytes; None for revision 1.
        content_digest: SHA-256 of the encoded content header, 32 bytes; None for a tombstone.
        epoch: Epoch of the reader set.
        deleted: Whether this is a tombstone.
        rules_checkpoint: Digest of the rules checkpoint the author saw, 32 bytes, or None before the first.
        author: E-mail address of who wrote it.
        device_id: The author's device.
        created_ms: Unix milliseconds, by the author's clock.

    Raises:
        InvalidInput: RECORD_INVALID when these do not fit together.
    """

    site: str
    path: str
    revision: int
    previous_digest: bytes | None = field(repr=False)
    content_digest: bytes | None = field(repr=False)
    epoch: int
    deleted: bool
    rules_checkpoint: bytes | None = field(repr=False)
    author: str
    device_id: str
    created_ms: int

    def __post_init__(self) -> None:
        if not is_principal(self.site) or not is_principal(self.author) or not is_device_id(self.device_id):
            _refuse_input("site, author or device id has not its form")
        if not self.path or self.revision < 1:
            _refuse_input("it needs a path, and a revision from 1")
        if (self.revision == 1) != (self.previous_digest is None):
            _refuse_input("revision 1 replaces nothing, and every later one names what it replaces")
        if self.deleted != (self.content_digest is None) or (self.deleted and self.revision == 1):
            _refuse_input("a tombstone has no content and replaces a record; every other record has content")
        for digest in (self.previous_digest, self.content_digest, self.rules_checkpoint):
            if digest is not None and len(digest) != DIGEST_BYTES:
                _refuse_input("a digest has 32 bytes")


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record as it travels.

    Attributes:
        record: ``ENC('record', …)``, the bytes under the signature.
        content: ``ENC('content', …)``, empty for a tombstone.
        signature: Ed25519, 64 bytes.
    """

    record: bytes = field(repr=False)
    content: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def encode_content(content: ContentHeader) -> bytes:
    """Return ``ENC('content', …)``."""
    return encode(
        "content",
        [
            content.sealed,
            content.object_id,
            content.stored_size_bytes,
            content.plain_blake3,
            content.plain_size_bytes,
        ],
    )


def content_digest(content: ContentHeader) -> bytes:
    """Return the SHA-256 of the encoded `content`: what `FileRecord.content_digest` holds."""
    return hashlib.sha256(encode_content(content)).digest()


def sign_record(record: FileRecord, content: ContentHeader | None, secret: DeviceSecret) -> SignedRecord:
    """Return `record` signed by its author's device.

    Args:
        record: What to sign; `content_digest` must be that of `content`.
        content: The content header, None for a tombstone.
        secret: The author's device.

    Raises:
        InvalidInput: RECORD_INVALID when content or author do not fit the record.
        LimitExceeded: RECORD_TOO_LARGE above 4 KiB.
    """
    encoded_content = b"" if content is None else encode_content(content)
    digest = None if content is None else hashlib.sha256(encoded_content).digest()
    if digest != record.content_digest:
        _refuse_input("its content digest is not that of the content header")
    if (record.author, record.device_id) != (secret.principal, secret.device_id):
        _refuse_input("its author is not the signing device")
    body = _encode_record(record)
    signed = SignedRecord(record=body, content=encoded_content, signature=secret.sign(body))
    if _size(signed) > MAX_RECORD_BYTES:
        raise LimitExceeded(
            f"A record has at most {MAX_RECORD_BYTES} bytes: shorten the path.",
            reason="RECORD_TOO_LARGE",
            metadata={"limit_bytes": str(MAX_RECORD_BYTES)},
        )
    return signed


def parse_record(signed: SignedRecord) -> tuple[FileRecord, ContentHeader | None]:
    """Return what `signed` says, form and consistency checked; the signature is not.

    Raises:
        IntegrityFailure: RECORD_INVALID.
    """
    if _size(signed) > MAX_RECORD_BYTES or len(signed.signature) != ed25519.SIGNATURE_BYTES:
        _refuse("its size is beyond the limits")
    try:
        record = _decode_record(signed.record)
        content = _decode_content(signed.content) if signed.content else None
    except MeshError as error:
        _refuse(f"its encoding or its fields do not hold ({error.reason})")
    digest = None if content is None else hashlib.sha256(signed.content).digest()
    if digest != record.content_digest:
        _refuse("its content header is another one than it names")
    return record, content


def verify_record(signed: SignedRecord, device: DevicePublic) -> tuple[FileRecord, ContentHeader | None]:
    """Return what `signed` says, once its signature by `device` holds.

    Args:
        signed: As received.
        device: The author's device, from the author's verified device list.

    Raises:
        IntegrityFailure: RECORD_INVALID when form, author or signature do not hold.
    """
    record, content = parse_record(signed)
    if (record.author, record.device_id) != (device.principal, device.device_id):
        _refuse("it names another author or device")
    if not device.has_signed(signed.signature, signed.record):
        _refuse("its signature does not hold")
    return record, content


def verify_replaces(new: SignedRecord, previous: SignedRecord | None) -> None:
    """Check that `new` is the next record of the path of `previous`, or the first where that is None.

    Raises:
        IntegrityFailure: RECORD_INVALID when either does not parse, or `new` does not follow.
    """
    record, _ = parse_record(new)
    if previous is None:
        if record.revision != 1:
            _refuse("it replaces a record, and there is none")
        return
    old, _ = parse_record(previous)
    if (record.site, record.path) != (old.site, old.path):
        _refuse("it is of another path")
    if record.revision != old.revision + 1 or record.previous_digest != record_digest(previous):
        _refuse("it does not follow the record before it")


def record_digest(signed: SignedRecord) -> bytes:
    """Return the record's digest, SHA-256 of the bytes under its signature, which bind the content."""
    return hashlib.sha256(signed.record).digest()


def _encode_record(record: FileRecord) -> bytes:
    return encode(
        "record",
        [
            record.site,
            record.path,
            record.revision,
            record.previous_digest,
            record.content_digest,
            record.epoch,
            record.deleted,
            record.rules_checkpoint,
            record.author,
            record.device_id,
            record.created_ms,
        ],
    )


def _decode_record(data: bytes) -> FileRecord:
    reader = Reader("record", data)
    record = FileRecord(
        site=reader.text(),
        path=reader.text(),
        revision=reader.integer(),
        previous_digest=reader.optional_raw(DIGEST_BYTES),
        content_digest=reader.optional_raw(DIGEST_BYTES),
        epoch=reader.integer(),
        deleted=reader.boolean(),
        rules_checkpoint=reader.optional_raw(DIGEST_BYTES),
        author=reader.text(),
        device_id=reader.text(),
        created_ms=reader.integer(),
    )
    reader.end()
    return record


def _decode_content(data: bytes) -> ContentHeader:
    reader = Reader("content", data)
    content = ContentHeader(
        sealed=reader.boolean(),
        object_id=reader.text(),
        stored_size_bytes=reader.integer(),
        plain_blake3=reader.optional_raw(DIGEST_BYTES),
        plain_size_bytes=reader.optional_integer(),
    )
    reader.end()
    return content


def _size(signed: SignedRecord) -> int:
    return len(signed.record) + len(signed.content) + len(signed.signature)


def _refuse_input(what: str) -> NoReturn:
    raise InvalidInput(f"The record is refused: {what}.", reason="RECORD_INVALID")


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The record is refused: {what}.", reason="RECORD_INVALID")
