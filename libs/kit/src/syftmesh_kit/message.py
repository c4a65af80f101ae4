"""Messages on the bus: headers of ours, what a consumer receives, decoding of the one protobuf inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.js import api
from syftmesh_core.errors import InvalidInput

TYPE_HEADER: Final = "mesh-type"
OPERATION_HEADER: Final = "mesh-operation"
TRACE_HEADER: Final = "traceparent"
MESSAGE_ID_HEADER: Final = "Nats-Msg-Id"

M = TypeVar("M", bound=Message)

STATUS_HEADER: Final = api.Header.STATUS.value


@dataclass(frozen=True, slots=True)
class PublishAck:
    """JetStream has the message on disk.

    Attributes:
        stream: Where it is.
        sequence: Its sequence there (of the last message, for a batch).
        duplicate: It was there already (same message id or operation id).
    """

    stream: str
    sequence: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message of `Bus.publish_batch`.

    Attributes:
        subject: Where to.
        payload: A protobuf message.
        expected_last: Sequence that the subject's newest message must have (0: none yet); None for any.
        headers: Further headers.
    """

    subject: str
    payload: Message
    expected_last: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A stored message.

    Attributes:
        stream: Stream it is in.
        subject: Its subject.
        sequence: Its sequence in the stream.
        time_ms: When it was stored, Unix milliseconds.
        headers: Its headers.
        payload: Encoded protobuf message, see `decode`.
        pending: Messages behind it that this consumer has yet to receive; 0 means caught up.
        deliveries: How often it has been delivered to this consumer.
    """

    stream: str
    subject: str
    sequence: int
    time_ms: int
    headers: Mapping[str, str]
    payload: bytes
    pending: int = 0
    deliveries: int = 1

    @property
    def type_name(self) -> str:
        """Return the full name of the protobuf message inside, or an empty text."""
        return self.headers.get(TYPE_HEADER, "")

    @property
    def operation_id(self) -> str:
        """Return the operation id its publisher gave, or an empty text."""
        return self.headers.get(OPERATION_HEADER, "")

    def decode(self, cls: type[M]) -> M:
        """Return the payload as `cls`.

        Raises:
            InvalidInput: Another type, or not a message of it (MESSAGE_MALFORMED).
        """
        return decode_payload(self.headers, self.payload, cls)


def type_headers(payload: Message, traceparent: str) -> dict[str, str]:
    """Return the headers every message of ours carries."""
    headers = {TYPE_HEADER: payload.DESCRIPTOR.full_name}
    if traceparent:
        headers[TRACE_HEADER] = traceparent
    return headers


def decode_payload(headers: Mapping[str, str], payload: bytes, cls: type[M]) -> M:
    """Return `payload` as `cls`, checked against the type header.

    Raises:
        InvalidInput: Another type, or not a message of it (MESSAGE_MALFORMED).
    """
    expected = cls.DESCRIPTOR.full_name
    found = headers.get(TYPE_HEADER, "")
    if found == expected:
        try:
            return cls.FromString(payload)
        except DecodeError:
            pass
    raise InvalidInput(
        f"A message of type {found[:100] or 'unknown'!r} came where {expected} was expected.",
        reason="MESSAGE_MALFORMED",
        metadata={"type": found[:100], "expected": expected},
    )
