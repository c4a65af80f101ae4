"""`mesh.rpc.v1.RpcService`: decode, one use case, encode."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated base class

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn

import grpc
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1 import rpc_service_pb2_grpc as grpc_api
from syftmesh_core.errors import Unimplemented
from syftmesh_kit.caller import current_caller

from syftmesh_router import convert
from syftmesh_router.domain.desk import Desks
from syftmesh_router.domain.dispatch import Dispatch, Requester
from syftmesh_router.domain.ending import Ending
from syftmesh_router.servicer.connect_stream import ConnectStream
from syftmesh_router.servicer.serve_stream import ServeStream

SERVICE: Final = "mesh.rpc.v1.RpcService"
_LONGEST_WAIT_S: Final = 60.0
_ANSWER_S: Final = 0.05
"""Taken off a deadline, so that ours answers with a reason before the transport ends the call."""


class RpcServicer(grpc_api.RpcServiceServicer):
    """The router's API.

    Args:
        dispatch: Takes calls and gives their ends.
        desks: Devices connected here.
        ending: Takes replies.
    """

    def __init__(self, dispatch: Dispatch, desks: Desks, ending: Ending) -> None:
        self._dispatch = dispatch
        self._desks = desks
        self._ending = ending

    async def Call(self, request: rpc.CallRequest, context: Any) -> rpc.CallResponse:
        """Deliver a call and wait for its end."""
        requester, message = _requester(), convert.call_of(request.message)
        await self._dispatch.accept(requester, message, store=False)
        reply = await self._dispatch.end(requester, message.envelope.call_id, _left_s(context))
        return rpc.CallResponse(reply=convert.reply_message(reply))

    async def Send(self, request: rpc.SendRequest, context: Any) -> rpc.SendResponse:
        """Store a call durably."""
        message = convert.call_of(request.message)
        state = await self._dispatch.accept(_requester(), message, store=True)
        return rpc.SendResponse(call_id=message.envelope.call_id, state=convert.state_value(state))

    async def AwaitReply(self, request: rpc.AwaitReplyRequest, context: Any) -> rpc.AwaitReplyResponse:
        """Wait for the end of a call."""
        reply = await self._dispatch.end(_requester(), request.call_id, _left_s(context))
        return rpc.AwaitReplyResponse(reply=convert.reply_message(reply))

    async def GetReply(self, request: rpc.GetReplyRequest, context: Any) -> rpc.GetReplyResponse:
        """Tell where a call is."""
        state, reply = await self._dispatch.look(_requester(), request.call_id)
        return rpc.GetReplyResponse(
            state=convert.state_value(state),
            reply=convert.reply_message(reply) if reply is not None else None,
        )

    async def Serve(
        self,
        request_iterator: AsyncIterator[rpc.ServeRequest],
        context: Any,
    ) -> AsyncIterator[rpc.ServeResponse]:
        """Give a device the calls to its site."""
        stream = ServeStream(_requester(), self._desks, self._ending)
        async for frame in stream.run(request_iterator):
            yield frame

    async def Connect(
        self,
        request_iterator: AsyncIterator[rpc.ConnectRequest],
        context: Any,
    ) -> AsyncIterator[rpc.ConnectResponse]:
        """Take many calls of one SDK."""
        stream = ConnectStream(_requester(), self._dispatch)
        async for frame in stream.run(request_iterator):
            yield frame

    async def CancelCall(self, request: rpc.CancelCallRequest, context: Any) -> rpc.CancelCallResponse:
        """Not built yet."""
        _unimplemented("Withdrawing a call")

    async def Publish(self, request: rpc.PublishRequest, context: Any) -> rpc.PublishResponse:
        """Not built yet."""
        _unimplemented("Publishing an event")

    async def Broadcast(
        self,
        request: rpc.BroadcastRequest,
        context: Any,
    ) -> AsyncIterator[rpc.BroadcastResponse]:
        """Not built yet."""
        _unimplemented("Broadcasting a call")
        yield rpc.BroadcastResponse()

    async def Subscribe(
        self,
        request: rpc.SubscribeRequest,
        context: Any,
    ) -> AsyncIterator[rpc.SubscribeResponse]:
        """Not built yet."""
        _unimplemented("Subscribing to events")
        yield rpc.SubscribeResponse()


def _requester() -> Requester:
    caller = current_caller()
    return Requester(caller.principal, caller.device_id)


def _left_s(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    left_s = context.time_remaining()
    return _LONGEST_WAIT_S if left_s is None else max(0.0, left_s - _ANSWER_S)


def _unimplemented(what: str) -> NoReturn:
    raise Unimplemented(f"{what} comes with complete RPC: this version of the hub delivers calls only.")
