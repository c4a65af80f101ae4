"""The one mapping between `syftmesh_core.errors` and the transports (gRPC status, NATS acknowledgement).

A gRPC error carries `google.rpc.Status` in ``grpc-status-details-bin`` with a `google.rpc.ErrorInfo`
(domain ``syftmesh.org``, reason, metadata; AIP-193) and, for limits, a `google.rpc.RetryInfo`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from syftmesh_core.errors import (
    BY_CODE,
    Conflict,
    DeadlineExceeded,
    Internal,
    LimitExceeded,
    MeshError,
    Unavailable,
)

DOMAIN: Final = "syftmesh.org"
DETAILS_KEY: Final = "grpc-status-details-bin"
HINT_KEY: Final = "hint"
RETRY_AFTER_KEY: Final = "retry_after_ms"
_MAX_DETAIL_BYTES: Final = 6 * 1024  # HTTP/2 header lists are limited to 8 KiB by default

HTTP_STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": 400,
        "UNAUTHENTICATED": 401,
        "PERMISSION_DENIED": 403,
        "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409,
        "FAILED_PRECONDITION": 409,
        "ABORTED": 409,
        "RESOURCE_EXHAUSTED": 429,
        "UNAVAILABLE": 503,
        "DEADLINE_EXCEEDED": 504,
        "UNIMPLEMENTED": 501,
    }
)
"""HTTP status by code of `syftmesh_core.errors`; what is not here has none of its own: 500."""

REASON_MESSAGE_TOO_LARGE: Final = "MESSAGE_TOO_LARGE"
REASON_SERVER_UNREACHABLE: Final = "SERVER_UNREACHABLE"

# Text of ours for errors that the transport itself raised: its own text names addresses and internals.
_TRANSPORT_TEXT: Final = {
    "UNAVAILABLE": ("The service cannot be reached now. Try again in a moment.", REASON_SERVER_UNREACHABLE),
    "DEADLINE_EXCEEDED": ("No answer came within the time allowed.", "DEADLINE_EXCEEDED"),
    "CANCELLED": ("The call was cancelled.", "CANCELLED"),
    "UNIMPLEMENTED": (
        "The service does not know this method. Check the versions of both sides.",
        "UNIMPLEMENTED",
    ),
    "UNAUTHENTICATED": ("The call was refused because it is not authenticated.", "UNAUTHENTICATED"),
    "PERMISSION_DENIED": ("The call was refused.", "PERMISSION_DENIED"),
}


def internal_error(error_id: str) -> Internal:
    """Return the error that stands for every unexpected exception: fixed text and an id for the log."""
    return Internal(
        f"The service met an internal error. Its operator finds the details in the log under {error_id}.",
        metadata={"error_id": error_id},
    )


def message_too_large(size_bytes: int, limit_bytes: int) -> LimitExceeded:
    """Return the error for a message above our limit (both in bytes)."""
    return LimitExceeded(
        f"The message has {size_bytes} bytes, the limit is {limit_bytes}. Send bulk data by reference.",
        reason=REASON_MESSAGE_TOO_LARGE,
        metadata={"size_bytes": str(size_bytes), "limit_bytes": str(limit_bytes)},
    )


def status_code(error: MeshError) -> grpc.StatusCode:
    """Return the gRPC status code of `error`."""
    return grpc.StatusCode[error.code]


def to_status(error: MeshError) -> status_pb2.Status:
    """Return `error` as `google.rpc.Status` with ErrorInfo and, where known, RetryInfo.

    Metadata that would not fit into the trailers (6 KiB) is left out; code, reason and message always arrive.
    """
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    if error.hint:
        info.metadata[HINT_KEY] = error.hint
    if info.ByteSize() > _MAX_DETAIL_BYTES:
        info.metadata.clear()
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message[:1024])
    status.details.add().Pack(info)
    retry_after_ms = error.metadata.get(RETRY_AFTER_KEY, "")
    if retry_after_ms.isdecimal():
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(retry_after_ms))
        status.details.add().Pack(retry)
    return status


def trailing_metadata(error: MeshError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailers that carry `error` beside code and details of a gRPC status."""
    return ((DETAILS_KEY, to_status(error).SerializeToString()),)


def from_status(status: status_pb2.Status) -> MeshError | None:
    """Return the MeshError that `status` carries, or None when it holds no ErrorInfo of our domain."""
    code = next((c.name for c in grpc.StatusCode if c.value[0] == status.code), "INTERNAL")
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if not detail.Is(info.DESCRIPTOR) or not detail.Unpack(info) or info.domain != DOMAIN:
            continue
        metadata = dict(info.metadata)
        hint = metadata.pop(HINT_KEY, "")
        return BY_CODE.get(code, Internal)(status.message, reason=info.reason, metadata=metadata, hint=hint)
    return None


def from_rpc_error(error: grpc.aio.AioRpcError) -> MeshError:
    """Return the MeshError a failed call stands for.

    Errors raised by the transport itself (no connection, deadline, gRPC's own size limit) get a fixed text:
    the text of the driver names addresses and internals.
    """
    details = error.trailing_metadata()
    for key, value in _pairs(details):
        if key == DETAILS_KEY:
            status = status_pb2.Status()
            try:
                status.ParseFromString(value if isinstance(value, bytes) else value.encode("latin-1"))
            except DecodeError:  # the other side is not ours
                break
            ours = from_status(status)
            if ours is not None:
                return ours
    return _from_transport(error.code().name, error.details() or "")


def _from_transport(code: str, details: str) -> MeshError:
    if code == "RESOURCE_EXHAUSTED" and "message larger than max" in details:
        return LimitExceeded(
            "The message is larger than the transport carries. Send bulk data by reference.",
            reason=REASON_MESSAGE_TOO_LARGE,
        )
    text, reason = _TRANSPORT_TEXT.get(code, ("", ""))
    cls = BY_CODE.get(code, Internal)
    return cls(text or f"The service answered {code}.", reason=reason or None)


def _pairs(metadata: Any) -> Iterable[tuple[str, Any]]:
    return metadata or ()


def disposition(error: MeshError) -> Literal["nak", "term"]:
    """Return what a consumer does with the message that raised `error`.

    ``nak``: it may succeed later, so it is delivered again; ``term``: it can never succeed, so the consumer
    records it as dead and ends its delivery.
    """
    transient = (Unavailable, DeadlineExceeded, Conflict, LimitExceeded, Internal)
    return "nak" if isinstance(error, transient) else "term"
