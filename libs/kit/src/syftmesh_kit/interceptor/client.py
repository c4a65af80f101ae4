"""The channel's interceptors: token and traceparent go out, MeshError classes come back.

One class per kind of call, because `grpc.aio` registers an interceptor for the first kind it is an instance
of.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from syftmesh_kit.errors import from_rpc_error
from syftmesh_kit.interceptor.call import AUTHORIZATION
from syftmesh_kit.trace import TRACEPARENT, current_traceparent

TokenProvider = Callable[[], Awaitable[str]]
"""Returns an access token that is valid now (refreshing it when needed), or an empty text for none."""


class _Outgoing:
    """Adds ``authorization`` and ``traceparent``.

    gRPC refuses per-call credentials on a plaintext channel, also on loopback: hence metadata.
    """

    def __init__(self, token_provider: TokenProvider | None) -> None:
        self._token_provider = token_provider

    async def details(self, details: Any) -> Any:
        """Return `details` with the metadata added; what the caller set itself stays."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        traceparent = current_traceparent()
        if traceparent and metadata.get(TRACEPARENT) is None:
            metadata.add(TRACEPARENT, traceparent)
        if self._token_provider is not None and metadata.get(AUTHORIZATION) is None:
            token = await self._token_provider()
            if token:
                metadata.add(AUTHORIZATION, f"Bearer {token}")
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )

    async def unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Make a call with one response and return it answered."""
        call = await continuation(await self.details(details), request)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return call

    async def stream(self, continuation: Any, details: Any, request: Any) -> AsyncIterator[Any]:
        """Make a call with a stream of responses and return their iterator."""
        return _translated(await continuation(await self.details(details), request))


async def _translated(call: Any) -> AsyncIterator[Any]:
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._outgoing.unary(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._outgoing.unary(continuation, client_call_details, request_iterator)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._outgoing.stream(continuation, client_call_details, request)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._outgoing.stream(continuation, client_call_details, request_iterator)


def client_interceptors(token_provider: TokenProvider | None) -> list[Any]:
    """Return the interceptors of a channel: token, traceparent, and MeshError instead of AioRpcError."""
    outgoing = _Outgoing(token_provider)
    return [_UnaryUnary(outgoing), _StreamUnary(outgoing), _UnaryStream(outgoing), _StreamStream(outgoing)]
