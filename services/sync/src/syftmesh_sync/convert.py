"""Messages of `mesh.sync.v1` to the domain's values and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesh.sync.v1 import sync_pb2
from syftmesh_core.errors import InvalidInput, PermissionDenied
from syftmesh_core.principal import normalise_principal
from syftmesh_core.record import SignedRecord
from syftmesh_kit import filelog
from syftmesh_kit.caller import Caller
from syftmesh_kit.filelog import Change, ChangeKind, LogPosition

from syftmesh_sync.domain.commit import Outcome, Status
from syftmesh_sync.domain.operation import Uploader
from syftmesh_sync.domain.ports import Entry
from syftmesh_sync.domain.query import Download
from syftmesh_sync.domain.upload import ObjectSpec, Target

_STATUS = {
    Status.OK: sync_pb2.COMMIT_STATUS_OK,
    Status.CONFLICT: sync_pb2.COMMIT_STATUS_CONFLICT,
    Status.DENIED: sync_pb2.COMMIT_STATUS_DENIED,
    Status.INVALID: sync_pb2.COMMIT_STATUS_INVALID,
}
_KIND = {
    ChangeKind.UPDATED: sync_pb2.CHANGE_KIND_UPDATED,
    ChangeKind.DELETED: sync_pb2.CHANGE_KIND_DELETED,
    ChangeKind.ACCESS_LOST: sync_pb2.CHANGE_KIND_ACCESS_LOST,
}


def uploader(caller: Caller) -> Uploader:
    """Return who writes.

    Raises:
        PermissionDenied: (PERMISSION_DENIED) a service: only people's devices write files.
    """
    if caller.kind != "user":
        raise PermissionDenied("Only the devices of principals write files.")
    return Uploader(caller.principal, caller.device_id)


def requester(caller: Caller) -> str:
    """Return who reads; a service has no rights of its own and reads what everyone may."""
    return caller.requester


def sites(paths: Iterable[str]) -> set[str]:
    """Return the datasites that `paths` lie in, as far as they name any: what is malformed is refused later."""
    found = set()
    for first in {path.partition("/")[0] for path in paths}:
        try:
            found.add(normalise_principal(first))
        except InvalidInput:
            continue
    return found


def object_specs(objects: Iterable[sync_pb2.ObjectSpec]) -> list[ObjectSpec]:
    """Return the objects asked for."""
    return [ObjectSpec(spec.sha256, spec.size_bytes) for spec in objects]


def signed_records(records: Iterable[sync_pb2.SignedRecord]) -> list[SignedRecord]:
    """Return the records as received."""
    return [SignedRecord(record.record, record.content, record.signature) for record in records]


def entry_message(entry: Entry) -> sync_pb2.FileEntry:
    """Return a record with its place in the log."""
    checked = entry.checked_at
    checked_at = None if checked is None else LogPosition(checked.epoch, checked.sequence)
    return filelog.entry_message(entry.text, entry.signed, checked_at, entry.sequence)


def target_message(target: Target) -> sync_pb2.UploadTarget:
    """Return where to put one object."""
    grant = target.grant
    if grant is None:
        return sync_pb2.UploadTarget(sha256=target.spec.sha256, present=True)
    return sync_pb2.UploadTarget(
        sha256=target.spec.sha256,
        url=grant.url,
        headers=grant.headers,
        expires_unix_ms=grant.expires_at_ms,
    )


def outcome_message(outcome: Outcome) -> sync_pb2.CommitResult:
    """Return what became of one record."""
    current = None if outcome.current is None else entry_message(outcome.current)
    return sync_pb2.CommitResult(
        path=outcome.path,
        status=_STATUS[outcome.status],
        reason=outcome.reason,
        message=outcome.message,
        sequence=outcome.sequence,
        current=current,
    )


def download_message(download: Download) -> sync_pb2.DownloadTarget:
    """Return where to get one file."""
    if download.entry is None or download.grant is None:
        return sync_pb2.DownloadTarget(path=download.path, error_reason="NOT_FOUND")
    return sync_pb2.DownloadTarget(
        path=download.path,
        entry=entry_message(download.entry),
        url=download.grant.url,
        expires_unix_ms=download.grant.expires_at_ms,
    )


def change_message(change: Change) -> sync_pb2.Change:
    """Return one step of the feed; of a path that may no longer be read nothing but the path."""
    if change.kind is ChangeKind.ACCESS_LOST:
        entry = sync_pb2.FileEntry(path=change.entry.text)
    else:
        entry = entry_message(change.entry)
    return sync_pb2.Change(kind=_KIND[change.kind], entry=entry)


def cursor_message(position: LogPosition, seen_ms: int = 0) -> sync_pb2.Cursor:
    """Return a place in the log, and up to which moment what the clock takes has been told."""
    return sync_pb2.Cursor(epoch=position.epoch, sequence=position.sequence, seen_unix_ms=seen_ms)


def last_of(outcomes: Sequence[Outcome]) -> int:
    """Return the sequence of the last committed record, 0 when there is none."""
    return max((outcome.sequence for outcome in outcomes), default=0)
