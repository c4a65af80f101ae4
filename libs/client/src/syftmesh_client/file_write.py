"""Writing files: readers from verified rules, seal, upload, signed record, commit, again after a race."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mesh.sync.v1 import sync_pb2
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import Conflict, MeshError, NotFound, Unimplemented
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.path import MeshPath, check_creatable
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.reader import ReaderKind
from syftmesh_core.record import ContentHeader, FileRecord, SignedRecord, content_digest, sign_record

from syftmesh_client.file_hub import WINDOW, FileHub, error_of
from syftmesh_client.file_record import Devices, RecordVerifier, Replaced
from syftmesh_client.file_seal import StoredContent, check_size, plain_content, sealed_content
from syftmesh_client.keystore import KeyStore
from syftmesh_client.rules import SiteRules

RACES: Final = 5
"""Lost races after which a write without an expected revision gives up."""

_WINDOW_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """A file to be written, or with `data` None deleted.

    Attributes:
        path: Where.
        data: The exact bytes.
        expected_revision: Revision it must replace: 0 for no live file, None for whatever is there.
    """

    path: MeshPath
    data: bytes | None = field(repr=False)
    expected_revision: int | None = None


class FileWriter:
    """Writes and deletes.

    Args:
        hub: The sync service.
        verifier: Verifies what is replaced.
        rules: Readers of paths.
        devices: Verified device lists.
        keystore: The signing device.
        clock: Times of records.
        random: Content keys and operation ids.
    """

    def __init__(
        self,
        hub: FileHub,
        verifier: RecordVerifier,
        rules: SiteRules,
        devices: Devices,
        keystore: KeyStore,
        clock: Clock,
        random: Random,
    ) -> None:
        self._hub = hub
        self._verifier = verifier
        self._rules = rules
        self._devices = devices
        self._keystore = keystore
        self._clock = clock
        self._random = random

    async def write(self, drafts: Sequence[Draft]) -> list[FileRecord]:
        """Commit `drafts` and return their records in order; rules and groups go first, for they bind the others.

        What was committed before an error stays.

        Raises:
            MeshError: That of the first draft to fail; see `FileClient.write`.
        """
        for draft in drafts:
            check_creatable(draft.path)
            check_size(draft.path, draft.data or b"")
            if draft.path.is_rules_file and draft.data is not None:
                parse_ruleset(draft.data)
            if draft.path.is_groups_file and draft.data is not None:
                parse_groups(draft.data)
        order = sorted(range(len(drafts)), key=lambda index: not drafts[index].path.is_policy_file)
        found: dict[int, FileRecord] = {}
        for window in _windows(order, drafts):
            records = await self._commit([drafts[index] for index in window])
            found.update(zip(window, records, strict=True))
        return [found[index] for index in range(len(drafts))]

    async def delete(self, draft: Draft) -> FileRecord:
        """Commit a tombstone for `draft`, whose data is None; raises as `write`, and NotFound."""
        return (await self._commit([draft]))[0]

    async def _commit(self, drafts: Sequence[Draft]) -> list[FileRecord]:
        entries = await self._hub.stat([draft.path for draft in drafts])
        bases = {}
        for draft in drafts:
            entry = entries.get(str(draft.path))
            bases[draft.path] = await self._verifier.replaced(entry, draft.path) if entry else None
        done: dict[MeshPath, FileRecord] = {}
        waiting, failure = list(drafts), None
        for race in range(RACES):
            waiting, failure = await self._round(waiting, bases, done)
            if failure is not None or not waiting:
                break
            await asyncio.sleep(0.01 * race)
        if failure is None and waiting:
            failure = _lost(waiting[0].path)
        if failure is not None:
            raise failure
        return [done[draft.path] for draft in drafts]

    async def _round(
        self,
        drafts: Sequence[Draft],
        bases: dict[MeshPath, Replaced | None],
        done: dict[MeshPath, FileRecord],
    ) -> tuple[list[Draft], MeshError | None]:
        """Try to commit; return the drafts that lost a race and may try again, and the first failure."""
        for draft in drafts:
            _check_base(draft, bases[draft.path])
        deletes = drafts[0].data is None
        contents = [await self._stored(draft, bases[draft.path]) for draft in drafts]
        operation_id = uuid7(self._clock, self._random)
        await self._hub.upload(operation_id, drafts[0].path.site, [c for c in contents if c is not None])
        signed = [
            self._signed(draft.path, bases[draft.path], content.header if content else None)
            for draft, content in zip(drafts, contents, strict=True)
        ]
        results = await self._hub.commit(operation_id, [s for s, _ in signed], delete=deletes)
        again: list[Draft] = []
        failure: MeshError | None = None
        for draft, (record, facts), result in zip(drafts, signed, results, strict=True):
            if result.status == sync_pb2.COMMIT_STATUS_OK:
                self._verifier.note(draft.path, record)
                done[draft.path] = facts
                continue
            newer = await self._newer(draft, result)
            if newer is None:
                failure = failure or error_of(result, draft.path)
            else:
                bases[draft.path] = newer
                again.append(draft)
        return again, failure

    async def _newer(self, draft: Draft, result: sync_pb2.CommitResult) -> Replaced | None:
        """Return the verified record that won against `draft`, None when trying again is of no use."""
        stale = result.status == sync_pb2.COMMIT_STATUS_CONFLICT and result.reason == "STALE_PREVIOUS"
        if not stale or not result.HasField("current"):
            return None
        newer = await self._verifier.replaced(result.current, draft.path)
        # With an expected revision only a tombstone may be built on: the revision itself decides then.
        if draft.expected_revision is None or (draft.expected_revision == 0 and newer.deleted):
            return newer
        return None

    async def _stored(self, draft: Draft, base: Replaced | None) -> StoredContent | None:
        data, path = draft.data, draft.path
        if data is None:
            return None
        if path.is_policy_file:
            return plain_content(data)
        readers = await self._rules.readers(path)
        if readers.kind is ReaderKind.PUBLIC:
            return plain_content(data)
        if readers.kind is ReaderKind.OPEN:
            raise Unimplemented(
                f"{path} may be read by people not known by name, which needs key grants. {readers.why}",
                reason="OPEN_READERS",
                metadata={"path": str(path)},
                hint="Name the readers in the rule file, or give the directory to everyone ('*').",
            )
        devices = await self._devices_of(path.site, readers.principals)
        revision = base.revision + 1 if base else 1
        return await asyncio.to_thread(
            sealed_content,
            data,
            path,
            revision,
            readers=devices,
            signer=self._keystore.device,
            signer_root=self._keystore.own_root,
            random=self._random,
        )

    async def _devices_of(self, owner: str, principals: frozenset[str]) -> list[DevicePublic]:
        """Return the devices of the readers known now; one without any is served later, by resealing."""
        devices = list((await self._devices.devices_of(owner)).devices)
        for principal in sorted(principals - {owner}):
            try:
                keys = await self._devices.devices_of(principal)
            except NotFound:
                continue
            devices += keys.devices
        return devices

    def _signed(
        self, path: MeshPath, base: Replaced | None, content: ContentHeader | None
    ) -> tuple[SignedRecord, FileRecord]:
        device = self._keystore.device
        record = FileRecord(
            site=path.site,
            path="/".join(path.segments),
            revision=base.revision + 1 if base else 1,
            previous_digest=base.digest if base else None,
            content_digest=content_digest(content) if content else None,
            epoch=0,
            deleted=content is None,
            rules_checkpoint=None,
            author=device.principal,
            device_id=device.device_id,
            created_ms=self._clock.now_ms(),
        )
        return sign_record(record, content, device), record


def _check_base(draft: Draft, base: Replaced | None) -> None:
    """Refuse a draft whose expectation does not hold, or a deletion of nothing.

    Raises:
        NotFound: FILE_MISSING.
        Conflict: STALE_PREVIOUS.
    """
    live = base.revision if base is not None and not base.deleted else 0
    if draft.data is None and not live:
        raise NotFound(
            f"There is no file {draft.path}, or you may not know of it.",
            reason="FILE_MISSING",
            metadata={"path": str(draft.path)},
        )
    if draft.expected_revision is not None and draft.expected_revision != live:
        raise Conflict(
            f"{draft.path} is at revision {live}, not {draft.expected_revision}: read it again, then decide.",
            reason="STALE_PREVIOUS",
            metadata={"path": str(draft.path), "revision": str(live)},
        )


def _windows(order: Sequence[int], drafts: Sequence[Draft]) -> list[list[int]]:
    """Cut `order` into windows of one datasite, rules and groups apart, bounded in number and bytes."""
    windows: list[list[int]] = []
    key, size = None, 0
    for index in order:
        draft = drafts[index]
        length = len(draft.data or b"")
        own = (draft.path.site, draft.path.is_policy_file)
        if own != key or len(windows[-1]) == WINDOW or size + length > _WINDOW_BYTES:
            windows.append([])
            size = 0
        key = own
        windows[-1].append(index)
        size += length
    return windows


def _lost(path: MeshPath) -> Conflict:
    return Conflict(
        f"{path} is being written from many places: read it again, then decide.",
        reason="STALE_PREVIOUS",
        metadata={"path": str(path)},
    )
