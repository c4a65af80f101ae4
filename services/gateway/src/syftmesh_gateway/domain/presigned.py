"""Which requests may pass to the object store: pre-signed ones for one object, and nothing else.

Source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)". The store checks
the signature; this keeps everything away from it that carries none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote

from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied

PREFIX: Final = "/objects"
METHODS: Final = ("GET", "HEAD", "PUT")
_REQUIRED: Final = frozenset(
    {
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
    }
)
_RAW: Final = re.compile(r"/objects(/[A-Za-z0-9._=@%/-]+)")
_DECODED: Final = re.compile(r"/[a-z0-9][a-z0-9.-]+(?:/[A-Za-z0-9_=@-][A-Za-z0-9._=@-]*)+")
_MAX_TARGET_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True)
class ObjectRequest:
    """A request that may pass.

    Attributes:
        method: GET, HEAD or PUT.
        target: Path and query for the store, exactly as they were signed; a secret, never logged.
        size_bytes: Length of the body; 0 without one.
    """

    method: str
    target: str
    size_bytes: int


def object_request(
    method: str, path: str, query: str, *, length: str | None, authorised: bool, max_bytes: int
) -> ObjectRequest:
    """Return the request to pass on.

    Args:
        method: HTTP method.
        path: Path as received, percent-encoded.
        query: Query as received.
        length: Content-Length header.
        authorised: Whether an Authorization header is there: two ways of signing at once are refused.
        max_bytes: Largest body, in bytes.

    Raises:
        PermissionDenied: Not pre-signed (PRESIGN_REQUIRED).
        InvalidInput: No path of one object (OBJECT_KEY_INVALID), or no length (LENGTH_REQUIRED).
        LimitExceeded: The body is too large (OBJECT_TOO_LARGE).
    """
    found = _RAW.fullmatch(path) if len(path) + len(query) <= _MAX_TARGET_CHARACTERS else None
    # Decoded once it is bucket and key: no dot segment and no second escape may hide in it.
    if found is None or _DECODED.fullmatch(unquote(found[1])) is None:
        raise InvalidInput("The path names no object.", reason="OBJECT_KEY_INVALID")
    try:
        parameters = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=16)
    except ValueError:
        _refuse()
    names = [name for name, _ in parameters]
    foreign = [name for name in names if not name.startswith("X-Amz-")]
    if authorised or foreign or not set(names) >= _REQUIRED or len(names) != len(set(names)):
        _refuse()
    return ObjectRequest(method, f"{found[1]}?{query}", _size(method, length, max_bytes))


def _size(method: str, length: str | None, max_bytes: int) -> int:
    if method != "PUT":
        if length not in (None, "0"):
            raise InvalidInput("This request has no body.", reason="LENGTH_REQUIRED")
        return 0
    if length is None or not length.isascii() or not length.isdecimal() or len(length) > 15:
        raise InvalidInput("Say the length of the body (Content-Length).", reason="LENGTH_REQUIRED")
    size_bytes = int(length)
    if size_bytes > max_bytes:
        raise LimitExceeded(
            f"The body has {size_bytes} bytes, an object has at most {max_bytes}.",
            reason="OBJECT_TOO_LARGE",
            metadata={"size_bytes": str(size_bytes), "limit_bytes": str(max_bytes)},
        )
    return size_bytes


def _refuse() -> NoReturn:
    raise PermissionDenied(
        "Objects are reached by the pre-signed addresses of the sync service only.", reason="PRESIGN_REQUIRED"
    )
