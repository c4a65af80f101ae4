"""The first half of a commit: what a record says, who signed it, and whether its bytes are there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.errors import InvalidInput, LimitExceeded, NotFound, PermissionDenied
from syftmesh_core.path import MeshPath, check_creatable, parse_path
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.quote import quoted
from syftmesh_core.record import (
    ContentHeader,
    FileRecord,
    SignedRecord,
    parse_record,
    record_digest,
    verify_record,
)

from syftmesh_sync.domain.operation import Holding, Operation, Uploader
from syftmesh_sync.domain.ports import DeviceKeys, Objects, RuleMemory
from syftmesh_sync.domain.upload import MAX_OBJECT_BYTES

MAX_PLAIN_BYTES: Final = 16 * 1024 * 1024
MAX_RULES_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """A well-formed record, signed by the caller's device.

    Attributes:
        signed: The signed bytes.
        record: What they say.
        content: The content header, None for a tombstone.
        path: Where it goes.
        digest: The record's digest.
        signer_is_admin: Whether the signing device may sign rules.
        was_put: Whether the content was put under the caller's operation.
    """

    signed: SignedRecord = field(repr=False)
    record: FileRecord
    content: ContentHeader | None
    path: MeshPath
    digest: bytes = field(repr=False)
    signer_is_admin: bool
    was_put: bool

    @property
    def text(self) -> str:
        """The path as text."""
        return str(self.path)

    @property
    def size_bytes(self) -> int | None:
        """Size that limits look at: exact for plain content, as stored for sealed, None for a tombstone."""
        if self.content is None:
            return None
        return self.content.stored_size_bytes if self.content.sealed else self.content.plain_size_bytes


class Examine:
    """Makes candidates of records. Looks at nothing that another commit could change."""

    def __init__(self, devices: DeviceKeys, objects: Objects, rules: RuleMemory) -> None:
        self._devices = devices
        self._objects = objects
        self._rules = rules

    async def run(self, signed: SignedRecord, caller: Uploader, operation: Operation | None) -> Candidate:
        """Return the candidate in `signed`.

        Raises:
            IntegrityFailure: (RECORD_INVALID) form or signature do not hold.
            InvalidInput: PATH_INVALID, RPC_DIRECTORY, OBJECT_MISSING, OBJECT_INVALID, RULES_INVALID.
            PermissionDenied: AUTHOR_MISMATCH, DEVICE_UNKNOWN.
            LimitExceeded: FILE_TOO_LARGE.
            Unavailable: The key directory or the store cannot be asked.
        """
        record, content = parse_record(signed)
        if (record.author, record.device_id) != (caller.principal, caller.device_id):
            raise PermissionDenied(
                "The record names another author or device than the caller: sign with the device logged in.",
                reason="AUTHOR_MISMATCH",
                metadata={"author": quoted(record.author), "device_id": record.device_id},
            )
        path = _checked_path(record)
        device = await self._devices.device(caller.principal, caller.device_id)
        if device is None:
            raise PermissionDenied(
                f"The device {caller.device_id} is not in the newest device list of {caller.principal}: "
                "publish it first.",
                reason="DEVICE_UNKNOWN",
                metadata={"device_id": caller.device_id},
            )
        verify_record(signed, device)
        was_put = False
        if content is not None:
            _check_sizes(content)
            was_put = await self._check_object(content, path, operation)
            if path.is_policy_file:
                await self._check_policy(content, path)
        digest = record_digest(signed)
        return Candidate(signed, record, content, path, digest, device.admin, was_put)

    async def _check_object(
        self, content: ContentHeader, path: MeshPath, operation: Operation | None
    ) -> bool:
        """Check that the object is stored and return whether the operation has put it."""
        size = await self._objects.size(path.site, content.object_id)
        if size != content.stored_size_bytes:
            raise object_missing(content)
        held = operation if operation is not None and operation.site == path.site else None
        holding = held.objects.get(content.object_id) if held else None
        if held is None or holding is None:
            return False
        if holding is Holding.PROOF:
            return await self._objects.proof_size(held.operation_id, content.object_id) == size
        return True

    async def _check_policy(self, content: ContentHeader, path: MeshPath) -> None:
        """Refuse a rule file or groups file that could not be read by everybody who has to."""
        name = f"The {'groups' if path.is_groups_file else 'rule'} file {path}"
        if content.sealed or content.stored_size_bytes > MAX_RULES_BYTES:
            why = "it is sealed" if content.sealed else f"it is larger than {MAX_RULES_BYTES} bytes"
            raise InvalidInput(
                f"{name} is refused: {why}.",
                reason="RULES_INVALID",
                metadata={"path": str(path), "line": "1", "why": why},
            )
        try:
            data = await self._objects.read(path.site, content.object_id)
        except NotFound:
            raise object_missing(content) from None
        if hashlib.sha256(data).hexdigest() != content.object_id:
            raise object_missing(content)
        try:
            if path.is_groups_file:
                self._rules.remember_groups(content.object_id, parse_groups(data).resolved)
            else:
                self._rules.remember(content.object_id, parse_ruleset(data))
        except InvalidInput as error:
            line, why = error.metadata.get("line", "1"), error.metadata.get("why", "")
            raise InvalidInput(
                f"{name} is refused at line {line}: {why}. What was there before it stays active.",
                reason="RULES_INVALID",
                metadata={"path": str(path), "line": line, "why": why},
            ) from error


def object_missing(content: ContentHeader) -> InvalidInput:
    """Return the error for content that was not put; the same whether or not somebody else has stored it."""
    return InvalidInput(
        f"The object {content.object_id} of {content.stored_size_bytes} bytes was not put under this "
        "operation: put it, then commit.",
        reason="OBJECT_MISSING",
        metadata={"sha256": content.object_id},
    )


def _checked_path(record: FileRecord) -> MeshPath:
    text = f"{record.site}/{record.path}"
    path = parse_path(text)
    if str(path) != text:
        raise InvalidInput(
            f"{quoted(text)} is not in canonical form: sign the record of {path}.",
            reason="PATH_INVALID",
            metadata={"path": quoted(text), "why": "it is not in canonical form"},
        )
    if record.deleted:
        return path
    check_creatable(path)
    segments = path.segments
    in_rpc = len(segments) >= 4 and (segments[0], segments[2]) == ("app_data", "rpc")
    if in_rpc and not path.is_rules_file:
        raise InvalidInput(
            f"{path} lies in an app's rpc directory, where only rule files are kept: send a call instead.",
            reason="RPC_DIRECTORY",
            metadata={"path": text},
        )
    return path


def _check_sizes(content: ContentHeader) -> None:
    limit = MAX_OBJECT_BYTES if content.sealed else MAX_PLAIN_BYTES
    if content.stored_size_bytes > limit:
        raise LimitExceeded(
            f"A file has at most {MAX_PLAIN_BYTES} bytes, stored {limit}: this one has "
            f"{content.stored_size_bytes}.",
            reason="FILE_TOO_LARGE",
            metadata={"limit_bytes": str(limit), "size_bytes": str(content.stored_size_bytes)},
        )
    if not content.sealed and content.plain_size_bytes != content.stored_size_bytes:
        raise InvalidInput(
            "A plain file is stored as it is, and its two sizes differ.",
            reason="OBJECT_INVALID",
            metadata={"sha256": content.object_id},
        )
