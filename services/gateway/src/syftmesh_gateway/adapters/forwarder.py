"""Forwards gRPC calls by domain to the backends, as raw bytes: one address in front of services of their own.

On the wire every kind of call is a stream of messages in either direction: one kind of handler carries all
four. Metadata, deadline, cancellation and the trailing status (``grpc-status-details-bin``) pass through;
tokens are verified by the backends.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from syftmesh_core.errors import Unavailable, Unimplemented
from syftmesh_kit.address import grpc_target
from syftmesh_kit.channel import TRANSPORT_MESSAGE_BYTES
from syftmesh_kit.errors import status_code, trailing_metadata

from syftmesh_gateway.adapters.backend import Backends

_METHOD: Final = re.compile(r"/mesh\.([a-z]+)\.v[0-9]+\.[A-Za-z]+/[A-Za-z]+")
_HOP: Final = frozenset({"content-type", "te", "user-agent", "host"})
_STATUS_DETAILS: Final = "grpc-status-details-bin"
_LONGEST_DEADLINE_S: Final = 10 * 365 * 24 * 3600.0

_OPTIONS: Final = [
    ("grpc.max_send_message_length", TRANSPORT_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
]


class Forwarder(grpc.GenericRpcHandler):
    """A generic handler of every ``/mesh.<domain>.v*`` method.

    Args:
        backends: Channels by domain; whoever made them closes them.
    """

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._handlers: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method; None for what is none of ours, which gRPC answers itself."""
        method = handler_call_details.method
        found = _METHOD.fullmatch(method)
        if found is None:
            return None
        if found[1] not in self._backends.domains:
            return grpc.stream_stream_rpc_method_handler(_refused(found[1]))
        handler = self._handlers.get(method)
        if handler is None:
            handler = grpc.stream_stream_rpc_method_handler(_forward(method, found[1], self._backends))
            if len(self._handlers) < 1024:  # names come from outside
                self._handlers[method] = handler
        return handler


class ForwardServer:
    """The server in front of a `Forwarder`.

    Args:
        forwarder: Handles the calls.
        address: ``host:port`` (port 0 picks a free one) or ``unix:<path>``.
    """

    def __init__(self, forwarder: Forwarder, address: str) -> None:
        self._forwarder = forwarder
        self._address = address
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """The port that was bound."""

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            Unavailable: The address cannot be bound (PORT_IN_USE).
        """
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._forwarder,))
        try:
            self.port = server.add_insecure_port(grpc_target(self._address))
        except RuntimeError as error:
            raise Unavailable(
                f"The address {self._address} is in use. Stop the other process or choose another.",
                reason="PORT_IN_USE",
                metadata={"address": self._address},
            ) from error
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, give the open ones `grace_s` seconds, then end."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)


def _forward(method: str, domain: str, backends: Backends) -> Any:
    async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        channel = backends.channel(domain)
        invoke: Any = channel.stream_stream(method, request_serializer=None, response_deserializer=None)
        call = invoke(
            requests, timeout=_time_left_s(context), metadata=_passed(context.invocation_metadata())
        )
        try:
            await context.send_initial_metadata(_passed(await call.initial_metadata()))
            async for response in call:
                yield response
            context.set_trailing_metadata(_passed(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", _passed(error.trailing_metadata()))
        finally:
            call.cancel()

    return handle


def _refused(domain: str) -> Any:
    error = Unimplemented(f"This hub has no {domain[:40]} service.", metadata={"domain": domain[:40]})

    async def handle(_requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(status_code(error), error.message, trailing_metadata(error))
        yield b""  # never reached: makes this a generator

    return handle


def _passed(metadata: Iterable[tuple[str, Any]] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if key == _STATUS_DETAILS or not (key.startswith((":", "grpc-")) or key in _HOP)
    )


def _time_left_s(context: Any) -> float | None:
    left_s = context.time_remaining()
    return None if left_s is None or left_s > _LONGEST_DEADLINE_S else max(0.0, float(left_s))
