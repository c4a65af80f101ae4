"""Protobuf messages to domain objects and back; pure."""

from __future__ import annotations

from typing import Final

from mesh.rpc.v1 import rpc_pb2 as pb
from syftmesh_core.errors import InvalidInput

from syftmesh_router.domain.envelope import CallMessage, Envelope
from syftmesh_router.domain.record import CallState, Reply

_STATES: Final = {
    CallState.PENDING: pb.CALL_STATE_PENDING,
    CallState.DELIVERED: pb.CALL_STATE_DELIVERED,
    CallState.COMPLETED: pb.CALL_STATE_COMPLETED,
    CallState.FAILED: pb.CALL_STATE_FAILED,
    CallState.REJECTED: pb.CALL_STATE_REJECTED,
    CallState.NOT_FOUND: pb.CALL_STATE_NOT_FOUND,
    CallState.EXPIRED: pb.CALL_STATE_EXPIRED,
    CallState.CANCELLED: pb.CALL_STATE_CANCELLED,
}
_FROM_STATES: Final = {value: key for key, value in _STATES.items()}
_MAX_REASON: Final = 64


def call_of(message: pb.Message) -> CallMessage:
    """Return the call in `message`.

    Raises:
        InvalidInput: ENVELOPE_INVALID without an envelope.
    """
    if not message.HasField("envelope"):
        raise InvalidInput("The call has no envelope.", reason="ENVELOPE_INVALID")
    e = message.envelope
    envelope = Envelope(
        call_id=e.call_id,
        site=e.site,
        app=e.app,
        endpoint=e.endpoint,
        sender=e.sender,
        sender_device=e.sender_device,
        created_ms=e.created_unix_ms,
        expires_ms=e.expires_unix_ms,
        version=e.version,
        suite=e.suite,
    )
    return CallMessage(envelope, message.body)


def message_of(call: CallMessage) -> pb.Message:
    """Return `call` as a message."""
    e = call.envelope
    envelope = pb.Envelope(
        call_id=e.call_id,
        site=e.site,
        app=e.app,
        endpoint=e.endpoint,
        sender=e.sender,
        sender_device=e.sender_device,
        created_unix_ms=e.created_ms,
        expires_unix_ms=e.expires_ms,
        version=e.version,
        suite=e.suite,
    )
    return pb.Message(envelope=envelope, body=call.body)


def state_value(state: CallState) -> pb.CallState.ValueType:
    """Return `state` as the API gives it."""
    return _STATES[state]


def state_of(value: int) -> CallState:
    """Return the state that the API's `value` names.

    Raises:
        InvalidInput: FRAME_INVALID for none.
    """
    for known, state in _FROM_STATES.items():
        if known == value:
            return state
    raise InvalidInput("The frame names no state of a call.", reason="FRAME_INVALID")


def reply_message(reply: Reply) -> pb.Reply:
    """Return `reply` as a message."""
    return pb.Reply(
        call_id=reply.call_id,
        state=_STATES[reply.state],
        body=reply.body,
        failure_reason=reply.failure_reason,
        replier=reply.replier,
        replier_device=reply.replier_device,
    )


def reply_of(message: pb.Reply, *, replier: str, replier_device: str) -> Reply:
    """Return the reply in `message`, given by the authenticated replier; what it says of itself is not used.

    Raises:
        InvalidInput: FRAME_INVALID.
    """
    state = state_of(message.state)
    reason = message.failure_reason
    if len(reason) > _MAX_REASON or (reason and not reason.replace("_", "").isalnum()):
        raise InvalidInput("The reply's failure reason is no constant.", reason="FRAME_INVALID")
    return Reply(message.call_id, state, message.body, reason, replier, replier_device)
