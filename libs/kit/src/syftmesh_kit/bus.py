"""The bus: `connection.BusConnection` plus JetStream; publishing is idempotent, errors are typed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import nats.errors
import nats.js.errors
from google.protobuf.message import Message
from nats.js.api import Header
from syftmesh_core.errors import Conflict, InvalidInput, Unavailable

from syftmesh_kit.batch import send_batch
from syftmesh_kit.connection import BusConnection
from syftmesh_kit.consumer import ConsumerSettings, Delivery, ordered_messages, pulled_messages
from syftmesh_kit.fault import STREAM_NAME_IN_USE, bus_error
from syftmesh_kit.kv import KvBucket
from syftmesh_kit.message import (
    MESSAGE_ID_HEADER,
    OPERATION_HEADER,
    Outgoing,
    PublishAck,
    StreamMessage,
    type_headers,
)
from syftmesh_kit.stream import EPOCH_KEY, KvSpec, StreamSpec, StreamState
from syftmesh_kit.trace import current_traceparent


class Bus(BusConnection):
    """One NATS connection with JetStream. Make it with `Bus.connect`, end it with `close`.

    Attributes:
        replicas: Copies that streams and buckets made over this connection have at least, for a cluster of servers.
    """

    replicas: int = 1

    async def publish(
        self,
        subject: str,
        payload: Message,
        *,
        message_id: str = "",
        operation_id: str = "",
        expected_last: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> PublishAck:
        """Append `payload` to the stream that captures `subject` and return once it is on disk.

        Args:
            subject: Where to.
            payload: The one protobuf message.
            message_id: ``Nats-Msg-Id``: a repetition within the stream's window is a duplicate, not a
                second message.
            operation_id: Id of the caller's operation. With `expected_last`, a conflict whose winner
                carries the same id is this publish's own earlier try, hence success.
            expected_last: Sequence that the subject's newest message must have; 0: none yet.
            headers: Further headers.
            timeout_s: Time for all tries. With either id it is tried again while the bus is away.

        Raises:
            Conflict: Somebody else wrote the subject (WRONG_LAST_SEQUENCE, metadata ``expected`` and
            ``actual``):
                read `last_message` again, then decide.
            LimitExceeded: Too large (MESSAGE_TOO_LARGE) or the stream is full (STREAM_FULL).
            NotFound: No stream captures the subject (STREAM_MISSING).
            Unavailable: No acknowledgement; it may or may not be stored (BUS_TIMEOUT, BUS_UNREACHABLE).
        """
        all_headers = {**(headers or {}), **type_headers(payload, current_traceparent())}
        if message_id:
            all_headers[MESSAGE_ID_HEADER] = message_id
        if operation_id:
            all_headers[OPERATION_HEADER] = operation_id
        if expected_last is not None:
            all_headers[Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value] = str(expected_last)
        raw = payload.SerializeToString()
        repeatable = bool(message_id) or (bool(operation_id) and expected_last is not None)

        async def once(left_s: float) -> PublishAck:
            ack = await self._js.publish(subject, raw, timeout=left_s, headers=dict(all_headers))
            return PublishAck(ack.stream, ack.seq, bool(ack.duplicate))

        try:
            return await self._attempts(once, subject, timeout_s or self._timeout_s, repeatable=repeatable)
        except Conflict:
            found = await self.last_message(subject) if operation_id else None
            if found is not None and found.operation_id == operation_id:
                return PublishAck(found.stream, found.sequence, duplicate=True)
            raise

    async def publish_batch(
        self, batch: Sequence[Outgoing], *, operation_id: str = "", timeout_s: float | None = None
    ) -> PublishAck:
        """Append up to 500 messages of one stream atomically: all, in order, or none (NATS ADR-50).

        The stream needs `StreamSpec.atomic_batches`. Each message may carry its own `expected_last`.

        Raises:
            Conflict: One expectation did not hold, nothing was stored (WRONG_LAST_SEQUENCE). Split, or read
                again; a batch of the same `operation_id` found as the newest on its first subject counts as
                success.
            InvalidInput: Empty, or more than 500 messages (BATCH_SIZE).
            LimitExceeded: As `publish`.
            Unavailable: As `publish`; a batch that was not committed vanishes by itself.
        """
        if not 0 < len(batch) <= 500:
            raise InvalidInput(
                f"A batch has {len(batch)} messages, allowed are 1 to 500.",
                reason="BATCH_SIZE",
                metadata={"count": str(len(batch))},
            )
        extra = {OPERATION_HEADER: operation_id} if operation_id else {}

        async def once(left_s: float) -> PublishAck:
            return await send_batch(self._client, batch, extra, current_traceparent(), left_s)

        try:
            return await self._attempts(
                once, batch[0].subject, timeout_s or self._timeout_s, repeatable=bool(operation_id)
            )
        except Conflict:
            found = await self.last_message(batch[0].subject) if operation_id else None
            if found is not None and found.operation_id == operation_id:
                return PublishAck(found.stream, found.sequence + len(batch) - 1, duplicate=True)
            raise

    async def ensure_stream(
        self, spec: StreamSpec | KvSpec, *, first_sequence: int = 0, epoch: int = 1
    ) -> StreamState:
        """Create the stream or update its configuration; an existing one keeps epoch and messages."""
        spec = replace(spec, replicas=max(spec.replicas, self.replicas))
        name = spec.stream if isinstance(spec, KvSpec) else spec.name
        try:
            try:
                info = await self._js.stream_info(name)
            except nats.js.errors.NotFoundError:
                return _state(
                    await self._js.add_stream(spec.config(epoch=epoch, first_sequence=first_sequence))
                )
            wanted = spec.config(epoch=_state(info).epoch)
            wanted.first_seq = info.config.first_seq
            return _state(await self._js.update_stream(wanted))
        except nats.js.errors.APIError as error:
            if (
                error.err_code == STREAM_NAME_IN_USE
            ):  # a replica was quicker, with another version of the spec
                return await self.stream_state(name)
            raise bus_error(error, name) from error
        except (nats.errors.Error, TimeoutError) as error:
            raise bus_error(error, name) from error

    async def ensure_kv(self, spec: KvSpec) -> KvBucket:
        """Create the bucket when it is missing and return it."""
        await self.ensure_stream(spec)
        return self.kv(spec.bucket)

    def kv(self, bucket: str) -> KvBucket:
        """Return a bucket that another service declares; nothing is asked of the server."""
        return KvBucket(self, bucket)

    async def stream_state(self, stream: str) -> StreamState:
        """Return what the stream holds.

        Raises:
            NotFound: There is no such stream (STREAM_MISSING).
            Unavailable: The bus does not answer.
        """
        try:
            return _state(await self._js.stream_info(stream))
        except (nats.errors.Error, TimeoutError) as error:
            raise bus_error(error, stream) from error

    async def last_message(self, subject: str, *, stream: str = "") -> StreamMessage | None:
        """Return the newest message on `subject`, or None; linearisable (asked of the stream's leader)."""
        try:
            found_stream = stream or await self._js.find_stream_name_by_subject(subject)
            found = await self._js.get_msg(found_stream, subject=subject)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise bus_error(error, subject) from error
        return _raw_message(found_stream, found)

    async def message(self, stream: str, sequence: int) -> StreamMessage | None:
        """Return the message with `sequence`, or None when it is not (or no longer) there."""
        try:
            found = await self._js.get_msg(stream, seq=sequence)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise bus_error(error, stream) from error
        return _raw_message(stream, found)

    def ordered_consumer(
        self, stream: str, *, from_sequence: int = 1, subjects: Sequence[str] = (), newest_only: bool = False
    ) -> AsyncGenerator[StreamMessage, None]:
        """Iterate over a stream in order, for ever: what is stored, then what comes (for read models).

        Wrap it in `contextlib.aclosing` when leaving early; it ends when the bus is closed. Survives lost
        messages, restarts of the server and reconnects; never skips or repeats a sequence.

        Args:
            stream: Name of the stream; it is waited for when it is missing.
            from_sequence: First sequence wanted.
            subjects: Filters; empty is all.
            newest_only: Start with the newest message of each subject instead of all (then `from_sequence` is
                ignored); afterwards everything.
        """
        return ordered_messages(self, stream, from_sequence, tuple(subjects), newest_only=newest_only)

    def pull_consumer(
        self,
        stream: str,
        durable: str,
        *,
        subjects: Sequence[str] = (),
        settings: ConsumerSettings | None = None,
    ) -> AsyncGenerator[Delivery, None]:
        """Iterate over the deliveries of a durable consumer with explicit acknowledgements, for ever.

        The consumer is created when it is missing. Each delivery is settled by the caller with
        `Delivery.ack`, `nak` or `term`; one that is not comes again after `ConsumerSettings.ack_wait_s`.
        """
        return pulled_messages(self, stream, durable, tuple(subjects), settings or ConsumerSettings())

    async def subject_count(self, stream: str, subject_filter: str) -> int:
        """Return how many messages the stream holds on subjects that match the filter."""
        return sum((await self.subjects(stream, subject_filter)).values())

    async def subjects(self, stream: str, subject_filter: str) -> dict[str, int]:
        """Return the subjects that match the filter, each with how many messages the stream holds on it."""
        try:
            info = await self._js.stream_info(stream, subjects_filter=subject_filter)
        except (nats.errors.Error, TimeoutError) as error:
            raise bus_error(error, stream) from error
        return info.state.subjects or {}

    async def _attempts(
        self,
        once: Callable[[float], Awaitable[PublishAck]],
        subject: str,
        timeout_s: float,
        *,
        repeatable: bool,
    ) -> PublishAck:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        pause_s = 0.02
        while True:
            left_s = max(deadline - loop.time(), 0.001)
            await self.wait_connected(left_s)
            generation = self._generation
            try:
                # A try of a repeatable publish is short: an acknowledgement lost with the connection never
                # comes.
                return await once(min(left_s, 1.0) if repeatable else left_s)
            except (nats.errors.Error, TimeoutError) as error:
                known = bus_error(error, subject)
                again = isinstance(known, Unavailable) and (repeatable or known.reason == "STREAM_AWAY")
                if not again or loop.time() + pause_s >= deadline:
                    raise known from error
                if generation == self._generation:
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, 0.5)


def _state(info: Any) -> StreamState:
    epoch = (info.config.metadata or {}).get(EPOCH_KEY, "1")
    return StreamState(int(epoch), info.state.first_seq, info.state.last_seq, info.state.messages)


def _raw_message(stream: str, found: Any) -> StreamMessage:
    stored = found.time
    return StreamMessage(
        stream=stream,
        subject=found.subject,
        sequence=found.seq,
        time_ms=int(stored.timestamp() * 1000) if stored is not None else 0,
        headers=dict(found.headers or {}),
        payload=found.data or b"",
    )
