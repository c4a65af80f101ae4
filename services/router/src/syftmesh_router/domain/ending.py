"""How calls end: the first final state stands, whoever wrote it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput, PermissionDenied

from syftmesh_router.domain.envelope import MAX_BODY_BYTES, is_call_id
from syftmesh_router.domain.ports import CallRecords, Replies, Versioned
from syftmesh_router.domain.record import REPLY_STATES, CallRecord, CallState, Reply

REASON_EXPIRED = "CALL_EXPIRED"
REASON_TOO_LARGE = "REPLY_TOO_LARGE"

_RECENT: Final = 10_000

_log: Any = structlog.get_logger("syftmesh.router")

Listener = Callable[[CallRecord], None]


class Ending:
    """Writes final states by compare-and-set.

    Args:
        records: Records of calls.
        replies: Replies.
        clock: Wall time.
        listener: Told of each final record that was written here, to wake waiters at once.
    """

    def __init__(self, records: CallRecords, replies: Replies, clock: Clock, listener: Listener) -> None:
        self._records = records
        self._replies = replies
        self._clock = clock
        self._tell = listener
        self._recent: OrderedDict[str, None] = OrderedDict()

    def ended_here(self, call_id: str) -> bool:
        """Return whether the call is known to have ended here a moment ago."""
        return call_id in self._recent

    async def by_router(self, call_id: str, state: CallState, reason: str) -> CallRecord | None:
        """End a call; return the record that stands, None when there is none."""
        return await self._final(call_id, state, reason=reason)

    async def expire(self, call_id: str) -> CallRecord | None:
        """End a call whose expiry has passed; return the record that stands, None when there is none."""
        found = await self._records.get(call_id)
        if found is None or found.record.state.is_final or found.record.expires_ms > self._clock.now_ms():
            return found.record if found is not None else None
        return await self._final(call_id, CallState.EXPIRED, reason=REASON_EXPIRED)

    async def by_site(self, site: str, reply: Reply) -> CallState:
        """Take the reply of a device of `site` and return the final state that stands.

        The reply is durable, then the state is set. Repeated it gives the same answer.

        Raises:
            InvalidInput: FRAME_INVALID for a reply that is none.
            PermissionDenied: REPLY_FOREIGN when the call was made to another site.
            Unavailable: It may or may not be durable: send it again.
        """
        if not is_call_id(reply.call_id) or reply.state not in REPLY_STATES:
            raise InvalidInput(
                "The reply has no call id or a state that a site cannot give.", reason="FRAME_INVALID"
            )
        found = await self._records.get(reply.call_id)
        if found is None:
            # Records go a day after the expiry: whoever still has the reply may stop sending it.
            return CallState.EXPIRED
        if found.record.site != site:
            raise PermissionDenied("The reply is to a call to another site.", reason="REPLY_FOREIGN")
        if found.record.state.is_final:
            return found.record.state
        if len(reply.body) > MAX_BODY_BYTES:
            reply = Reply(
                reply.call_id,
                CallState.FAILED,
                failure_reason=REASON_TOO_LARGE,
                replier=reply.replier,
                replier_device=reply.replier_device,
            )
        kept = await self._replies.put_first(found.record.caller, reply)
        ended = await self._final(
            kept.call_id, kept.state, reason=kept.failure_reason, has_reply=True, first=found
        )
        return ended.state if ended is not None else CallState.EXPIRED

    async def reply_of(self, record: CallRecord) -> Reply:
        """Return the end of a call whose record is final."""
        if record.has_reply:
            found = await self._replies.get(record.caller, record.call_id)
            if found is not None:
                return found
            _log.error("call.reply_lost", call_id=record.call_id)
        return record.router_reply()

    async def _final(
        self,
        call_id: str,
        state: CallState,
        *,
        reason: str,
        has_reply: bool = False,
        first: Versioned | None = None,
    ) -> CallRecord | None:
        found = first or await self._records.get(call_id)
        while found is not None:
            if found.record.state.is_final:
                return found.record
            ended = found.record.moved(state, failure_reason=reason, has_reply=has_reply)
            written: Versioned | None = await self._records.update(found, ended)
            if written is not None:
                _log.info("call.ended", call_id=call_id, state=state.value, reason=reason)
                self._remember(call_id)
                self._tell(ended)
                return ended
            found = await self._records.get(call_id)
        return None

    def _remember(self, call_id: str) -> None:
        self._recent[call_id] = None
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
