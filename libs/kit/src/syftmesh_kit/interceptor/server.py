"""The server's interceptor: every handler runs inside one `CallScope`.

Handlers are coroutines and async generators; streaming handlers read the request iterator they are given.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from syftmesh_core.clock import Clock, Random, SystemClock, system_random
from syftmesh_core.errors import InvalidInput, MeshError

from syftmesh_kit.caller import Caller
from syftmesh_kit.errors import message_too_large
from syftmesh_kit.interceptor.call import CallScope, Pipeline
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.token import TokenVerifier

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

PUBLIC_METHODS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""Methods of the infrastructure that need no token; a service adds its own by full name."""

_Handler = Callable[[Any, Any], Any]
_Decoder = Callable[[bytes], "tuple[Any, int] | MeshError"]


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Errors, tokens, trace, metrics, sizes and the canonical log line ``rpc.handled`` of each RPC.

    Args:
        verifier: Verifies the ``authorization: Bearer`` metadata. None refuses every method that is not
            public.
        public_methods: Full names (``/mesh.identity.v1.IdentityService/GetKeySet``) that need no token,
            besides `PUBLIC_METHODS`. A valid token is attached there too, a bad one ignored.
        metrics: Where RPCs are counted.
        clock: Time for durations.
        random: Randomness for ids.
        limit_bytes: Largest message in either direction, in bytes.
        peers: Names of which the certificate of whoever connects must bear one; empty: no such check.
        caller: Who every call counts as, for a server that only one caller can reach; no token is asked for then.
    """

    def __init__(
        self,
        *,
        verifier: TokenVerifier | None,
        metrics: RpcMetrics,
        public_methods: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        random: Random = system_random,
        limit_bytes: int = MAX_MESSAGE_BYTES,
        peers: frozenset[str] = frozenset(),
        caller: Caller | None = None,
    ) -> None:
        self._public = PUBLIC_METHODS | public_methods
        self._pipeline = Pipeline(
            verifier=verifier,
            metrics=metrics,
            clock=clock or SystemClock(),
            random=random,
            limit_bytes=limit_bytes,
            peers=peers,
            caller=caller,
        )
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Return the wrapped handler of the method; built once per method, unknown methods are not kept."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        decode = sized(handler.request_deserializer, self._pipeline.limit_bytes)
        encode = handler.response_serializer
        scope = _Scopes(self._pipeline, method, public=method in self._public)
        if handler.unary_unary:
            unary = _unary(handler.unary_unary, scope, encode)
            return grpc.unary_unary_rpc_method_handler(unary, decode, None)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _unary(handler.stream_unary, scope, encode, stream=True), decode, None
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream, scope, encode), decode, _lenient(encode)
            )
        return grpc.stream_stream_rpc_method_handler(
            _stream(handler.stream_stream, scope, encode, stream=True), decode, _lenient(encode)
        )


class _Scopes:
    """Makes the scopes of one method."""

    def __init__(self, pipeline: Pipeline, method: str, *, public: bool) -> None:
        self._pipeline = pipeline
        self._method = method
        self._public = public

    def __call__(self, context: Any) -> CallScope:
        return CallScope(self._pipeline, self._method, context, public=self._public)


def sized(deserializer: Any, limit_bytes: int) -> _Decoder:
    """Return a deserializer that gives (message, size), or the error to raise inside the handler.

    Raising in the deserializer itself would leave the status to gRPC (UNKNOWN, with our exception's text).
    """

    def decode(raw: bytes) -> tuple[Any, int] | MeshError:
        if len(raw) > limit_bytes:
            return message_too_large(len(raw), limit_bytes)
        try:
            return (deserializer(raw) if deserializer is not None else raw), len(raw)
        except DecodeError:
            return InvalidInput(
                "The request is not a message of this method's type.", reason="MESSAGE_MALFORMED"
            )

    return decode


def _lenient(encode: Any) -> Callable[[Any], bytes]:
    # Handlers of the health service write messages through the context; ours yield and are encoded already.
    def serialize(message: Any) -> bytes:
        raw: bytes = message if type(message) is bytes or encode is None else encode(message)
        return raw

    return serialize


def _unary(behaviour: _Handler, scope: _Scopes, encode: Any, *, stream: bool = False) -> _Handler:
    encode = encode or bytes

    async def handle(request: Any, context: Any) -> bytes:
        async with scope(context) as call:
            message = _requests(call, request) if stream else call.take(request)
            return call.give(encode(await behaviour(message, context)))
        raise AssertionError("a scope ends by returning or by aborting")

    return handle


def _stream(behaviour: _Handler, scope: _Scopes, encode: Any, *, stream: bool = False) -> _Handler:
    encode = encode or bytes

    async def handle(request: Any, context: Any) -> AsyncIterator[bytes]:
        async with scope(context) as call:
            message = _requests(call, request) if stream else call.take(request)
            responses = behaviour(message, context)
            if inspect.isawaitable(responses):
                await responses
                return
            async for response in responses:
                raw = call.give(encode(response))
                call.begin_write()
                yield raw
                call.end_write()

    return handle


async def _requests(call: CallScope, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield call.take(request)
