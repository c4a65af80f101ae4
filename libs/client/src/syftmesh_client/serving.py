"""The site's side of calls: one `Serve` stream, each call opened and handled once, replies until accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import DeadlineExceeded, MeshError, PermissionDenied, Unauthenticated, Unavailable

from syftmesh_client.call import CallSession
from syftmesh_client.call_seal import CallSeal, Devices
from syftmesh_client.call_worker import CallWorker, RightCheck
from syftmesh_client.inbox import Inbox
from syftmesh_client.incoming import AppHandler, IncomingCall, OutReply, Transaction
from syftmesh_client.keystore import KeyStore
from syftmesh_client.traffic import Traffic, TrafficKind

__all__ = ["AppHandler", "IncomingCall", "Refusal", "RightCheck", "ServingLoop", "Transaction"]

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_RETURN_S: Final = 30.0
_RETURN_PAUSE_S: Final = 0.5
"""A hub that was there is most likely being restarted: so long it is looked for at these pauses at most."""
_RESEND_S: Final = 10.0
_FLUSH_S: Final = 1.0
_PURGE_S: Final = 3600.0
_OPENING_AT_ONCE: Final = 64
_REFUSALS: Final = 3
"""Refusals in a row, without a stream in between, that are believed: a token may just be ending."""

_log: Any = structlog.get_logger("syftmesh.serving")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A body that was refused before any handler saw it, for the audit.

    Attributes:
        call_id: As the envelope says.
        sender: As the envelope says; not proven.
        url: As the envelope says.
        reason: What was wrong, in full; the caller is told less.
    """

    call_id: str
    sender: str
    url: str
    reason: str


Audit = Callable[[Refusal], Awaitable[None]]


