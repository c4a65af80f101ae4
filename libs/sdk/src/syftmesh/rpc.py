"""Calls to apps of sites, sealed end to end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeVar, overload

from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from syftmesh_client.node import Node
from syftmesh_core.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    WrongState,
)
from syftmesh_core.quote import quoted
from syftmesh_core.url import parse_url

from syftmesh.submission import Submission, SubmissionLog
from syftmesh.value import decode, decode_by_type, encode

T = TypeVar("T")

RESULT_S: Final = 0.5
_SUCCESS: Final = range(200, 300)
_CALLERS_FAULT: Final = range(400, 500)
_SHOWN_BYTES: Final = 500
_CLASSES: Final[Mapping[int, type[MeshError]]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    408: DeadlineExceeded,
    409: Conflict,
    412: WrongState,
    413: LimitExceeded,
    422: InvalidInput,
    429: LimitExceeded,
    499: Cancelled,
    501: Unimplemented,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}
"""Classes of errors by HTTP status (RFC 9110, section 15); of the rest 4xx are InvalidInput and others Internal."""


class AsyncRpc:
    """Makes calls; errors are those of `syftmesh_client.call.CallClient`.

    Args:
        node: The calling device.
        log: Where the sites of calls that were sent are kept, so that `result` works in another process.
    """

    def __init__(self, node: Node, log: SubmissionLog) -> None:
        self._node = node
        self._log = log

    @overload
    async def call(
        self, url: str, data: object = ..., *, timeout_s: float = ..., content_type: str | None = ...
    ) -> Any: ...

    @overload
    async def call(
        self,
        url: str,
        data: object = ...,
        *,
        reply_type: type[T],
        timeout_s: float = ...,
        content_type: str | None = ...,
    ) -> T: ...

    async def call(
        self,
        url: str,
        data: object = None,
        *,
        reply_type: type[T] | None = None,
        timeout_s: float = 30.0,
        content_type: str | None = None,
    ) -> Any:
        """Call an endpoint and return its reply.

        Args:
            url: ``syft://<e-mail>/app_data/<app>/rpc/<endpoint>[?k=v]``.
            data: See `value.encode`.
            reply_type: What the reply is to be; by default its content type says.
            timeout_s: Seconds until the call expires.
            content_type: Of bytes that are sent.

        Raises:
            InvalidInput: INVALID_URL, VALUE_UNENCODABLE, or the app's 400.
            IntegrityFailure: DECODE_FAILED.
            MeshError: As `CallClient.call`; an app's error status by its class (APP_ERROR).
        """
        body, kind = encode(data, content_type)
        request = RequestContent(body=body, content_type=kind)
        return _value(await self._node.calls.call(url, request, timeout_s=timeout_s), reply_type)

    async def send(
        self, url: str, data: object = None, *, expires_s: float = 86_400.0, content_type: str | None = None
    ) -> str:
        """Store a call durably and return its id for `result`; arguments and errors as `call`."""
        body, kind = encode(data, content_type)
        request = RequestContent(body=body, content_type=kind)
        call_id = await self._node.calls.send(url, request, expires_s=expires_s)
        sent = Submission(call_id, parse_url(url).site, self._node.clock.now_ms())
        await asyncio.to_thread(self._log.add, sent)
        return call_id

    async def result(
        self,
        call_id: str,
        *,
        reply_type: type[T] | None = None,
        timeout_s: float = RESULT_S,
        site: str | None = None,
    ) -> Any:
        """Return the reply of a call that was sent earlier.

        Args:
            call_id: From `send`.
            reply_type: As `call`.
            timeout_s: How long to wait for it.
            site: The site that was called; known here for calls of this profile.

        Raises:
            DeadlineExceeded: No reply yet, or never (CALL_EXPIRED).
            NotFound: CALL_UNKNOWN.
            InvalidInput: SITE_NEEDED.
        """
        known = None if site is not None else await asyncio.to_thread(self._log.find, call_id)
        where = known.site if known is not None else site
        return _value(await self._node.calls.wait(call_id, timeout_s, site=where), reply_type)


def _value(reply: ReplyContent, wanted: type[T] | None) -> Any:
    status = reply.status or 200
    if status not in _SUCCESS:
        kind = _CLASSES.get(status, InvalidInput if status in _CALLERS_FAULT else Internal)
        said = reply.body[:_SHOWN_BYTES].decode("utf-8", "replace")
        raise kind(
            f"The app answered with status {status}" + (f": {quoted(said)}." if said else "."),
            reason="APP_ERROR",
            metadata={"status": str(status)},
        )
    if wanted is not None:
        return decode(reply.body, reply.content_type, wanted)
    return decode_by_type(reply.body, reply.content_type)
