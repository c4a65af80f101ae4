"""The one mapping from errors of nats-py and JetStream to `syftmesh_core.errors`."""

from __future__ import annotations

import re
import ssl
from typing import Final

import nats.errors
import nats.js.errors
from syftmesh_core.errors import Conflict, InvalidInput, LimitExceeded, MeshError, NotFound, Unavailable

WRONG_LAST_SEQUENCE: Final = (10071, 10164)
"""JetStream error codes of a lost compare-and-set (JSStreamWrongLastSequenceErrF, ...Constant)."""
_STREAM_NOT_FOUND: Final = 10059
STREAM_NAME_IN_USE: Final = 10058
_MESSAGE_TOO_LARGE: Final = (10054,)
_STREAM_FULL: Final = (10077,)
_NO_PEERS: Final = 10005
"""A cluster of servers has not enough members yet for the copies wanted (JSClusterNoPeersErrF)."""
_BATCH_INCOMPLETE: Final = 10176
"""A batch of which a part was sent before the connection was lost (JSAtomicPublishIncompleteBatchErr)."""
TLS_EXPECTED: Final = "TLS was expected"
"""Text of the error for a server that wants a tls:// connection in the clear."""

_REFUSED: Final = "authorization violation"
_SEQUENCE: Final = re.compile(r"(\d+)\s*$")


def unreachable() -> Unavailable:
    """Return the error for a bus that is not connected."""
    return Unavailable(
        "The message bus is not connected now. Try again in a moment.", reason="BUS_UNREACHABLE"
    )


def connect_error(error: BaseException) -> Unavailable:
    """Return why there is no connection, for whoever runs the service; `error` is nats-py's or the system's.

    The bus refuses user or password (BUS_REFUSED), one side does not accept the other's certificate
    (BUS_UNTRUSTED), or nobody answers (BUS_UNREACHABLE).
    """
    if isinstance(error, ssl.SSLError) or TLS_EXPECTED in str(error):
        return Unavailable(
            "The message bus cannot be trusted, or does not trust this service: the certificate of one side is not "
            "from an authority that the other knows, or does not bear its name. Check the TLS files of both.",
            reason="BUS_UNTRUSTED",
        )
    if _REFUSED in str(error).lower():
        return Unavailable(
            "The message bus refuses the user or the password of this service. Check both against its "
            "configuration.",
            reason="BUS_REFUSED",
        )
    return Unavailable(
        "The message bus cannot be reached. Check that nats-server runs, and its address.",
        reason="BUS_UNREACHABLE",
    )


def bus_error(error: Exception, subject: str) -> MeshError:
    """Return the MeshError that an error of nats-py stands for; `subject` is what was asked or written."""
    where = {"subject": subject}
    if isinstance(error, MeshError):
        return error
    if isinstance(error, nats.js.errors.APIError):
        return _api_error(error, where)
    if isinstance(error, nats.errors.MaxPayloadError):
        return LimitExceeded(
            "The message is larger than the bus carries. Send bulk data by reference.",
            reason="MESSAGE_TOO_LARGE",
            metadata=where,
        )
    if isinstance(error, nats.js.errors.NoStreamResponseError):
        return Unavailable("The stream does not answer now.", reason="STREAM_AWAY", metadata=where)
    if isinstance(error, nats.errors.BadSubjectError):
        return InvalidInput("The subject is not valid.", reason="SUBJECT_INVALID")
    if isinstance(error, (nats.errors.TimeoutError, TimeoutError)):
        return Unavailable("The message bus did not answer in time.", reason="BUS_TIMEOUT", metadata=where)
    return unreachable()


def _api_error(error: nats.js.errors.APIError, where: dict[str, str]) -> MeshError:
    code = error.err_code or 0
    if code in WRONG_LAST_SEQUENCE:
        found = _SEQUENCE.search(error.description or "")
        return Conflict(
            "Somebody else wrote this first. Read it again, then decide.",
            reason="WRONG_LAST_SEQUENCE",
            metadata={**where, **({"actual": found[1]} if found else {})},
        )
    if code in _MESSAGE_TOO_LARGE:
        return LimitExceeded(
            "The message is larger than the stream takes.", reason="MESSAGE_TOO_LARGE", metadata=where
        )
    if code == _NO_PEERS:
        return Unavailable(
            "The bus has not enough servers now for the copies of this stream.",
            reason="STREAM_AWAY",
            metadata=where,
        )
    if code == _BATCH_INCOMPLETE:
        return Unavailable(
            "A part of the batch was lost on its way, so nothing of it is stored.",
            reason="STREAM_AWAY",
            metadata=where,
        )
    if code in _STREAM_FULL or (error.description or "").startswith(("maximum", "insufficient")):
        return LimitExceeded(
            "The hub's message bus is full. Its operator has to give it more room (nats.maxFileStore).",
            reason="STREAM_FULL",
            metadata=where,
        )
    if code == _STREAM_NOT_FOUND or error.code == 404:
        return NotFound("There is no such stream or message.", reason="STREAM_MISSING", metadata=where)
    if error.code == 400:
        return InvalidInput(
            f"The bus refused the request (code {code}).", reason="BUS_REFUSED", metadata=where
        )
    return Unavailable(f"The bus cannot do this now (code {code}).", reason="STREAM_AWAY", metadata=where)
