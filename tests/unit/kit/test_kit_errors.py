from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from syftmesh_core.errors import (
    BY_CODE,
    Conflict,
    Internal,
    InvalidInput,
    LimitExceeded,
    MeshError,
    Unavailable,
)
from syftmesh_kit.errors import DOMAIN, disposition, from_rpc_error, from_status, to_status, trailing_metadata


def rpc_error(
    code: grpc.StatusCode, details: str = "", trailers: tuple[tuple[str, str | bytes], ...] = ()
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_class_survives_the_round_trip(code: str) -> None:
    error = BY_CODE[code]("What.", reason="REASON", metadata={"path": "ä/b"}, hint="Next.")
    found = from_rpc_error(rpc_error(grpc.StatusCode[code], "What.", trailing_metadata(error)))
    assert type(found) is type(error)
    assert (found.message, found.reason, found.hint, found.metadata) == (
        "What.",
        "REASON",
        "Next.",
        {"path": "ä/b"},
    )


def test_retry_after_becomes_retry_info() -> None:
    status = to_status(LimitExceeded("Slower.", metadata={"retry_after_ms": "1500"}))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert len(to_status(LimitExceeded("Slower.", metadata={"retry_after_ms": "soon"})).details) == 1


def test_metadata_too_large_for_trailers_is_dropped_and_the_rest_arrives() -> None:
    status = to_status(InvalidInput("x" * 5000, reason="R", metadata={"path": "y" * 100_000}))
    assert status.ByteSize() < 8192
    found = from_status(status)
    assert found is not None
    assert (found.reason, found.metadata) == ("R", {})


def test_error_info_of_another_domain_is_not_ours() -> None:
    status = to_status(InvalidInput("x", reason="R"))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.domain == DOMAIN
    info.domain = "evil.example"
    status.details[0].Pack(info)
    assert from_status(status) is None


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "connect to ipv4:10.0.0.1:80 failed",
            Unavailable,
            "SERVER_UNREACHABLE",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message larger than max (9 vs. 8)",
            LimitExceeded,
            "MESSAGE_TOO_LARGE",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "other", LimitExceeded, "LIMIT_EXCEEDED"),
        (grpc.StatusCode.UNKNOWN, "Traceback /srv/app.py", Internal, "INTERNAL"),
        (grpc.StatusCode.ABORTED, "driver text", Conflict, "CONFLICT"),
    ],
)
def test_transport_errors_are_typed_without_their_text(
    code: grpc.StatusCode, details: str, kind: type[MeshError], reason: str
) -> None:
    found = from_rpc_error(rpc_error(code, details))
    assert (type(found), found.reason) == (kind, reason)
    assert details not in found.message


def test_malformed_details_fall_back_to_the_code() -> None:
    trailers = (("grpc-status-details-bin", b"\xff\xff"),)
    assert type(from_rpc_error(rpc_error(grpc.StatusCode.ABORTED, "", trailers))) is Conflict


def test_consumers_repeat_what_may_succeed_later_only() -> None:
    assert [disposition(BY_CODE[code]("x")) for code in ("UNAVAILABLE", "ABORTED", "INTERNAL")] == ["nak"] * 3
    assert [disposition(BY_CODE[code]("x")) for code in ("INVALID_ARGUMENT", "PERMISSION_DENIED")] == [
        "term"
    ] * 2
