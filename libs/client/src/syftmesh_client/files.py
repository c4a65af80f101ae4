"""Files of datasites for one device: sealed, signed and verified here; the hub is trusted with nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import httpx
import structlog
from mesh.sync.v1 import sync_pb2
from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound, Unavailable
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.record import FileRecord, SignedRecord, parse_record

from syftmesh_client.file_hub import FileHub, FileSession
from syftmesh_client.file_record import Devices, RecordVerifier, VerifiedRecord, entry_path
from syftmesh_client.file_seal import opened
from syftmesh_client.file_view import (
    Change,
    ChangeKind,
    Cursor,
    FileContent,
    FileEntryView,
    view_of,
    view_of_parts,
)
from syftmesh_client.file_write import Draft, FileWriter
from syftmesh_client.keystore import KeyStore
from syftmesh_client.revision import RevisionMemory
from syftmesh_client.rules import SiteRules
from syftmesh_client.traffic import Traffic
from syftmesh_client.transfer import Transfer

__all__ = ["Change", "ChangeKind", "Cursor", "FileClient", "FileContent", "FileEntryView"]

_KINDS: Final = {
    sync_pb2.CHANGE_KIND_UPDATED: ChangeKind.UPDATED,
    sync_pb2.CHANGE_KIND_DELETED: ChangeKind.DELETED,
    sync_pb2.CHANGE_KIND_ACCESS_LOST: ChangeKind.ACCESS_LOST,
}
_URL_TRIES: Final = 3
_LONGEST_PAUSE_S: Final = 5.0

_log: Any = structlog.get_logger("syftmesh.files")


class FileClient:
    """Reads, writes, lists and watches files.

    Every method that names a path raises InvalidInput (PATH_INVALID) for a malformed one, Unavailable while
    hub or store are away, and IntegrityFailure for whatever does not verify.

    Args:
        session: The hub.
        directory: Verified device lists.
        keystore: The own device.
        clock: Times of records, moment of decisions.
        random: Content keys and ids.
        http: For the object store: without credentials, and closed by its owner.
        traffic: Where bytes are counted; a new one when None.
        memory: The newest revisions seen; for this process only when None.
    """

    def __init__(
        self,
        session: FileSession,
        directory: Devices,
        keystore: KeyStore,
        clock: Clock,
        random: Random,
        http: httpx.AsyncClient,
        *,
        traffic: Traffic | None = None,
        memory: RevisionMemory | None = None,
    ) -> None:
        self.traffic = traffic or Traffic()
        self._keystore = keystore
        self._clock = clock
        self._transfer = Transfer(http, self.traffic)
        self._hub = FileHub(session, self._transfer, self.traffic)
        self._verifier = RecordVerifier(directory, memory or RevisionMemory())
        principal = keystore.device.principal
        self._rules = SiteRules(session.sync, self._verifier, self._transfer, clock, self.traffic, principal)
        self._writer = FileWriter(self._hub, self._verifier, self._rules, directory, keystore, clock, random)

    @property
    def rules(self) -> SiteRules:
        """Verified rules and readers of paths."""
        return self._rules

    async def read(self, path: str) -> FileContent:
        """Return the file at `path`, verified from its author's signature to its last byte.

        Raises:
            NotFound: (FILE_MISSING) there is none that this principal may read.
            IntegrityFailure: RECORD_INVALID, RECORD_SIGNER_UNKNOWN, FILE_ROLLBACK, FILE_FORKED,
                OBJECT_DAMAGED, OBJECT_LOST, SEAL_INVALID, FILE_CORRUPT; AUTHOR_NOT_ALLOWED when the signed
                rules that may be read here do not let the author write there; KEY_CHANGED.
            PermissionDenied: (NO_KEY_FOR_DEVICE) it was sealed before this device was a reader.
        """
        where = parse_path(path)
        for _ in range(_URL_TRIES):
            target = await self._hub.download_target(where)
            if target is None:
                raise _missing(where)
            verified = await self._verifier.verify(target.entry, where)
            content = verified.content
            if content is None:
                raise _missing(where)
            await self._check_author(verified)
            try:
                blob = await self._transfer.get(
                    target.url, object_id=content.object_id, size_bytes=content.stored_size_bytes
                )
            except Unavailable as error:
                if error.reason != "DOWNLOAD_EXPIRED":
                    raise
                continue
            device, now_ms = self._keystore.device, self._clock.now_ms()
            data = await asyncio.to_thread(opened, blob, verified, device=device, now_ms=now_ms)
            return FileContent(str(where), data, verified.record, content, verified.record.author)
        raise Unavailable("The download did not begin in time: try again.", reason="DOWNLOAD_EXPIRED")

    async def write(self, path: str, data: bytes, *, expected_revision: int | None = None) -> FileRecord:
        """Write `data` to `path` and return the record, durable at the hub.

        It is sealed for the devices of the owner and of the readers that the signed rules name now; where
        everyone may read, and for rule files and groups, it goes up plain.

        Args:
            path: Where.
            data: At most 16 MiB.
            expected_revision: Revision it must replace, 0 for a path without a live file; None replaces
                whatever is there, also after lost races.

        Raises:
            Conflict: STALE_PREVIOUS, PATH_COLLISION.
            PermissionDenied: PERMISSION_DENIED, ADMIN_DEVICE_REQUIRED (rules or groups).
            LimitExceeded: FILE_TOO_LARGE, LIMIT_EXCEEDED, TOO_MANY_READERS.
            InvalidInput: RULES_INVALID with line, RPC_DIRECTORY and what else the hub refuses.
            Unimplemented: (OPEN_READERS) the rules let people read who are not named.
            IntegrityFailure: RULES_UNTRUSTED, RULES_WITHHELD, KEY_CHANGED: nothing was sent.
        """
        return (await self._writer.write([Draft(parse_path(path), data, expected_revision)]))[0]

    async def write_many(self, files: Mapping[str, bytes]) -> list[FileRecord]:
        """Write many files and return their records in the order of `files`; rules and groups go first.

        Each is atomic; what was committed before an error stays. Raises as `write`.
        """
        drafts = [Draft(parse_path(path), data) for path, data in files.items()]
        if len({draft.path for draft in drafts}) != len(drafts):
            raise InvalidInput("A path is written twice.", reason="PATH_INVALID")
        return await self._writer.write(drafts)

    async def delete(self, path: str, *, expected_revision: int | None = None) -> FileRecord:
        """Delete the file at `path` by a signed tombstone and return it.

        Raises:
            NotFound: (FILE_MISSING) there is none.
            MeshError: As `write`.
        """
        return await self._writer.delete(Draft(parse_path(path), None, expected_revision))

    async def reseal(self, path: str) -> FileRecord:
        """Write the file at `path` again with the same content, for the devices that may read it now.

        Raises:
            MeshError: As `read` and `write`; Conflict when it was changed in between.
        """
        found = await self.read(path)
        return await self.write(path, found.data, expected_revision=found.record.revision)

    async def stat(self, path: str) -> FileEntryView | None:
        """Return what the verified record of `path` says, None when nothing is there for this principal."""
        where = parse_path(path)
        entry = (await self._hub.stat([where])).get(str(where))
        if entry is None:
            return None
        verified = await self._verifier.verify(entry, where)
        return None if verified.record.deleted else view_of(verified)

    async def list(self, prefix: str) -> list[FileEntryView]:
        """Return the live files below `prefix` that this principal may read, in path order.

        A record that does not verify is listed with the reason in `FileEntryView.unverified`: one of them
        must not hide the others.
        """
        directory = parse_path(prefix, drop_trailing_slash=True)
        views: list[FileEntryView] = []
        token = ""
        while True:
            entries, token = await self._hub.page(directory, token)
            for entry in entries:
                view = await self._view(entry)
                if view is not None and view.path.startswith(f"{directory}/"):
                    views.append(view)
            if not token:
                return views

    async def watch(
        self, prefixes: Sequence[str] = (), cursor: Cursor | None = None
    ) -> AsyncIterator[Change]:
        """Iterate over what this principal may read below `prefixes`, then over every change, for ever.

        Connects again by itself and goes on where it was. A deletion is told on a verified tombstone only.

        Args:
            prefixes: Datasites or directories; empty for all.
            cursor: Where to go on; None for everything live first.

        Raises:
            WrongState: (CURSOR_EXPIRED) list once, then watch without a cursor.
        """
        wanted = [str(parse_path(prefix, drop_trailing_slash=True)) for prefix in prefixes]
        at, pause_s = cursor or Cursor(0, 0), 0.1
        while True:
            try:
                place = sync_pb2.Cursor(epoch=at.epoch, sequence=at.sequence, seen_unix_ms=at.seen_ms)
                async for batch in self._hub.changes(wanted, place):
                    pause_s, before = 0.1, at
                    at = Cursor(batch.cursor.epoch, batch.cursor.sequence, batch.cursor.seen_unix_ms)
                    for change in batch.changes:
                        # Within a batch the cursor stays in front of it: repeating does no harm, a gap does.
                        told = await self._change(change, before)
                        if told is not None:
                            yield told
                    if batch.caught_up:
                        yield Change(ChangeKind.CAUGHT_UP, "", None, at)
            except Unavailable as error:
                _log.info("files.watch_interrupted", reason=error.reason)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _change(self, change: sync_pb2.Change, cursor: Cursor) -> Change | None:
        kind = _KINDS.get(change.kind)
        if kind is None:
            return None
        path = entry_path(change.entry)
        if kind is ChangeKind.ACCESS_LOST:
            return Change(kind, str(path), None, cursor)
        if kind is ChangeKind.UPDATED:
            view = await self._view(change.entry)
            return None if view is None else Change(kind, str(path), view, cursor)
        try:
            verified = await self._verifier.verify(change.entry, path)
        except IntegrityFailure as error:
            _log.warning("files.tombstone_refused", reason=error.reason)
            return None
        return Change(kind, str(path), None, cursor) if verified.record.deleted else None

    async def _view(self, entry: sync_pb2.FileEntry) -> FileEntryView | None:
        """Return the view of `entry`, marked when it does not verify; None for a tombstone and for junk."""
        try:
            path = entry_path(entry)
            message = entry.record
            record, content = parse_record(SignedRecord(message.record, message.content, message.signature))
        except IntegrityFailure as error:
            _log.warning("files.record_refused", reason=error.reason)
            return None
        if record.deleted:
            return None
        try:
            return view_of(await self._verifier.verify(entry, path))
        except IntegrityFailure as error:
            return view_of_parts(str(path), record, content, unverified=error.reason)

    async def _check_author(self, verified: VerifiedRecord) -> None:
        """Check that the author may write where the file is, by the signed rules that may be read here."""
        author, path = verified.record.author, verified.path
        if path.is_policy_file:
            allowed = author == path.site and verified.device.admin
        elif author in (path.site, self._keystore.device.principal):
            allowed = True
        else:
            allowed = await self._rules.may_write(path, author)
        if not allowed:
            raise IntegrityFailure(
                f"{path} was written by {author}, whom the signed rules do not let write there.",
                reason="AUTHOR_NOT_ALLOWED",
                metadata={"path": str(path), "author": author},
                hint="If a group lets the author write there, the owner has to let you read syft.groups.yaml.",
            )


def _missing(path: MeshPath) -> NotFound:
    return NotFound(
        f"There is no file {path}, or you may not read it.",
        reason="FILE_MISSING",
        metadata={"path": str(path)},
    )
