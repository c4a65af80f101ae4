"""`mesh.sync.v1.SyncService`: decode, one use case, encode."""

# ruff: noqa: N802, ARG002 - names and arguments are those of gRPC

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NoReturn, Protocol

from mesh.sync.v1 import sync_service_pb2 as pb
from mesh.sync.v1 import sync_service_pb2_grpc as pb_grpc
from syftmesh_core.errors import Unimplemented
from syftmesh_core.path import parse_path
from syftmesh_kit.caller import current_caller
from syftmesh_kit.filelog import Change, FeedReader, FileLog, LogPosition

from syftmesh_sync import convert
from syftmesh_sync.domain.commit import Commit
from syftmesh_sync.domain.query import Query
from syftmesh_sync.domain.upload import OpenUpload


class FeedBatch(Protocol):
    """A part of a change feed; without changes it is a heartbeat."""

    @property
    def changes(self) -> Sequence[Change]:
        """In log order."""
        ...

    @property
    def position(self) -> LogPosition:
        """Where a new stream goes on behind this batch."""
        ...

    @property
    def seen_ms(self) -> int:
        """Moment up to which what the clock takes has been told."""
        ...

    @property
    def caught_up(self) -> bool:
        """Whether everything up to now has been sent."""
        ...


class ChangeFeed(Protocol):
    """Makes the feed of one stream."""

    def feed(
        self, reader: FeedReader, epoch: int, sequence: int, seen_ms: int = 0
    ) -> AsyncIterator[FeedBatch]:
        """Iterate over the batches behind the cursor, for ever.

        Raises:
            WrongState: (CURSOR_EXPIRED) the cursor cannot be continued from.
            Unavailable: The read model may not be answered from.
        """
        ...


class PolicyFreshness(Protocol):
    """Keeps answers from being older than what was revoked."""

    async def require(self, requester: str, sites: Iterable[str]) -> None:
        """Return once the newest policy of `sites` is in the model; raises Unavailable when it does not come."""
        ...


class SyncServicer(pb_grpc.SyncServiceServicer):
    """The handlers.

    Args:
        log: For the cursors of answers.
        upload: Use case.
        commit: Use case.
        query: Use case.
        watch: The change feed.
        freshness: Asked before others than the owner read.
    """

    def __init__(
        self,
        log: FileLog,
        upload: OpenUpload,
        commit: Commit,
        query: Query,
        watch: ChangeFeed,
        freshness: PolicyFreshness,
    ) -> None:
        self._log = log
        self._upload = upload
        self._commit = commit
        self._query = query
        self._watch = watch
        self._freshness = freshness

    async def OpenUpload(self, request: pb.OpenUploadRequest, context: Any) -> pb.OpenUploadResponse:
        """Give URLs for the objects of an operation."""
        caller = convert.uploader(current_caller())
        specs = convert.object_specs(request.objects)
        targets = await self._upload.run(caller, request.operation_id, request.site, specs)
        return pb.OpenUploadResponse(targets=[convert.target_message(target) for target in targets])

    async def CommitFiles(self, request: pb.CommitFilesRequest, context: Any) -> pb.CommitFilesResponse:
        """Make new versions visible."""
        caller = convert.uploader(current_caller())
        records = convert.signed_records(request.records)
        outcomes = await self._commit.run(caller, request.operation_id, records)
        cursor = convert.cursor_message(self._log.position)
        if last := convert.last_of(outcomes):
            cursor.sequence = last
        return pb.CommitFilesResponse(results=[convert.outcome_message(o) for o in outcomes], cursor=cursor)

    async def DeleteFiles(self, request: pb.DeleteFilesRequest, context: Any) -> pb.DeleteFilesResponse:
        """Commit tombstones."""
        caller = convert.uploader(current_caller())
        records = convert.signed_records(request.records)
        outcomes = await self._commit.run(caller, request.operation_id, records, only_tombstones=True)
        return pb.DeleteFilesResponse(results=[convert.outcome_message(o) for o in outcomes])

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Any
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        """Stream what the caller may read, then every change of it."""
        prefixes = tuple(str(parse_path(prefix, drop_trailing_slash=True)) for prefix in request.prefixes)
        reader = FeedReader(convert.requester(current_caller()), prefixes)
        cursor = request.cursor
        async for batch in self._watch.feed(reader, cursor.epoch, cursor.sequence, cursor.seen_unix_ms):
            yield pb.WatchChangesResponse(
                changes=[convert.change_message(change) for change in batch.changes],
                cursor=convert.cursor_message(batch.position, batch.seen_ms),
                caught_up=batch.caught_up,
            )

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        """List live files below a prefix."""
        asker = convert.requester(current_caller())
        await self._freshness.require(asker, convert.sites([request.prefix]))
        page = await self._query.page(asker, request.prefix, request.page_size, request.page_token)
        entries = [convert.entry_message(entry) for entry in page.entries]
        return pb.ListFilesResponse(entries=entries, next_page_token=page.next_token)

    async def StatFiles(self, request: pb.StatFilesRequest, context: Any) -> pb.StatFilesResponse:
        """Give the live records of paths."""
        asker = convert.requester(current_caller())
        await self._freshness.require(asker, convert.sites(request.paths))
        entries = self._query.stat(asker, request.paths)
        cursor = convert.cursor_message(self._log.position)
        return pb.StatFilesResponse(entries=[convert.entry_message(e) for e in entries], cursor=cursor)

    async def OpenDownload(self, request: pb.OpenDownloadRequest, context: Any) -> pb.OpenDownloadResponse:
        """Give URLs for the bytes of live files."""
        asker = convert.requester(current_caller())
        await self._freshness.require(asker, convert.sites(request.paths))
        found = self._query.downloads(asker, request.paths)
        return pb.OpenDownloadResponse(targets=[convert.download_message(download) for download in found])

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        """Not built yet."""
        _unimplemented("ListVersions")

    async def RestoreVersion(
        self, request: pb.RestoreVersionRequest, context: Any
    ) -> pb.RestoreVersionResponse:
        """Not built yet."""
        _unimplemented("RestoreVersion")

    async def Usage(self, request: pb.UsageRequest, context: Any) -> pb.UsageResponse:
        """Not built yet."""
        _unimplemented("Usage")


def _unimplemented(name: str) -> NoReturn:
    raise Unimplemented(f"{name} comes with complete synchronisation.", metadata={"method": name})
