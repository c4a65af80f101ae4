"""Client channels to SyftMesh services."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import grpc

from syftmesh_kit.address import grpc_target
from syftmesh_kit.interceptor import TokenProvider, client_interceptors

TRANSPORT_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""gRPC's own limit, above ours of 4 MiB, so that ours answers with a reason."""

_KEEPALIVE: Final = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def channel_options(idempotent_methods: Iterable[str] = ()) -> list[tuple[str, Any]]:
    """Return the channel options of the product.

    Args:
        idempotent_methods: Full names (``/package.Service/Method``, or ``/package.Service/*`` for all) that
            gRPC tries again, up to 4 times within the deadline, when the answer is UNAVAILABLE.
    """
    names = []
    for method in idempotent_methods:
        service, _, name = method.strip("/").partition("/")
        names.append({"service": service} if name == "*" else {"service": service, "method": name})
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", TRANSPORT_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
        # Reconnect quickly: services of one hub restart within seconds.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", 1),
        *_KEEPALIVE,
    ]
    if names:
        policy = {
            "maxAttempts": 4,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        options.append(
            ("grpc.service_config", json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]}))
        )
    return options


def open_channel(
    address: str,
    *,
    token_provider: TokenProvider | None = None,
    tls: grpc.ChannelCredentials | None = None,
    idempotent_methods: Iterable[str] = (),
) -> grpc.aio.Channel:
    """Return a channel to `address`; it connects with the first call and reconnects for ever.

    Calls through it raise `MeshError` classes instead of `AioRpcError`, carry the current traceparent and,
    with `token_provider`, an access token. Close it with ``await channel.close()``.

    Args:
        address: ``host:port`` or ``unix:<path>`` (the path the server was given, see `address.socket_path`).
        token_provider: Called before each call.
        tls: From `grpc.ssl_channel_credentials`; None is plaintext (loopback and Unix sockets).
        idempotent_methods: See `channel_options`.
    """
    options = channel_options(idempotent_methods)
    interceptors = client_interceptors(token_provider)
    target = grpc_target(address)
    if tls is not None:
        return grpc.aio.secure_channel(target, tls, options=options, interceptors=interceptors)
    return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
