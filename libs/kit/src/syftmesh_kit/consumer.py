"""Consumers of streams as async iterators: ordered (read models) and durable pull (acknowledged work)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import api
from syftmesh_core.errors import Unavailable

from syftmesh_kit.message import STATUS_HEADER, StreamMessage

if TYPE_CHECKING:
    from syftmesh_kit.bus import Bus

_HEARTBEAT_S: Final = 2.0
_MISSED_HEARTBEATS: Final = 3
_LOOK_S: Final = 1.0
"""How soon a consumer that nothing comes to notices that the connection was made anew, and it is gone with the old."""
_RETRY_S: Final = 0.25
_FETCH_S: Final = 5.0

_log: Any = structlog.get_logger("syftmesh.consumer")


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """How a durable consumer delivers.

    Attributes:
        ack_wait_s: Seconds without acknowledgement after which a message is delivered again.
        max_deliver: Deliveries of one message at most; -1 without end. The caller records the last one as
        dead:
            the server only stops, and says so to nobody who asks.
        max_ack_pending: Deliveries that may be out at once.
        batch: Messages asked for at once.
        newest_only: Start with the newest message of each subject.
    """

    ack_wait_s: float = 30.0
    max_deliver: int = -1
    max_ack_pending: int = 1000
    batch: int = 64
    newest_only: bool = False


class Delivery:
    """One delivery of a stored message; settle it exactly once."""

    __slots__ = ("_raw", "message")

    def __init__(self, raw: Msg, message: StreamMessage) -> None:
        self._raw = raw
        self.message = message

    async def ack(self) -> None:
        """Tell the server that the message is done with; waits until it knows.

        JetStream does not sync the state of consumers with each acknowledgement: after a crash of the server a
        settled message may come again. Consumers are idempotent.

        Raises:
            Unavailable: No confirmation; the message comes again (BUS_TIMEOUT).
        """
        try:
            await self._raw.ack_sync(timeout=5.0)
        except nats.errors.MsgAlreadyAckdError:
            return
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("The acknowledgement was not confirmed.", reason="BUS_TIMEOUT") from error

    async def nak(self, delay_s: float = 0.0) -> None:
        """Ask for the message again after `delay_s` seconds; it comes behind its successors."""
        with suppress(nats.errors.Error):
            await self._raw.nak(delay=delay_s or None)

    async def term(self) -> None:
        """End the delivery of this message for good."""
        with suppress(nats.errors.Error):
            await self._raw.term()

    async def in_progress(self) -> None:
        """Ask for more time: `ack_wait_s` starts anew."""
        with suppress(nats.errors.Error):
            await self._raw.in_progress()


def stream_message(raw: Msg) -> tuple[StreamMessage, int]:
    """Return a delivered message and its sequence within the consumer."""
    meta = raw.metadata
    message = StreamMessage(
        stream=meta.stream,
        subject=raw.subject,
        sequence=meta.sequence.stream,
        time_ms=int(meta.timestamp.timestamp() * 1000),
        headers=dict(raw.headers or {}),
        payload=raw.data,
        pending=meta.num_pending,
        deliveries=meta.num_delivered,
    )
    return message, meta.sequence.consumer


async def ordered_messages(
    bus: Bus, stream: str, from_sequence: int, subjects: tuple[str, ...], *, newest_only: bool
) -> AsyncGenerator[StreamMessage, None]:
    """See `Bus.ordered_consumer`.

    The consumer is ephemeral and kept in memory: after a gap, silence or a reconnect a new one starts
    behind the last sequence that was given out.
    """
    last = 0
    while True:
        config = _ordered_config(from_sequence, last, subjects, newest_only=newest_only)
        try:
            async with aclosing(_one_session(bus, stream, config)) as session:
                async for message in session:
                    last = message.sequence
                    yield message
        except (nats.errors.Error, TimeoutError, Unavailable) as error:
            if _ends(bus):
                return
            _log.debug("consumer.restarted", stream=stream, after=last, kind=type(error).__name__)
            await asyncio.sleep(_RETRY_S)


def _ends(bus: Bus) -> bool:
    """Return whether the bus was closed for good, so that the iteration ends.

    nats-py turns the cancellation of a waiting task into ConnectionClosedError when the connection is closed in the
    same moment; the task would then run on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return bus.is_closed


