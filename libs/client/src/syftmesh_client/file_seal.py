"""A file's content as it is stored: sealed for its readers' devices, or plain where everyone may read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3
from syftmesh_core.clock import Random
from syftmesh_core.errors import IntegrityFailure, LimitExceeded
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.path import MeshPath
from syftmesh_core.record import ContentHeader
from syftmesh_core.sealed import SealHeader, open_sealed, seal

from syftmesh_client.file_record import VerifiedRecord

KIND: Final = "file"
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
PAD_TO_BYTES: Final = 16 * 1024
"""Sealed content is at least this long, so that small files look alike (crypto.md, packs)."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """Bytes for the object store and the header that names them."""

    header: ContentHeader
    data: bytes = field(repr=False)


def plain_content(data: bytes) -> StoredContent:
    """Return `data` as it is stored where everyone may read."""
    header = ContentHeader(
        sealed=False,
        object_id=hashlib.sha256(data).hexdigest(),
        stored_size_bytes=len(data),
        plain_blake3=blake3(data).digest(),
        plain_size_bytes=len(data),
    )
    return StoredContent(header, data)


def sealed_content(
    data: bytes,
    path: MeshPath,
    revision: int,
    *,
    readers: Sequence[DevicePublic],
    signer: DeviceSecret,
    signer_root: bytes,
    random: Random,
) -> StoredContent:
    """Return `data` sealed for `readers` as revision `revision` of `path`.

    Raises:
        InvalidInput: (SEAL_REFUSED) no reader, or one twice.
        LimitExceeded: (TOO_MANY_READERS) more than 1,024 devices.
    """
    header = SealHeader(
        kind=KIND,
        sender_root=signer_root,
        sender=signer.principal,
        sender_device=signer.device_id,
        receiver=str(path),
        ids=seal_ids(path, revision),
    )
    blob = seal(data, header=header, readers=readers, signer=signer, pad_to_bytes=PAD_TO_BYTES, random=random)
    stored = ContentHeader(
        sealed=True, object_id=hashlib.sha256(blob).hexdigest(), stored_size_bytes=len(blob)
    )
    return StoredContent(stored, blob)


def opened(blob: bytes, verified: VerifiedRecord, *, device: DeviceSecret, now_ms: int) -> bytes:
    """Return the exact bytes of the file whose verified record names `blob`.

    Raises:
        IntegrityFailure: SEAL_INVALID when the seal does not hold or is of another path, revision or author;
            FILE_CORRUPT when plain content has another digest than was signed.
        PermissionDenied: (NO_KEY_FOR_DEVICE) it was sealed before this device was a reader.
    """
    content = verified.content
    if content is None:
        raise IntegrityFailure("A tombstone has no content.", reason="FILE_CORRUPT")
    if not content.sealed:
        if len(blob) != content.plain_size_bytes or blake3(blob).digest() != content.plain_blake3:
            raise IntegrityFailure(
                f"The content of {verified.path} has another digest than was signed.",
                reason="FILE_CORRUPT",
                metadata={"path": str(verified.path)},
            )
        return blob
    found = open_sealed(
        blob,
        device=device,
        sender=verified.device,
        sender_root=verified.author_root,
        expect_kind=KIND,
        expect_receiver=str(verified.path),
        now_ms=now_ms,
    )
    if found.header.ids != seal_ids(verified.path, verified.record.revision):
        raise IntegrityFailure(
            f"The content of {verified.path} was sealed for another revision.",
            reason="SEAL_INVALID",
            metadata={"path": str(verified.path)},
        )
    return found.plaintext


def seal_ids(path: MeshPath, revision: int) -> tuple[str, str]:
    """Return the ids of a seal: SHA-256 of the path in hex, for a path may be too long, and the revision."""
    return hashlib.sha256(str(path).encode()).hexdigest(), str(revision)


def check_size(path: MeshPath, data: bytes) -> None:
    """Refuse content above 16 MiB.

    Raises:
        LimitExceeded: FILE_TOO_LARGE.
    """
    if len(data) > MAX_FILE_BYTES:
        raise LimitExceeded(
            f"{path} has {len(data)} bytes, and a file has at most {MAX_FILE_BYTES}.",
            reason="FILE_TOO_LARGE",
            metadata={"path": str(path), "limit_bytes": str(MAX_FILE_BYTES), "size_bytes": str(len(data))},
        )
