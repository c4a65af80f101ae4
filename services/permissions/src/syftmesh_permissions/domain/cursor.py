"""Where a walk goes on: behind a path that its caller was given."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from syftmesh_core.errors import InvalidInput, MeshError
from syftmesh_core.path import MAX_PATH_BYTES, MeshPath, parse_path

_MARK_BYTES: Final = 12
_MAX_CHARACTERS: Final = 4 * (MAX_PATH_BYTES + _MARK_BYTES)


def encode_cursor(caller: str, prefix: str, path: str) -> str:
    """Return the cursor behind `path` of the walk of `caller` below `prefix`; it names nothing but that path."""
    return base64.urlsafe_b64encode(_mark(caller, prefix) + path.encode()).decode()


def decode_cursor(caller: str, prefix: str, cursor: str) -> MeshPath:
    """Return the path behind which the walk goes on.

    Raises:
        InvalidInput: (PAGE_INVALID) `cursor` was not given out for this walk.
    """
    path = None if len(cursor) > _MAX_CHARACTERS else _decoded(_mark(caller, prefix), cursor)
    if path is None or (prefix and not str(path).startswith(f"{prefix}/")):
        raise InvalidInput(
            "The cursor is none of this listing: use that of the last page with the same prefix, or begin anew.",
            reason="PAGE_INVALID",
        )
    return path


def _decoded(mark: bytes, cursor: str) -> MeshPath | None:
    try:
        raw = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
        text = raw[_MARK_BYTES:].decode()
        path = parse_path(text)
    except (binascii.Error, ValueError, MeshError):
        return None
    return path if raw.startswith(mark) and str(path) == text and path.segments else None


def _mark(caller: str, prefix: str) -> bytes:
    """Return what tells the walks of callers and prefixes apart; a digest, for it is no secret."""
    return hashlib.sha256(f"{caller}\0{prefix}".encode()).digest()[:_MARK_BYTES]
