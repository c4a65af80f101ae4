"""Runs the handlers of accepted calls: right, claim, handler, then effects and reply in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1.content_pb2 import ReplyContent
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import (
    DeadlineExceeded,
    Internal,
    LimitExceeded,
    MeshError,
    NotFound,
    Unavailable,
    WrongState,
)

from syftmesh_client.call_seal import CallSeal
from syftmesh_client.inbox import End, Inbox
from syftmesh_client.incoming import AppHandler, Effect, IncomingCall, OutReply, Transaction
from syftmesh_client.problem import problem_content

ANY_APP: Final = "*"
INTERRUPTED: Final = "INTERRUPTED"
_UNSERVED: Final = frozenset({"APP_UNKNOWN", "ENDPOINT_UNKNOWN"})
_AT_ONCE: Final = 64
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0

_log: Any = structlog.get_logger("syftmesh.serving")

RightCheck = Callable[[IncomingCall], Awaitable[None]]
"""Return when the caller may call the endpoint; PermissionDenied when not, Unavailable when unknown."""

T = TypeVar("T")

Finished = Callable[[OutReply], None]


class CallWorker:
    """Handles calls, each once.

    Calls begin in the order in which they are given; those of one sender thus start in order, and a slow one
    delays no other, up to 64 at once.

    Args:
        inbox: Where claims, effects and replies are committed.
        seal: Seals replies.
        apps: Handlers by app, ``*`` for every other.
        right_check: Checks the caller's right.
        clock: Wall time.
        random: Source of correlation ids.
        finished: Told of each committed reply.
    """

    def __init__(
        self,
        inbox: Inbox,
        seal: CallSeal,
        apps: Mapping[str, AppHandler],
        right_check: RightCheck,
        clock: Clock,
        random: Random,
        finished: Finished,
    ) -> None:
        self._inbox = inbox
        self._seal = seal
        self._apps = apps
        self._right_check = right_check
        self._clock = clock
        self._random = random
        self._finished = finished
        self._permits = asyncio.Semaphore(_AT_ONCE)
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run handlers in `tasks`."""
        self._tasks = tasks

    def begin(self, call: IncomingCall, *, was_running: bool) -> None:
        """Handle a call that is in the inbox; one that waits when the site stops is handled at its next."""
        if self._tasks is None or self._draining.is_set():
            return
        task = self._tasks.create_task(self._work(call, was_running=was_running))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self) -> None:
        """Return when the handlers that run are done; none begins any more."""
        self._draining.set()
        if self._running:
            await asyncio.wait(self._running)

    async def _work(self, call: IncomingCall, *, was_running: bool) -> None:
        async with self._permits:
            try:
                await self._end(call, was_running=was_running)
            except _Stopped:
                return  # it is in the inbox, for the next start
            except WrongState:
                return  # it has its reply already
            except Exception:  # noqa: BLE001 - a consumer loop: one call's fault must not end the others
                _log.exception("call.failed", call_id=call.call_id)

    async def _end(self, call: IncomingCall, *, was_running: bool) -> None:
        refused = await self._patiently(call, lambda: self._refused(call))
        handler = self._apps.get(call.app) or self._apps.get(ANY_APP)
        if refused is not None:
            await self._commit(call, lambda: refused)
        elif handler is None:
            await self._fail(call, "APP_UNKNOWN", pb.CALL_STATE_NOT_FOUND)
        elif was_running and not getattr(handler, "idempotent", False):
            await self._fail(call, INTERRUPTED)
        else:
            await self._handle(call, handler)

    async def _refused(self, call: IncomingCall) -> OutReply | None:
        if call.expires_ms <= self._clock.now_ms():
            return _failed(call, "CALL_EXPIRED")
        try:
            await self._right_check(call)
        except (Unavailable, DeadlineExceeded):
            raise
        except MeshError as error:
            # Rules that do not verify grant nothing either.
            _log.warning("call.right_refused", call_id=call.call_id, reason=error.reason)
            return _failed(call, "PERMISSION_DENIED", pb.CALL_STATE_REJECTED)
        return None

    async def _handle(self, call: IncomingCall, handler: AppHandler) -> None:
        await asyncio.to_thread(self._inbox.start, call.call_id)
        tx = Transaction()
        try:
            async with asyncio.timeout(max(0.001, (call.expires_ms - self._clock.now_ms()) / 1000)):
                content = await handler.handle(call, tx)
            if not isinstance(content, ReplyContent):
                raise TypeError(f"a handler returned {type(content).__name__}, not ReplyContent")
        except Exception as error:  # noqa: BLE001 - a reply always exists; what went wrong stays in the log
            if isinstance(error, NotFound) and error.reason in _UNSERVED:
                await self._fail(call, error.reason, pb.CALL_STATE_NOT_FOUND)
                return
            content, tx = problem_content(self._shown(call, error)), Transaction()
        await self._reply(call, content, tx)

    async def _reply(self, call: IncomingCall, content: ReplyContent, tx: Transaction) -> None:
        try:
            reader = await self._patiently(call, lambda: self._seal.reply_reader(call))
        except MeshError as error:
            _log.warning("call.reply_refused", call_id=call.call_id, reason=error.reason)
            await self._fail(call, "SEAL_INVALID")
            return

        def sealed(answer: ReplyContent) -> OutReply:
            body = self._seal.seal_reply(call, answer, reader)
            return OutReply(call.call_id, pb.CALL_STATE_COMPLETED, body)

        try:
            await self._commit(call, lambda: sealed(tx.content(content)), tx.effects)
        except Exception as error:
            if isinstance(error, WrongState) and error.reason == "CALL_FINAL":
                raise
            shown = problem_content(self._shown(call, error))
            await self._commit(call, lambda: sealed(shown))

    async def _fail(
        self, call: IncomingCall, reason: str, state: pb.CallState.ValueType = pb.CALL_STATE_FAILED
    ) -> None:
        await self._commit(call, lambda: _failed(call, reason, state))

    async def _commit(self, call: IncomingCall, end: End, effects: Sequence[Effect] = ()) -> None:
        self._finished(await asyncio.to_thread(self._inbox.finish, call.call_id, end, effects))

    async def _patiently(self, call: IncomingCall, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what `ask` gives, again and again while it cannot be looked up: the call is durable."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except (Unavailable, DeadlineExceeded) as error:
                _log.info("call.postponed", call_id=call.call_id, reason=error.reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._draining.wait()
            if self._draining.is_set():
                raise _Stopped
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _shown(self, call: IncomingCall, error: Exception) -> MeshError:
        """Return what the caller is told of an exception of a handler."""
        if isinstance(error, LimitExceeded) and error.reason == "BODY_TOO_LARGE":
            return LimitExceeded(
                "The reply is larger than a call carries: the app should write a file instead.",
                reason="REPLY_TOO_LARGE",
            )
        if isinstance(error, MeshError):
            return error
        if isinstance(error, TimeoutError) and call.expires_ms <= self._clock.now_ms():
            return DeadlineExceeded("The call expired while the site worked on it.", reason="CALL_EXPIRED")
        error_id = uuid7(self._clock, self._random)
        _log.error("handler.failed", call_id=call.call_id, error_id=error_id, exc_info=error)
        return Internal(
            f"The app failed. Its owner finds the details in the site's log under {error_id}.",
            metadata={"error_id": error_id},
        )


class _Stopped(Exception):
    pass


def _failed(
    call: IncomingCall, reason: str, state: pb.CallState.ValueType = pb.CALL_STATE_FAILED
) -> OutReply:
    return OutReply(call.call_id, state, failure_reason=reason)