def _ordered_config(
    from_sequence: int, last: int, subjects: tuple[str, ...], *, newest_only: bool
) -> api.ConsumerConfig:
    config = api.ConsumerConfig(
        ack_policy=api.AckPolicy.NONE,
        max_deliver=1,
        flow_control=True,
        idle_heartbeat=_HEARTBEAT_S,
        inactive_threshold=30.0,
        mem_storage=True,
        num_replicas=1,
        filter_subjects=list(subjects) or None,
    )
    if newest_only and not last:
        config.deliver_policy = api.DeliverPolicy.LAST_PER_SUBJECT
        if not subjects:
            config.filter_subjects = [">"]
    else:
        config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
        config.opt_start_seq = max(last + 1, from_sequence, 1)
    return config


async def _one_session(
    bus: Bus, stream: str, config: api.ConsumerConfig
) -> AsyncGenerator[StreamMessage, None]:
    """Yield until something was missed, then return; a new session goes on behind it."""
    await bus.wait_connected(60.0)
    generation = bus.generation
    inbox = bus.client.new_inbox()
    subscription = await bus.client.subscribe(
        inbox, pending_msgs_limit=65_536, pending_bytes_limit=256 * 2**20
    )
    try:
        config.deliver_subject = inbox
        await bus.jetstream.add_consumer(stream, config)
        expected, silent_s = 1, 0.0
        while bus.generation == generation:
            try:
                raw = await subscription.next_msg(timeout=_LOOK_S)
            except nats.errors.TimeoutError:
                silent_s += _LOOK_S
                if silent_s >= _HEARTBEAT_S * _MISSED_HEARTBEATS:
                    return
                continue
            silent_s = 0.0
            if raw.headers and raw.headers.get(STATUS_HEADER):
                if not await _control(bus, raw, expected):
                    return
                continue
            message, number = stream_message(raw)
            if number != expected:
                return
            expected += 1
            yield message
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


async def _control(bus: Bus, raw: Msg, expected: int) -> bool:
    """Answer flow control and compare a heartbeat; False when the consumer is gone or ahead of us."""
    headers = raw.headers or {}
    if headers.get(STATUS_HEADER) != api.StatusCode.CONTROL_MESSAGE.value:
        return False
    if raw.reply:
        await bus.client.publish(raw.reply)
        return True
    stalled = headers.get(api.Header.CONSUMER_STALLED.value)
    if stalled:
        await bus.client.publish(stalled)
    delivered = headers.get(api.Header.LAST_CONSUMER.value)
    return delivered is None or int(delivered) < expected


async def pulled_messages(
    bus: Bus, stream: str, durable: str, subjects: tuple[str, ...], settings: ConsumerSettings
) -> AsyncGenerator[Delivery, None]:
    """See `Bus.pull_consumer`."""
    while True:
        try:
            await bus.wait_connected(60.0)
            generation = bus.generation
            subscription = await _bind(bus, stream, durable, subjects, settings)
            try:
                while bus.generation == generation:
                    try:
                        batch = await subscription.fetch(settings.batch, timeout=_FETCH_S)
                    except nats.errors.TimeoutError:
                        continue
                    for raw in batch:
                        yield Delivery(raw, stream_message(raw)[0])
            finally:
                with suppress(nats.errors.Error):
                    await subscription.unsubscribe()
        except (nats.errors.Error, TimeoutError, Unavailable) as error:
            if _ends(bus):
                return
            _log.debug("consumer.restarted", stream=stream, durable=durable, kind=type(error).__name__)
            await asyncio.sleep(_RETRY_S)


async def _bind(
    bus: Bus, stream: str, durable: str, subjects: tuple[str, ...], settings: ConsumerSettings
) -> Any:
    config = api.ConsumerConfig(
        name=durable,
        durable_name=durable,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait_s,
        max_deliver=settings.max_deliver,
        max_ack_pending=settings.max_ack_pending,
        filter_subjects=list(subjects) or None,
        deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT if settings.newest_only else api.DeliverPolicy.ALL,
    )
    if settings.newest_only and not subjects:
        config.filter_subjects = [">"]
    await bus.jetstream.add_consumer(stream, config)
    return await bus.jetstream.pull_subscribe_bind(durable=durable, stream=stream)
