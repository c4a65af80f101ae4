"""Records as the hub gives them, verified: who signed, for which path, and no older than what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from mesh.sync.v1 import sync_pb2
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.record import (
    ContentHeader,
    FileRecord,
    SignedRecord,
    parse_record,
    record_digest,
    verify_record,
)

from syftmesh_client.revision import RevisionMemory


class PrincipalDevices(Protocol):
    """The verified device list of a principal; `syftmesh_client.directory.PrincipalKeys` is it."""

    @property
    def root(self) -> bytes:
        """The pinned account root, 32 bytes."""
        ...

    @property
    def devices(self) -> Sequence[DevicePublic]:
        """The devices of the newest list."""
        ...


class Devices(Protocol):
    """Where verified device lists come from; `syftmesh_client.directory.DeviceDirectory` is it."""

    async def devices_of(self, principal: str, *, refresh: bool = False) -> PrincipalDevices:
        """Return the devices of `principal`; raises NotFound when it has published none."""
        ...


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record whose signature, path and revision hold.

    Attributes:
        path: Where it is.
        record: What its author signed.
        content: The content header, None for a tombstone.
        signed: The signed bytes.
        digest: The record's digest.
        device: The author's device.
        author_root: The author's pinned account root.
        sequence: The hub's place in its log; not signed.
    """

    path: MeshPath
    record: FileRecord
    content: ContentHeader | None
    signed: SignedRecord = field(repr=False)
    digest: bytes = field(repr=False)
    device: DevicePublic = field(repr=False)
    author_root: bytes = field(repr=False)
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a new record replaces: revision and digest of the newest one, and whether that is a tombstone."""

    revision: int
    digest: bytes = field(repr=False)
    deleted: bool


class RecordVerifier:
    """Verifies records.

    Args:
        devices: Verified device lists.
        memory: The newest revisions seen.
    """

    def __init__(self, devices: Devices, memory: RevisionMemory) -> None:
        self._devices = devices
        self._memory = memory

    async def verify(self, entry: sync_pb2.FileEntry, path: MeshPath) -> VerifiedRecord:
        """Return what `entry` says of `path`, once everything about it holds.

        Raises:
            IntegrityFailure: RECORD_INVALID for form, path or signature; RECORD_SIGNER_UNKNOWN when the
                signing device is not in its author's newest list; FILE_ROLLBACK, FILE_FORKED; KEY_CHANGED and
                others of the device list.
        """
        message = entry.record
        signed = SignedRecord(message.record, message.content, message.signature)
        record, _ = parse_record(signed)
        if f"{record.site}/{record.path}" != str(path) or entry.path != str(path):
            _refuse("it is the record of another path", str(path))
        keys, device = await self._signer(record)
        record, content = verify_record(signed, device)
        digest = record_digest(signed)
        self._memory.note(str(path), record.revision, digest, live=not record.deleted)
        return VerifiedRecord(path, record, content, signed, digest, device, keys.root, entry.sequence)

    async def replaced(self, entry: sync_pb2.FileEntry, path: MeshPath) -> Replaced:
        """Return what a new record of `path` has to name as its predecessor.

        A file whose signing device was removed meanwhile can be replaced, though not read.

        Raises:
            IntegrityFailure: As `verify`, but for RECORD_SIGNER_UNKNOWN.
        """
        try:
            verified = await self.verify(entry, path)
        except IntegrityFailure as error:
            if error.reason != "RECORD_SIGNER_UNKNOWN":
                raise
            message = entry.record
            signed = SignedRecord(message.record, message.content, message.signature)
            record, _ = parse_record(signed)
            return Replaced(record.revision, record_digest(signed), record.deleted)
        return Replaced(verified.record.revision, verified.digest, verified.record.deleted)

    def note(self, path: MeshPath, signed: SignedRecord) -> None:
        """Remember a record of one's own that the hub has acknowledged."""
        record, _ = parse_record(signed)
        self._memory.note(str(path), record.revision, record_digest(signed), live=not record.deleted)

    def was_live(self, path: str) -> bool:
        """Return whether the newest record seen of `path` was a file."""
        return self._memory.was_live(path)

    async def _signer(self, record: FileRecord) -> tuple[PrincipalDevices, DevicePublic]:
        for refresh in (False, True):  # a device may have joined since the list was read
            try:
                keys = await self._devices.devices_of(record.author, refresh=refresh)
            except NotFound:
                continue
            device = next((d for d in keys.devices if d.device_id == record.device_id), None)
            if device is not None:
                return keys, device
        raise IntegrityFailure(
            f"{record.site}/{record.path} is signed by a device that is not in the list of {record.author}.",
            reason="RECORD_SIGNER_UNKNOWN",
            metadata={"author": record.author, "device_id": record.device_id},
            hint="If that device was removed on purpose, have its owner write the file again.",
        )


def entry_path(entry: sync_pb2.FileEntry) -> MeshPath:
    """Return the path that the hub gives for `entry`.

    Raises:
        IntegrityFailure: (RECORD_INVALID) it is no canonical path.
    """
    try:
        path = parse_path(entry.path)
    except InvalidInput as error:
        raise IntegrityFailure("The hub gave a malformed path.", reason="RECORD_INVALID") from error
    if str(path) != entry.path:
        _refuse("its path is not canonical", str(path))
    return path


def _refuse(why: str, path: str) -> NoReturn:
    raise IntegrityFailure(
        f"The hub's record of {path} is refused: {why}.", reason="RECORD_INVALID", metadata={"path": path}
    )
