"""One `Connect` stream: many calls of one SDK in, their ends out as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from mesh.rpc.v1 import rpc_service_pb2 as rpc
from syftmesh_core.errors import DeadlineExceeded, InvalidInput, MeshError

from syftmesh_router import convert
from syftmesh_router.domain.dispatch import Dispatch, Requester

_OPEN_AT_ONCE: Final = 1024
_WAIT_S: Final = 3600.0


class ConnectStream:
    """Runs one stream of an authenticated caller.

    Args:
        requester: Whose token opened the stream.
        dispatch: Takes calls and gives their ends.
    """

    def __init__(self, requester: Requester, dispatch: Dispatch) -> None:
        self._requester = requester
        self._dispatch = dispatch
        self._out: asyncio.Queue[rpc.ConnectResponse | None] = asyncio.Queue()
        self._taking: dict[str, asyncio.Event] = {}
        self._failure: MeshError | None = None

    async def run(self, frames: AsyncIterator[rpc.ConnectRequest]) -> AsyncIterator[rpc.ConnectResponse]:
        """Yield a reply or a refusal per call; ends when the caller has ended its side and all are answered.

        Raises:
            InvalidInput: FRAME_INVALID.
        """
        reading = asyncio.create_task(self._read(frames))
        try:
            while (frame := await self._out.get()) is not None:
                yield frame
            await reading
            if self._failure is not None:
                raise self._failure
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _read(self, frames: AsyncIterator[rpc.ConnectRequest]) -> None:
        permits = asyncio.Semaphore(_OPEN_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                async for frame in frames:
                    kind = frame.WhichOneof("frame")
                    if kind is None:
                        raise InvalidInput("A frame is a call or the id of one.", reason="FRAME_INVALID")
                    await permits.acquire()
                    # Tasks start in the order in which they are made, and calls are taken in that order.
                    work = self._call(frame) if kind == "call" else self._ask(frame.await_call_id)
                    tasks.create_task(work).add_done_callback(lambda _: permits.release())
        except* MeshError as group:
            self._failure = next(error for error in group.exceptions if isinstance(error, MeshError))
        finally:
            self._out.put_nowait(None)

    async def _call(self, frame: rpc.ConnectRequest) -> None:
        call_id = frame.call.envelope.call_id
        taking = self._taking[call_id] = asyncio.Event()
        try:
            message = convert.call_of(frame.call)
            await self._dispatch.accept(self._requester, message, store=False)
        except MeshError as error:
            self._refuse(call_id, error)
            return
        finally:
            self._taking.pop(call_id, None)
            taking.set()
        await self._await(call_id)

    async def _ask(self, call_id: str) -> None:
        # A call that came before it on this stream may not be written down yet.
        taking = self._taking.get(call_id)
        if taking is not None:
            await taking.wait()
        await self._await(call_id)

    async def _await(self, call_id: str) -> None:
        while True:
            try:
                reply = await self._dispatch.end(self._requester, call_id, _WAIT_S)
            except DeadlineExceeded:
                continue
            except MeshError as error:
                self._refuse(call_id, error)
                return
            self._out.put_nowait(rpc.ConnectResponse(reply=convert.reply_message(reply)))
            return

    def _refuse(self, call_id: str, error: MeshError) -> None:
        refusal = rpc.ConnectResponse.Refusal(
            call_id=call_id, code=error.code, reason=error.reason, message=error.message
        )
        self._out.put_nowait(rpc.ConnectResponse(refusal=refusal))
