"""The sync service as the file client uses it: messages counted, answers checked, results as errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NoReturn, Protocol

from mesh.sync.v1 import sync_pb2
from mesh.sync.v1 import sync_service_pb2 as pb
from mesh.sync.v1 import sync_service_pb2_grpc as pb_grpc
from syftmesh_core.errors import (
    Conflict,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    PermissionDenied,
    Unavailable,
)
from syftmesh_core.parallel import in_parallel
from syftmesh_core.path import MeshPath
from syftmesh_core.record import SignedRecord

from syftmesh_client.file_seal import StoredContent
from syftmesh_client.traffic import Traffic, TrafficKind
from syftmesh_client.transfer import PARALLEL, Transfer

WINDOW: Final = 64
_URL_TRIES: Final = 3
_LIMITS: Final = frozenset({"LIMIT_EXCEEDED", "FILE_TOO_LARGE"})


class FileSession(Protocol):
    """The part of `syftmesh_client.session.HubSession` that is needed here."""

    @property
    def sync(self) -> pb_grpc.SyncServiceAsyncStub:
        """Stub of the sync service; raises MeshErrors."""
        ...


class FileHub:
    """Calls of the sync service.

    Args:
        session: The hub.
        transfer: Moves objects.
        traffic: Where messages are counted.
    """

    def __init__(self, session: FileSession, transfer: Transfer, traffic: Traffic) -> None:
        self._session = session
        self._transfer = transfer
        self._traffic = traffic

    async def stat(self, paths: Sequence[MeshPath]) -> dict[str, sync_pb2.FileEntry]:
        """Return the entries of those of `paths` that are there for the caller, by path."""
        found: dict[str, sync_pb2.FileEntry] = {}
        for start in range(0, len(paths), 500):
            request = pb.StatFilesRequest(paths=[str(path) for path in paths[start : start + 500]])
            self._sent(request)
            answer = await self._session.sync.StatFiles(request)
            self._received(answer)
            found.update((entry.path, entry) for entry in answer.entries)
        return found

    async def page(self, prefix: MeshPath, token: str) -> tuple[Sequence[sync_pb2.FileEntry], str]:
        """Return one page of the live files below `prefix`, and the next token."""
        request = pb.ListFilesRequest(prefix=str(prefix), page_token=token)
        self._sent(request)
        answer = await self._session.sync.ListFiles(request)
        self._received(answer)
        if answer.next_page_token and answer.next_page_token == token:
            _malformed()
        return answer.entries, answer.next_page_token

    async def download_target(self, path: MeshPath) -> sync_pb2.DownloadTarget | None:
        """Return where the bytes of `path` are, None when nothing is there for the caller."""
        request = pb.OpenDownloadRequest(paths=[str(path)])
        self._sent(request)
        answer = await self._session.sync.OpenDownload(request)
        self._received(answer)
        if len(answer.targets) != 1:
            _malformed()
        target = answer.targets[0]
        return target if target.HasField("entry") else None

    async def changes(
        self, prefixes: Sequence[str], cursor: sync_pb2.Cursor
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        """Iterate over the batches of one stream."""
        request = pb.WatchChangesRequest(cursor=cursor, prefixes=prefixes)
        self._sent(request)
        async for batch in self._session.sync.WatchChanges(request):
            self._received(batch)
            yield batch

    async def upload(self, operation_id: str, site: str, contents: Sequence[StoredContent]) -> None:
        """Put what of `contents` is not there yet, four at a time; URLs that ended are asked for anew."""
        unique = {content.header.object_id: content for content in contents}
        for _ in range(_URL_TRIES):
            waiting = await self._targets(operation_id, site, list(unique.values()))
            try:
                puts = [self._transfer.put(target.url, target.headers, held.data) for target, held in waiting]
                await in_parallel(puts, at_once=PARALLEL)
            except Unavailable as error:
                if error.reason != "UPLOAD_EXPIRED":
                    raise
                continue
            return
        raise Unavailable("The uploads did not end in time: try again.", reason="UPLOAD_EXPIRED")

    async def commit(
        self, operation_id: str, records: Sequence[SignedRecord], *, delete: bool = False
    ) -> list[sync_pb2.CommitResult]:
        """Commit `records` and return their results in order; asked again, it is one and the same commit."""
        messages = [
            sync_pb2.SignedRecord(record=r.record, content=r.content, signature=r.signature) for r in records
        ]
        results: list[sync_pb2.CommitResult]
        if delete:
            deletion = pb.DeleteFilesRequest(operation_id=operation_id, records=messages)
            self._sent(deletion)
            deleted = await self._session.sync.DeleteFiles(deletion)
            self._received(deleted)
            results = list(deleted.results)
        else:
            request = pb.CommitFilesRequest(operation_id=operation_id, records=messages)
            self._sent(request)
            answer = await self._session.sync.CommitFiles(request)
            self._received(answer)
            results = list(answer.results)
        if len(results) != len(records):
            _malformed()
        return results

    async def _targets(
        self, operation_id: str, site: str, contents: Sequence[StoredContent]
    ) -> list[tuple[sync_pb2.UploadTarget, StoredContent]]:
        """Return where to put those of `contents` that are not there."""
        waiting: list[tuple[sync_pb2.UploadTarget, StoredContent]] = []
        for start in range(0, len(contents), WINDOW):
            window = contents[start : start + WINDOW]
            specs = [
                sync_pb2.ObjectSpec(
                    sha256=bytes.fromhex(c.header.object_id), size_bytes=c.header.stored_size_bytes
                )
                for c in window
            ]
            request = pb.OpenUploadRequest(operation_id=operation_id, site=site, objects=specs)
            self._sent(request)
            answer = await self._session.sync.OpenUpload(request)
            self._received(answer)
            if len(answer.targets) != len(window):
                _malformed()
            pairs = zip(answer.targets, window, strict=True)
            waiting += [(target, content) for target, content in pairs if not target.present]
        return waiting

    def _sent(self, message: object) -> None:
        self._traffic.add_sent(TrafficKind.MESSAGE, message.ByteSize())  # type: ignore[attr-defined]

    def _received(self, message: object) -> None:
        self._traffic.add_received(TrafficKind.MESSAGE, message.ByteSize())  # type: ignore[attr-defined]


def error_of(result: sync_pb2.CommitResult, path: MeshPath) -> MeshError:
    """Return the result of a file that was not committed as the error it is."""
    kinds: dict[int, type[MeshError]] = {
        sync_pb2.COMMIT_STATUS_CONFLICT: Conflict,
        sync_pb2.COMMIT_STATUS_DENIED: LimitExceeded if result.reason in _LIMITS else PermissionDenied,
        sync_pb2.COMMIT_STATUS_INVALID: InvalidInput,
    }
    kind = kinds.get(result.status)
    if kind is None:
        return _malformed_error()
    message = result.message or f"{path} was not committed ({result.reason})."
    return kind(message, reason=result.reason or None, metadata={"path": str(path)})


def _malformed_error() -> IntegrityFailure:
    return IntegrityFailure(
        "The hub's answer has not the form that was agreed: its version may be another.",
        reason="ANSWER_INVALID",
    )


def _malformed() -> NoReturn:
    raise _malformed_error()
