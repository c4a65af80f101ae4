"""Binding a gRPC server: to a port, or to a Unix socket that only its owner can open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import grpc
from syftmesh_core.errors import Unavailable

from syftmesh_kit.address import UNIX, grpc_target


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Bind `server` and return what clients dial.

    Args:
        server: The server, not started yet.
        address: ``host:port`` (port 0 picks a free one) or ``unix:<path>`` (mode 0600, its folder is made).
        credentials: For TLS; None is plaintext.

    Raises:
        Unavailable: The address cannot be bound (PORT_IN_USE).
    """
    target = grpc_target(address)
    busy = Unavailable(
        f"The address {address} is in use. Stop the other process or choose another.",
        reason="PORT_IN_USE",
        metadata={"address": address},
    )
    is_unix = target.startswith(UNIX)
    try:
        with _private_umask() if is_unix else nullcontext():
            if is_unix:
                Path(target.removeprefix(UNIX)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if credentials is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, credentials)
    except RuntimeError as error:
        raise busy from error
    if port == 0:
        raise busy
    return target if is_unix else f"{target.rpartition(':')[0]}:{port}"


@contextmanager
def _private_umask() -> Iterator[None]:
    old = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(old)
