"""One `Serve` stream: hello, then deliveries out and RECEIVED and replies in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import structlog
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from syftmesh_core.errors import InvalidInput, MeshError, PermissionDenied, Unavailable

from syftmesh_router import convert
from syftmesh_router.domain.desk import Desks
from syftmesh_router.domain.dispatch import Requester
from syftmesh_router.domain.ending import Ending
from syftmesh_router.domain.link import AcceptedFrame, OutFrame, StreamLink

_MAX_APPS: Final = 100
_MAX_APP_BYTES: Final = 255
_REPLIES_AT_ONCE: Final = 64

_log: Any = structlog.get_logger("syftmesh.router")


class ServeStream:
    """Runs one stream of an authenticated device.

    Args:
        requester: Whose token opened the stream.
        desks: Devices connected here.
        ending: Takes replies.
    """

    def __init__(self, requester: Requester, desks: Desks, ending: Ending) -> None:
        self._requester = requester
        self._desks = desks
        self._ending = ending
        self._failure: MeshError | None = None

    async def run(self, frames: AsyncIterator[rpc.ServeRequest]) -> AsyncIterator[rpc.ServeResponse]:
        """Yield the frames for the device until it or the router ends the stream.

        Raises:
            PermissionDenied: The site is not the device's own, or a reply is to another site's call.
            InvalidInput: FRAME_INVALID.
            Unavailable: The router ends the stream: connect again.
        """
        hello = await _hello(frames)
        if hello.site != self._requester.principal:
            raise PermissionDenied(
                "A device serves its own datasite only: name your own e-mail.",
                metadata={"site": self._requester.principal},
            )
        link = StreamLink(self._requester.device_id, _apps(hello))
        reading: asyncio.Task[None] | None = None
        try:
            epoch = await self._desks.add(hello.site, link, hello.highest_epoch)
            yield rpc.ServeResponse(welcome=rpc.ServeResponse.Welcome(epoch=epoch))
            reading = asyncio.create_task(self._read(frames, link))
            while (frame := await link.next_frame()) is not None:
                yield _encoded(frame)
            if self._failure is not None:
                raise self._failure
            if not reading.done():
                raise Unavailable("The router ends this stream. Connect again.", reason="STREAM_ENDED")
        finally:
            if reading is not None:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
            await self._desks.remove(hello.site, link)

    async def _read(self, frames: AsyncIterator[rpc.ServeRequest], link: StreamLink) -> None:
        permits = asyncio.Semaphore(_REPLIES_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                async for frame in frames:
                    kind = frame.WhichOneof("frame")
                    if kind == "received":
                        link.received(frame.received.call_id)
                    elif kind == "reply":
                        await permits.acquire()
                        tasks.create_task(self._take(frame.reply, link, permits))
                    else:
                        raise InvalidInput("After hello come received and reply.", reason="FRAME_INVALID")
        except* MeshError as group:
            self._failure = _first(group)
        finally:
            link.close()

    async def _take(self, message: pb.Reply, link: StreamLink, permits: asyncio.Semaphore) -> None:
        me = self._requester
        try:
            reply = convert.reply_of(message, replier=me.principal, replier_device=me.device_id)
            state = await self._ending.by_site(me.principal, reply)
            link.accepted(reply.call_id, state)
        except Unavailable as error:
            # Not accepted, so the device sends it again.
            _log.info("reply.postponed", call_id=message.call_id[:64], reason=error.reason)
        finally:
            permits.release()


async def _hello(frames: AsyncIterator[rpc.ServeRequest]) -> rpc.ServeRequest.Hello:
    async for frame in frames:
        if frame.WhichOneof("frame") == "hello":
            return frame.hello
        break
    raise InvalidInput("The first frame is hello.", reason="FRAME_INVALID")


def _apps(hello: rpc.ServeRequest.Hello) -> frozenset[str]:
    apps = frozenset(hello.apps)
    if not 0 < len(apps) <= _MAX_APPS or any(not 0 < len(app.encode()) <= _MAX_APP_BYTES for app in apps):
        raise InvalidInput(
            f"Hello names 1 to {_MAX_APPS} apps, each of 1 to {_MAX_APP_BYTES} bytes.", reason="FRAME_INVALID"
        )
    return apps


def _encoded(frame: OutFrame) -> rpc.ServeResponse:
    if isinstance(frame, AcceptedFrame):
        accepted = rpc.ServeResponse.ReplyAccepted(
            call_id=frame.call_id, state=convert.state_value(frame.state)
        )
        return rpc.ServeResponse(reply_accepted=accepted)
    delivery = rpc.ServeResponse.Delivery(
        message=convert.message_of(frame.message), epoch=frame.epoch, attempt=frame.attempt
    )
    return rpc.ServeResponse(delivery=delivery)


def _first(group: BaseExceptionGroup[MeshError]) -> MeshError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, MeshError):
        raise TypeError("a group of MeshErrors holds nothing else")
    return error
