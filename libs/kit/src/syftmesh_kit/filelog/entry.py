"""One record of the file log, decoded, and the names it has on the bus and in the object store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from mesh.common.v1 import common_pb2
from mesh.sync.v1 import sync_pb2
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.record import ContentHeader, FileRecord, SignedRecord, parse_record, record_digest
from syftmesh_core.text import safe_token

from syftmesh_kit import subject
from syftmesh_kit.filelog.position import LogPosition

_HASH_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The newest record of one path.

    Attributes:
        path: Where it is.
        text: The path as text.
        sequence: Place in the log.
        record: What its author signed.
        content: Its content header, None for a tombstone.
        signed: The signed bytes.
        digest: The record's digest, 32 bytes.
        live_since: Sequence from which on a live file has been here without a break; of a tombstone, that of
            the file before it. 0 where it is older than what this process has seen.
        checked_at: Place of the newest change of rules or groups when the write was decided; None where the
            record does not say, as those of older versions.
        stored_ms: When the bus stored it, Unix milliseconds; 0 where that is not known.
    """

    path: MeshPath
    text: str
    sequence: int
    record: FileRecord = field(repr=False)
    content: ContentHeader | None = field(repr=False)
    signed: SignedRecord = field(repr=False)
    digest: bytes = field(repr=False)
    live_since: int = 0
    checked_at: LogPosition | None = None
    stored_ms: int = 0

    @property
    def is_live(self) -> bool:
        """Whether there is a file, not a tombstone."""
        return not self.record.deleted

    @property
    def revision(self) -> int:
        """The signed revision."""
        return self.record.revision

    @property
    def object_id(self) -> str:
        """SHA-256 of the stored object in hex, empty for a tombstone."""
        return self.content.object_id if self.content else ""

    def living_since(self, sequence: int) -> LogEntry:
        """Return the same entry with another `live_since`."""
        return replace(self, live_since=sequence)


def entry_of(signed: SignedRecord, sequence: int) -> LogEntry:
    """Return the entry of a record as the log holds it; its signature was checked before it was committed.

    Raises:
        IntegrityFailure: (RECORD_INVALID) it is no record.
        InvalidInput: (PATH_INVALID) it names no path.
    """
    record, content = parse_record(signed)
    path = parse_path(f"{record.site}/{record.path}")
    born = sequence if record.revision == 1 else 0
    return LogEntry(path, str(path), sequence, record, content, signed, record_digest(signed), born)


def entry_of_message(message: sync_pb2.FileEntry, sequence: int, stored_ms: int = 0) -> LogEntry:
    """Return the entry of a message that was stored at `stored_ms`; raises as `entry_of`."""
    signed = SignedRecord(message.record.record, message.record.content, message.record.signature)
    checked = message.checked_at if message.HasField("checked_at") else None
    checked_at = None if checked is None else LogPosition(checked.epoch, checked.sequence)
    return replace(entry_of(signed, sequence), checked_at=checked_at, stored_ms=stored_ms)


def entry_message(
    path: str, signed: SignedRecord, checked_at: LogPosition | None, sequence: int = 0
) -> sync_pb2.FileEntry:
    """Return a record as the log holds it (without its sequence), or as the API gives it."""
    record = sync_pb2.SignedRecord(record=signed.record, content=signed.content, signature=signed.signature)
    message = sync_pb2.FileEntry(path=path, record=record, sequence=sequence)
    if checked_at is not None:
        at = common_pb2.ConsistencyToken(epoch=checked_at.epoch, sequence=checked_at.sequence)
        message.checked_at.CopyFrom(at)
    return message


def path_hash(path: str) -> str:
    """Return the token of `path` in its subject: the first 32 hex digits of SHA-256 (FIPS 180-4)."""
    return hashlib.sha256(path.encode()).hexdigest()[:_HASH_DIGITS]


def subject_of(path: MeshPath) -> str:
    """Return the subject of the records of `path`."""
    return subject.files(path.site, path_hash(str(path)))


def fence_subject(site: str) -> str:
    """Return the subject of the `PolicyFence` behind each change of rules or groups of `site`; no hash is so short."""
    return subject.files(site, "policy")


def guard_subject(site: str) -> str:
    """Return the subject of the `PolicyFence` that only carries a check of `fence_subject` and says nothing."""
    return subject.files(site, "checked")


def object_key(site: str, object_id: str) -> str:
    """Return the key in the object store of the object with SHA-256 `object_id` (hex) of `site`."""
    return f"packs/{safe_token(site)}/{object_id}"
