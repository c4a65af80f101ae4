"""Appends records to the stream FILES."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from google.protobuf.message import Message
from mesh.sync.v1 import sync_pb2
from syftmesh_kit.filelog import LogPosition, entry_message, fence_subject, guard_subject, subject_of
from syftmesh_kit.message import Outgoing, PublishAck

from syftmesh_sync.domain.ports import Appended, NewRecord

CHECKED_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
"""Header of JetStream (server 2.11): of which subject a message's expectation is, if not of its own."""


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


class LogEpoch(Protocol):
    """The part of the read model that is needed here."""

    @property
    def position(self) -> LogPosition:
        """The place up to which the model has seen the log."""
        ...


class RecordLog:
    """See `domain.ports.RecordWriter`. A record's digest is its message id, so one is appended once.

    A change of rules or groups takes the datasite's policy fence along, in one atomic batch. A record that rules or
    groups had a say in is appended with a check that the fence is the one it was decided at. JetStream makes both
    checks, of the path and of the fence, where it puts messages in order; so they hold among any number of
    replicas. A message checks one subject only, hence the guard: one message more, which only carries the check.

    Args:
        bus: The bus.
        log: Whose epoch the sequences are of.
    """

    def __init__(self, bus: LogBus, log: LogEpoch) -> None:
        self._bus = bus
        self._log = log

    async def append(self, records: Sequence[NewRecord]) -> Appended:
        """Append all `records` or none."""
        batch = [Outgoing(subject_of(new.path), self._message(new), new.expected_last) for new in records]
        batch += _fences(records)
        if len(batch) == 1:
            name = records[0].digest.hex()
            ack = await self._bus.publish(
                batch[0].subject,
                batch[0].payload,
                message_id=name,
                operation_id=name,
                expected_last=batch[0].expected_last,
            )
        else:
            name = hashlib.sha256(b"".join(new.digest for new in records)).hexdigest()
            ack = await self._bus.publish_batch(batch, operation_id=name)
        first = ack.sequence - len(batch) + 1
        return Appended(list(range(first, first + len(records))), ack.sequence)

    def _message(self, new: NewRecord) -> sync_pb2.FileEntry:
        checked_at = LogPosition(self._log.position.epoch, new.checked_at)
        return entry_message(str(new.path), new.signed, checked_at)


def _fences(records: Sequence[NewRecord]) -> list[Outgoing]:
    """Return what goes in behind `records`: a new fence, or a check of the present one, or nothing."""
    site = records[0].path.site
    # Were two records decided at different fences, the older check would fail, and each be decided again.
    expected = min((new.fence for new in records if new.fence is not None), default=None)
    payload = sync_pb2.PolicyFence(site=site)
    if any(new.path.is_policy_file for new in records):
        return [Outgoing(fence_subject(site), payload, expected)]
    if expected is None:
        return []
    return [Outgoing(guard_subject(site), payload, expected, {CHECKED_SUBJECT: fence_subject(site)})]
