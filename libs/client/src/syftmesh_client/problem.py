"""Errors inside sealed replies: problem documents (RFC 9457) that carry the one taxonomy of errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from mesh.rpc.v1.content_pb2 import ReplyContent
from syftmesh_core.errors import BY_CODE, Internal, MeshError
from syftmesh_kit.errors import HTTP_STATUS

CONTENT_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[str, int]] = {**HTTP_STATUS, "DATA_LOSS": 422, "CANCELLED": 499, "INTERNAL": 500}
"""HTTP status by code of `syftmesh_core.errors`."""

_MAX_BYTES: Final = 16 * 1024
_MAX_TEXT: Final = 1024


def problem_content(error: MeshError) -> ReplyContent:
    """Return the reply that stands for `error`; metadata that make it longer than 16 KiB are left out."""
    document: dict[str, Any] = {
        "code": error.code,
        "reason": error.reason,
        "message": error.message[:_MAX_TEXT],
        "metadata": error.metadata,
        "hint": error.hint[:_MAX_TEXT],
    }
    body = json.dumps(document).encode()
    if len(body) > _MAX_BYTES:
        body = json.dumps({**document, "metadata": {}}).encode()
    return ReplyContent(status=STATUS.get(error.code, 500), content_type=CONTENT_TYPE, body=body)


def problem_error(content: ReplyContent) -> MeshError | None:
    """Return the error that a reply carries, None for an app's own reply, whatever its status."""
    if 200 <= content.status < 300 or content.content_type != CONTENT_TYPE or len(content.body) > _MAX_BYTES:
        return None
    try:
        found = json.loads(content.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return None
    message, reason, hint = (_text(found, name) for name in ("message", "reason", "hint"))
    metadata = found.get("metadata")
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    return BY_CODE.get(found["code"], Internal)(
        message or f"The site answered {content.status}.",
        reason=reason or None,
        metadata={str(key): value for key, value in pairs if isinstance(value, str)},
        hint=hint,
    )


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name, "")
    return value[:_MAX_TEXT] if isinstance(value, str) else ""
