"""Calls of the identity service by a login, or by the hub's operator at its socket, where that is named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from syftmesh_core.errors import MeshError, NotFound

from syftmesh.cli.device import on_device
from syftmesh.cli.frame import Frame

ADMIN_SOCKET_VARIABLE: Final = "SYFTMESH_ADMIN_SOCKET"
PAGE: Final = 200
"""Items asked for at once."""

_STARTING: Final = frozenset({"SERVER_UNREACHABLE", "STARTING", "BUS_UNREACHABLE", "STREAM_MISSING"})
_TRIES: Final = 20
_PAUSE_S: Final = 0.5
"""Ten seconds in all: right after an installation the service binds its socket and declares its state."""

Result = TypeVar("Result")


def admin_socket(frame: Frame) -> Path | None:
    """Return the operator's socket, None where none is named."""
    named = frame.surroundings.environ.get(ADMIN_SOCKET_VARIABLE)
    return Path(named) if named else None


def at_identity(frame: Frame, work: Callable[[Any, str], Awaitable[Result]]) -> Result:
    """Do `work` with a stub of the identity service and one's own e-mail, which an operator has none of.

    Raises:
        NotFound: There is no socket where the environment names one (ADMIN_SOCKET_MISSING).
        MeshError: As `on_device` and `work`.
    """
    place = admin_socket(frame)
    if place is not None:
        return _as_operator(frame, place, work)

    async def as_owner(node: Any) -> Result:
        return await work(node.session.identity, node.principal)

    return on_device(frame, as_owner)


def _as_operator(frame: Frame, place: Path, work: Callable[[Any, str], Awaitable[Result]]) -> Result:
    from syftmesh_kit.address import socket_path

    left = _TRIES
    while True:
        left -= 1
        try:
            if not socket_path(place).exists():
                raise _missing(place)
            return asyncio.run(_call(place, work))
        except MeshError as error:
            if not left or error.reason not in {*_STARTING, "ADMIN_SOCKET_MISSING"}:
                raise
        frame.detail("The identity service is not ready yet.")
        frame.surroundings.sleep(_PAUSE_S)


async def _call(place: Path, work: Callable[[Any, str], Awaitable[Result]]) -> Result:
    from mesh.identity.v1 import identity_service_pb2_grpc as api
    from syftmesh_kit.channel import open_channel

    channel = open_channel(f"unix:{place}")
    try:
        return await work(api.IdentityServiceStub(channel), "")
    finally:
        await channel.close()


def _missing(place: Path) -> NotFound:
    return NotFound(
        f"There is no socket {place}, which {ADMIN_SOCKET_VARIABLE} names. Is that its path, and does the hub's "
        "identity service run here?",
        reason="ADMIN_SOCKET_MISSING",
        metadata={"path": str(place)},
        hint="In a cluster: kubectl exec deploy/RELEASE-identity -c admin -- syftmesh ...; with a login of your own "
        f"instead: unset {ADMIN_SOCKET_VARIABLE}",
    )
