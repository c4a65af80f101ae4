"""What the file client gives to its callers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from syftmesh_core.record import ContentHeader, FileRecord

from syftmesh_client.file_record import VerifiedRecord


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file, opened and verified.

    Attributes:
        path: `<e-mail>/<segments>`.
        data: Its exact bytes.
        record: What its author signed.
        content: The content header.
        author: E-mail address of the author.
    """

    path: str
    data: bytes = field(repr=False)
    record: FileRecord
    content: ContentHeader
    author: str


@dataclass(frozen=True, slots=True)
class FileEntryView:
    """A live file as its record says, without its bytes.

    Attributes:
        path: `<e-mail>/<segments>`.
        revision: The signed revision, from 1.
        author: E-mail address of the author.
        created_ms: When it was written, Unix milliseconds, by the author's clock.
        sealed: Whether its stored bytes are ciphertext.
        stored_size_bytes: Size of the stored bytes.
        size_bytes: Exact size, None where only who opens the file knows it.
        unverified: Why the record is not to be believed (a reason constant); empty for one that holds.
    """

    path: str
    revision: int
    author: str
    created_ms: int
    sealed: bool
    stored_size_bytes: int
    size_bytes: int | None
    unverified: str = ""


class ChangeKind(StrEnum):
    """What a step of the feed says."""

    UPDATED = "updated"
    DELETED = "deleted"
    ACCESS_LOST = "access_lost"
    CAUGHT_UP = "caught_up"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the feed; keep the newest to go on behind it.

    Attributes:
        epoch: Counts rebuilds of the hub's log.
        sequence: Last sequence seen.
        seen_ms: Moment up to which the hub has told which rights ended by the clock, 0 where it is not known.
    """

    epoch: int
    sequence: int
    seen_ms: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the feed.

    Attributes:
        kind: What happened; CAUGHT_UP says that everything up to now has been told.
        path: The path; empty for CAUGHT_UP.
        entry: The new version, of UPDATED only.
        cursor: Resumes behind this step.
    """

    kind: ChangeKind
    path: str
    entry: FileEntryView | None
    cursor: Cursor


def view_of(verified: VerifiedRecord) -> FileEntryView:
    """Return the view of a verified record of a live file."""
    return view_of_parts(str(verified.path), verified.record, verified.content)


def view_of_parts(
    path: str, record: FileRecord, content: ContentHeader | None, unverified: str = ""
) -> FileEntryView:
    """Return the view of a record and its content header."""
    return FileEntryView(
        path=path,
        revision=record.revision,
        author=record.author,
        created_ms=record.created_ms,
        sealed=content.sealed if content else False,
        stored_size_bytes=content.stored_size_bytes if content else 0,
        size_bytes=content.plain_size_bytes if content else None,
        unverified=unverified,
    )
