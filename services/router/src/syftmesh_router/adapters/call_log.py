"""Stored calls, dead letters and replies in JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

import nats.errors
import nats.js.errors
import structlog
from mesh.rpc.v1 import rpc_pb2 as pb
from syftmesh_core.errors import Conflict, InvalidInput, MeshError
from syftmesh_core.text import from_safe_token, safe_token
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.consumer import ConsumerSettings, Delivery
from syftmesh_kit.fault import bus_error
from syftmesh_kit.message import decode_payload

from syftmesh_router import convert
from syftmesh_router.domain.envelope import CallMessage
from syftmesh_router.domain.ports import StoredCall
from syftmesh_router.domain.record import Reply

_ACK_WAIT_S: Final = 30.0
_RECONNECT_S: Final = 60.0
_SETTINGS: Final = ConsumerSettings(ack_wait_s=_ACK_WAIT_S, batch=64)
_ALREADY_DELETED: Final = 10057
"""JSStreamMsgDeleteFailedF: what the server says of a message that is not there."""

_log: Any = structlog.get_logger("syftmesh.router")


class JetStreamCallLog:
    """`ports.CallLog` on the streams CALLS and DEAD.

    A site has one durable pull consumer. It wakes the holder and keeps the account of what is acknowledged;
    what comes next of a sender is asked of the stream itself, because the consumer gives a message that comes
    again behind its successors.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._unsettled: dict[str, dict[int, Delivery]] = {}

    async def append(self, message: CallMessage) -> None:
        """Store the call durably."""
        call = message.envelope
        await self._bus.publish(
            subject.calls(call.site, call.sender), convert.message_of(message), message_id=call.call_id
        )

    async def next(self, site: str, sender: str, after: int) -> StoredCall | None:
        """Return the oldest stored call of `sender` to `site` behind the place `after`."""
        wanted = subject.calls(site, sender)
        while True:
            try:
                found = await self._bus.jetstream.get_msg(
                    subject.CALLS, seq=after + 1, subject=wanted, next=True
                )
            except nats.js.errors.NotFoundError:
                return None
            except (nats.errors.Error, TimeoutError) as error:
                raise bus_error(error, wanted) from error
            after = found.seq or 0
            try:
                message = decode_payload(dict(found.headers or {}), found.data or b"", pb.Message)
                return StoredCall(convert.call_of(message), after)
            except InvalidInput as error:
                _log.error("call.stored_malformed", site=site, sequence=after, reason=error.reason)
                await self._delete(after)

    async def remove(self, site: str, stored: StoredCall) -> None:
        """Acknowledge and forget a call that is settled."""
        # The message goes first: were it acknowledged and left, it would keep its sender off the direct path.
        await self._delete(stored.sequence)
        delivery = self._unsettled.get(site, {}).pop(stored.sequence, None)
        if delivery is not None:
            await delivery.ack()

    async def bury(self, message: CallMessage) -> None:
        """Write a call that cannot be delivered to the dead letters, durably."""
        call = message.envelope
        await self._bus.publish(
            subject.dead(call.site, call.call_id), convert.message_of(message), message_id=f"{call.call_id}/d"
        )

    async def arrivals(self, site: str) -> AsyncGenerator[str, None]:
        """Iterate over the senders of calls to `site`, stored and to come."""
        durable = f"site_{safe_token(site)}"
        unsettled = self._unsettled.setdefault(site, {})
        keeping = asyncio.create_task(self._keep_unsettled(unsettled))
        try:
            # What a holder that died had out comes by the consumer only when its acknowledgement is overdue.
            for sender in await self._senders(site):
                yield sender
            async for delivery in self._bus.pull_consumer(
                subject.CALLS, durable, subjects=(subject.calls_to(site),), settings=_SETTINGS
            ):
                unsettled[delivery.message.sequence] = delivery
                sender = _sender_of(delivery.message.subject)
                if sender:
                    yield sender
        finally:
            keeping.cancel()

    async def _senders(self, site: str) -> list[str]:
        """Return who has stored calls to `site` now."""
        await self._bus.wait_connected(_RECONNECT_S)
        senders = map(_sender_of, await self._bus.subjects(subject.CALLS, subject.calls_to(site)))
        return sorted(sender for sender in senders if sender)

    async def let_go(self, site: str) -> None:
        """Give unsettled deliveries back."""
        for delivery in self._unsettled.pop(site, {}).values():
            await delivery.nak()

    async def _keep_unsettled(self, unsettled: dict[int, Delivery]) -> None:
        while True:
            await asyncio.sleep(_ACK_WAIT_S / 3)
            for delivery in list(unsettled.values()):
                await delivery.in_progress()

    async def _delete(self, sequence: int) -> None:
        try:
            await self._bus.jetstream.delete_msg(subject.CALLS, sequence)
        except nats.js.errors.NotFoundError:
            return
        except nats.js.errors.APIError as error:
            if error.err_code == _ALREADY_DELETED:
                return
            raise bus_error(error, subject.CALLS) from error
        except (nats.errors.Error, TimeoutError) as error:
            raise bus_error(error, subject.CALLS) from error


class JetStreamReplies:
    """`ports.Replies` on the stream REPLIES."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put_first(self, caller: str, reply: Reply) -> Reply:
        """Store `reply` durably unless there is one already; return the one that stands."""
        with suppress(Conflict):
            ack = await self._bus.publish(
                subject.replies(caller, reply.call_id),
                convert.reply_message(reply),
                message_id=f"{reply.call_id}/r",
                expected_last=0,
            )
            if not ack.duplicate:
                return reply
        # A repeated message id counts as success whatever it carries, so what stands is read back.
        kept = await self.get(caller, reply.call_id)
        return kept or reply

    async def get(self, caller: str, call_id: str) -> Reply | None:
        """Return the stored reply."""
        found = await self._bus.last_message(subject.replies(caller, call_id), stream=subject.REPLIES)
        if found is None:
            return None
        message = found.decode(pb.Reply)
        return convert.reply_of(message, replier=message.replier, replier_device=message.replier_device)


def _sender_of(name: str) -> str:
    try:
        return from_safe_token(name.rsplit(".", 1)[-1])
    except (ValueError, MeshError):
        _log.error("call.subject_malformed", subject=name)
        return ""