class ServingLoop:
    """Serves apps of the own datasite as one device.

    Args:
        session: The hub.
        directory: Verified devices.
        keystore: The own device.
        clock: Time.
        inbox: Calls and replies, durable.
        apps: Handlers by app; ``*`` takes every app that no other device of the site names.
        right_check: Checks the caller's right anew, from signed rules, before a handler runs.
        audit: Told of refused bodies.
        random: Content keys, jitter and ids.
        traffic: Where bytes are counted.
    """

    def __init__(  # noqa: PLR0913 - what a site is made of; the optional ones by keyword
        self,
        session: CallSession,
        directory: Devices,
        keystore: KeyStore,
        clock: Clock,
        inbox: Inbox,
        apps: Mapping[str, AppHandler],
        *,
        right_check: RightCheck,
        audit: Audit | None = None,
        random: Random = system_random,
        traffic: Traffic | None = None,
    ) -> None:
        self._session = session
        self._site = keystore.device.principal
        self._inbox = inbox
        self._apps = apps
        self._clock = clock
        self._random = random
        self._audit = audit
        self._traffic = traffic or Traffic()
        self._seal = CallSeal(keystore, directory, clock, random)
        self._worker = CallWorker(inbox, self._seal, apps, right_check, clock, random, self._finished)
        self._out: asyncio.Queue[rpc.ServeRequest] = asyncio.Queue()
        self._opening: set[str] = set()
        self._permits = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._epoch = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._connected = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the stream to the router is open."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Return when the stream to the router is open."""
        await self._connected.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; reconnects for ever, lets handlers that run finish before it returns.

        Raises:
            MeshError: The hub refuses this device for good (Unauthenticated, PermissionDenied).
        """
        self._epoch = await asyncio.to_thread(self._inbox.highest_epoch)
        failure: MeshError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._worker.start(tasks)
                for found in await asyncio.to_thread(self._inbox.unfinished):
                    self._worker.begin(found.call, was_running=found.was_running)
                keeping = [tasks.create_task(self._stay_connected()), tasks.create_task(self._housekeeping())]
                await stop.wait()
                # Work that was begun is finished and answered while the stream is there; what is not answered
                # then waits in the outbox.
                await self._worker.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_S if self._connected.is_set() else 0):
                        await self._out.join()
                for task in keeping:
                    task.cancel()
        except* MeshError as group:
            failure = _first(group)
        if failure is not None:
            raise failure

    async def _stay_connected(self) -> None:
        pause_s, refused, there_s = _FIRST_PAUSE_S, 0, float("-inf")
        while True:
            started_s = self._clock.monotonic_s()
            try:
                await self._serve_once()
                refused = 0
            except (Unauthenticated, PermissionDenied) as error:
                refused = 0 if self._connected.is_set() else refused + 1
                if refused >= _REFUSALS:
                    raise
                _log.warning("serving.refused_by_hub", reason=error.reason)
            except MeshError as error:
                _log.info("serving.disconnected", reason=error.reason)
            finally:
                if self._connected.is_set():
                    there_s = self._clock.monotonic_s()
                self._connected.clear()
            now_s = self._clock.monotonic_s()
            if now_s - started_s > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s * (0.5 + int.from_bytes(self._random(2), "big") / 131_072))
            pause_s = _longer_pause_s(pause_s, away_s=now_s - there_s)

    async def _serve_once(self) -> None:
        stream = self._session.rpc.Serve()
        self._out = asyncio.Queue()
        hello = rpc.ServeRequest.Hello(site=self._site, apps=sorted(self._apps), highest_epoch=self._epoch)
        failure: MeshError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                with suppress(asyncio.InvalidStateError):  # the stream has ended; its reader says why
                    await stream.write(rpc.ServeRequest(hello=hello))
                writing = tasks.create_task(self._write(stream))
                async for frame in stream:
                    await self._take(frame)
                writing.cancel()
        except* MeshError as group:
            failure = _first(group)
        finally:
            stream.cancel()
        if failure is not None:
            raise failure

    async def _write(self, stream: Any) -> None:
        out = self._out
        while True:
            frame = await out.get()
            self._traffic.add_sent(TrafficKind.MESSAGE, frame.ByteSize())
            try:
                await stream.write(frame)
            except asyncio.InvalidStateError:  # the stream has ended; its reader says why
                return
            out.task_done()

    async def _take(self, frame: rpc.ServeResponse) -> None:
        self._traffic.add_received(TrafficKind.MESSAGE, frame.ByteSize())
        kind = frame.WhichOneof("frame")
        if kind == "welcome":
            await self._see_epoch(frame.welcome.epoch)
            self._connected.set()
            _log.info("serving.connected", site=self._site, epoch=frame.welcome.epoch)
            await self._resend()
        elif kind == "delivery":
            await self._take_delivery(frame.delivery)
        elif kind == "reply_accepted":
            await asyncio.to_thread(self._inbox.settle, frame.reply_accepted.call_id)

    async def _take_delivery(self, delivery: rpc.ServeResponse.Delivery) -> None:
        if delivery.epoch < self._epoch:
            _log.warning("serving.epoch_refused", epoch=delivery.epoch, highest=self._epoch)
            return
        await self._see_epoch(delivery.epoch)
        call_id = delivery.message.envelope.call_id
        if call_id in self._opening or self._tasks is None:
            return
        self._opening.add(call_id)
        await self._permits.acquire()
        # The router sends a sender's next call only after RECEIVED, so opening at once keeps the order. It is
        # no task of the stream: a call that is stored when the stream breaks must begin all the same.
        self._tasks.create_task(self._receive(delivery.message))

    async def _receive(self, message: pb.Message) -> None:
        call_id = message.envelope.call_id
        try:
            known = await asyncio.to_thread(self._inbox.find, call_id)
            if known is not None and known.sender != message.envelope.sender:
                # An answer would end the other sender's call.
                await self._tell_audit(message.envelope, "CALL_ID_REUSED")
                return
            # RECEIVED goes first: it is what the router waits for.
            if known is not None:
                self._received(call_id)
                if known.reply is not None:
                    self._finished(known.reply)
            else:
                await self._open(message)
        except (Unavailable, DeadlineExceeded) as error:
            # Not acknowledged, so the router brings it again.
            _log.info("serving.postponed", call_id=call_id, reason=error.reason)
        except Exception:  # noqa: BLE001 - a consumer loop: not acknowledged either
            _log.exception("serving.failed", call_id=call_id)
        finally:
            self._opening.discard(call_id)
            self._permits.release()

    async def _open(self, message: pb.Message) -> None:
        try:
            call = await self._seal.open_call(message.envelope, message.body)
        except (Unavailable, DeadlineExceeded):
            raise
        except MeshError as error:
            await self._refuse(message.envelope, error)
            return
        fresh = await asyncio.to_thread(self._inbox.accept, call)
        self._received(call.call_id)
        if fresh:
            self._worker.begin(call, was_running=False)

    async def _refuse(self, envelope: pb.Envelope, error: MeshError) -> None:
        shown = error.reason if error.reason == "NO_KEY_FOR_DEVICE" else "SEAL_INVALID"
        reply = OutReply(envelope.call_id, pb.CALL_STATE_FAILED, failure_reason=shown)
        call = _unproven(envelope)
        await self._tell_audit(envelope, error.reason)
        fresh = await asyncio.to_thread(self._inbox.refuse, call, reply)
        self._received(call.call_id)
        if fresh:
            self._finished(reply)

    async def _tell_audit(self, envelope: pb.Envelope, reason: str) -> None:
        call = _unproven(envelope)
        _log.warning("serving.refused", call_id=call.call_id, sender=call.sender, reason=reason)
        if self._audit is not None:
            await self._audit(Refusal(call.call_id, call.sender, str(call.url), reason))

    def _received(self, call_id: str) -> None:
        self._out.put_nowait(rpc.ServeRequest(received=rpc.ServeRequest.Received(call_id=call_id)))

    def _finished(self, reply: OutReply) -> None:
        if not self._connected.is_set():
            return  # it is in the outbox, and goes out with the next stream
        message = pb.Reply(
            call_id=reply.call_id, state=reply.state, body=reply.body, failure_reason=reply.failure_reason
        )
        self._out.put_nowait(rpc.ServeRequest(reply=message))

    async def _see_epoch(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            await asyncio.to_thread(self._inbox.note_epoch, epoch)

    async def _resend(self) -> None:
        for reply in await asyncio.to_thread(self._inbox.unsettled):
            self._finished(reply)

    async def _housekeeping(self) -> None:
        purged_s = float("-inf")
        while True:
            if self._clock.monotonic_s() - purged_s >= _PURGE_S:
                await asyncio.to_thread(self._inbox.purge, self._clock.now_ms())
                purged_s = self._clock.monotonic_s()
            await asyncio.sleep(_RESEND_S)
            if self._connected.is_set():
                await self._resend()


def _longer_pause_s(pause_s: float, *, away_s: float) -> float:
    """Return the pause after one of `pause_s` seconds, where the hub was there `away_s` seconds ago."""
    return min(pause_s * 2, _RETURN_PAUSE_S if away_s < _RETURN_S else _LONGEST_PAUSE_S)


def _unproven(envelope: pb.Envelope) -> IncomingCall:
    """Return what an envelope says, for a call that no handler will see."""
    return IncomingCall(
        call_id=envelope.call_id,
        sender=envelope.sender,
        sender_root=b"",
        sender_device=envelope.sender_device,
        site=envelope.site,
        app=envelope.app,
        endpoint=envelope.endpoint,
        request=RequestContent(),
        expires_ms=envelope.expires_unix_ms,
    )


def _first(group: BaseExceptionGroup[MeshError]) -> MeshError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, MeshError):
        raise TypeError("a group of MeshErrors holds nothing else")
    return error
