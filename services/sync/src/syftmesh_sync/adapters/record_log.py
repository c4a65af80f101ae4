"""Appends records to the stream FILES."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from google.protobuf.message import Message
from mesh.sync.v1 import sync_pb2
from syftmesh_kit.filelog import subject_of
from syftmesh_kit.message import Outgoing, PublishAck

from syftmesh_sync.domain.ports import NewRecord


class LogBus(Protocol):
    """The part of `syftmesh_kit.bus.Bus` that is needed here."""

    async def publish(
        self,
        subject: str,
        payload: Message,
        *,
        message_id: str = "",
        operation_id: str = "",
        expected_last: int | None = None,
    ) -> PublishAck:
        """Append one message, once it is on disk."""
        ...

    async def publish_batch(self, batch: Sequence[Outgoing], *, operation_id: str = "") -> PublishAck:
        """Append up to 500 messages, all or none."""
        ...


class RecordLog:
    """See `domain.ports.RecordWriter`. A record's digest is its message id, so one is appended once."""

    def __init__(self, bus: LogBus) -> None:
        self._bus = bus

    async def append(self, records: Sequence[NewRecord]) -> list[int]:
        """Append all `records` or none and return their sequences."""
        if len(records) == 1:
            new = records[0]
            name = new.digest.hex()
            ack = await self._bus.publish(
                subject_of(new.path),
                _message(new),
                message_id=name,
                operation_id=name,
                expected_last=new.expected_last,
            )
            return [ack.sequence]
        batch = [Outgoing(subject_of(new.path), _message(new), new.expected_last) for new in records]
        name = hashlib.sha256(b"".join(new.digest for new in records)).hexdigest()
        ack = await self._bus.publish_batch(batch, operation_id=name)
        first = ack.sequence - len(records) + 1
        return list(range(first, ack.sequence + 1))


def _message(new: NewRecord) -> sync_pb2.FileEntry:
    signed = new.signed
    record = sync_pb2.SignedRecord(record=signed.record, content=signed.content, signature=signed.signature)
    return sync_pb2.FileEntry(path=str(new.path), record=record)
