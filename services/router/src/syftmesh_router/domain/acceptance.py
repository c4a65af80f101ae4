"""A call becomes durable: its record first, then its message."""

from __future__ import annotations

from syftmesh_core.errors import Internal

from syftmesh_router.domain.envelope import CallMessage
from syftmesh_router.domain.ports import CallLog, CallRecords
from syftmesh_router.domain.record import CallRecord, CallState


class Acceptance:
    """Makes records and stores calls; idempotent by call id.

    Args:
        records: Records of calls.
        log: Stored calls.
    """

    def __init__(self, records: CallRecords, log: CallLog) -> None:
        self._records = records
        self._log = log

    async def known(self, message: CallMessage) -> CallRecord | None:
        """Return the record of this very call, None when its id is new.

        Raises:
            Conflict: CALL_ID_REUSED.
        """
        found = await self._records.get(message.envelope.call_id)
        if found is None:
            return None
        found.record.check_same(message)
        return found.record

    async def record_of(self, message: CallMessage, *, recreate: bool = False) -> CallRecord:
        """Return the record of the call, made now when there is none.

        Args:
            message: The call.
            recreate: The message comes from the log, so a record of another call under its id is older or
                newer than it, and stands.

        Raises:
            Conflict: CALL_ID_REUSED.
        """
        for _ in range(3):
            found = await self._records.get(message.envelope.call_id)
            if found is not None:
                if not recreate:
                    found.record.check_same(message)
                return found.record
            created = await self._records.create(CallRecord.of(message))
            if created is not None:
                return created.record
        raise Internal("The record of a call was made and lost again.")

    async def append(self, message: CallMessage) -> None:
        """Store the call durably."""
        await self._log.append(message)

    async def store(self, message: CallMessage) -> CallRecord:
        """Store a call for a site that nobody delivers to now; return its record.

        Raises:
            Conflict: CALL_ID_REUSED.
            Unavailable: It may or may not be stored: ask again with the same id.
        """
        record = await self.record_of(message)
        if record.state is CallState.PENDING:
            # Also when the record was there: whoever made it may have died before the message was stored.
            await self.append(message)
        return record
