"""Errors as HTTP answers: problem details (RFC 9457) with the product's reason."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from syftmesh_core.errors import MeshError
from syftmesh_kit.errors import HTTP_STATUS

PROBLEM_TYPE: Final = "application/problem+json"
_BY_REASON: Final = {
    "HOST_REFUSED": 421,
    "LENGTH_REQUIRED": 411,
    "OBJECT_TOO_LARGE": 413,
    "BODY_TOO_LARGE": 413,
    "METHOD_REFUSED": 405,
    "OBJECT_EXISTS": 412,
    "RANGE_INVALID": 416,
}


def status_of(error: MeshError) -> int:
    """Return the HTTP status of `error`; 500 for what has none of its own."""
    return _BY_REASON.get(error.reason) or HTTP_STATUS.get(error.code, 500)


def problem(error: MeshError) -> Response:
    """Return `error` as a response."""
    status = status_of(error)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "reason": error.reason,
        "metadata": error.metadata,
    }
    return Response(json.dumps(body), status_code=status, media_type=PROBLEM_TYPE)
