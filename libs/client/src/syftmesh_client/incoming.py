"""Calls as a site sees them: what came in, what a handler may commit, what goes out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from syftmesh_core.url import SyftUrl

Effect = Callable[[sqlite3.Connection], object]
"""Writes of a handler, run inside the transaction that commits its reply."""

Work = Callable[[], ReplyContent]
"""Computes a reply inside the transaction that commits it."""


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A call whose seal and sender were verified.

    Attributes:
        call_id: The call.
        sender: The calling principal.
        sender_root: Its pinned account root, 32 bytes.
        sender_device: The calling device.
        site: The own datasite.
        app: The app called.
        endpoint: The endpoint called.
        request: What was in the seal.
        expires_ms: Unix milliseconds after which nobody wants the reply.
    """

    call_id: str
    sender: str
    sender_root: bytes = field(repr=False)
    sender_device: str
    site: str
    app: str
    endpoint: str
    request: RequestContent = field(repr=False)
    expires_ms: int

    @property
    def url(self) -> SyftUrl:
        """The endpoint called, without query."""
        return SyftUrl(self.site, self.app, self.endpoint)


@dataclass(frozen=True, slots=True)
class OutReply:
    """The end of a call as it goes to the router.

    Attributes:
        call_id: The call that it ends.
        state: COMPLETED, FAILED, REJECTED or NOT_FOUND.
        body: Sealed for the caller's device; empty unless COMPLETED.
        failure_reason: Constant of ErrorReason unless COMPLETED.
    """

    call_id: str
    state: pb.CallState.ValueType
    body: bytes = field(default=b"", repr=False)
    failure_reason: str = ""


class Transaction:
    """What a handler writes: it becomes durable together with its reply, or not at all.

    Nothing is written while the handler runs: effects are run in order, in one transaction of the inbox's
    database, after it returned. An effect that raises undoes all of them; a MeshError then is the reply.
    """

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._work: Work | None = None

    @property
    def effects(self) -> Sequence[Effect]:
        """The effects so far."""
        return tuple(self._effects)

    def add(self, effect: Effect) -> None:
        """Run `effect` with the database's connection when the reply is committed; it must not commit."""
        self._effects.append(effect)

    def reply_with(self, work: Work) -> ReplyContent:
        """Let `work` write, and compute the reply, inside the transaction; return a stand-in to return.

        It runs in another thread, behind the effects, with the inbox's lock held; it must not commit.
        """
        self._work = work
        return ReplyContent()

    def content(self, returned: ReplyContent) -> ReplyContent:
        """Return the reply: that of `reply_with` when it was used, else what the handler returned."""
        return self._work() if self._work is not None else returned

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Execute one statement when the reply is committed."""
        self.add(lambda connection: connection.execute(sql, tuple(parameters)))


class AppHandler(Protocol):
    """Answers the calls to one app.

    A handler with an attribute `idempotent` that is true is run again when it was cut off; without it such a
    call ends as FAILED (INTERRUPTED), because nobody knows what it did outside of its transaction.
    """

    async def handle(self, request: IncomingCall, tx: Transaction) -> ReplyContent:
        """Return the reply to `request`.

        Raises:
            NotFound: APP_UNKNOWN or ENDPOINT_UNKNOWN: the call ends as NOT_FOUND.
            MeshError: Any other one is the reply.
        """
        ...
