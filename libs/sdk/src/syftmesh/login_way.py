"""What comes before a login by a person: the ways that a hub offers, and the code that it sends."""

from __future__ import annotations

from pathlib import Path

import grpc
from syftmesh_client.login_code import LoginMethods, login_methods
from syftmesh_client.login_code import request_code as ask_for_code
from syftmesh_client.profile import ProfileStore, default_state
from syftmesh_core.principal import normalise_principal

from syftmesh.connection import FoundHub, find_hub
from syftmesh.portal import Portal


def request_code(
    server: str | None = None,
    *,
    email: str,
    ca_file: Path | str | None = None,
    state: Path | str | None = None,
) -> str:
    """Have a login code sent to `email`, for the argument `code` of `login`; a new code ends the one before it.

    Args:
        server: As `login`.
        email: Who.
        ca_file: As `login`; nothing is kept.
        state: As `login`.

    Returns:
        The address of the hub that sends it.

    Raises:
        WrongState: The hub sends no mail (CODE_LOGIN_DISABLED).
        LimitExceeded: TOO_MANY_CODES; metadata `retry_after_ms` says when there is one again.
        Unavailable: The hub does not answer, or its mail server does not (MAIL_AWAY).
        MeshError: As `login`.
    """
    portal = Portal()
    try:
        return portal.run(request_code_async(server, email=email, ca_file=ca_file, state=state))
    finally:
        portal.close()


async def request_code_async(
    server: str | None = None,
    *,
    email: str,
    ca_file: Path | str | None = None,
    state: Path | str | None = None,
) -> str:
    """Have a login code sent; as `request_code`."""
    name = normalise_principal(email)
    hub, tls = await _reached(server, name, ca_file, state)
    await ask_for_code(hub.said.grpc_address, principal=name, tls=tls)
    return hub.address


def ways_in(
    server: str | None = None,
    *,
    email: str,
    ca_file: Path | str | None = None,
    state: Path | str | None = None,
) -> LoginMethods:
    """Return how one can log in at the hub; arguments and errors as `request_code`."""
    portal = Portal()
    try:
        return portal.run(ways_in_async(server, email=email, ca_file=ca_file, state=state))
    finally:
        portal.close()


async def ways_in_async(
    server: str | None = None,
    *,
    email: str,
    ca_file: Path | str | None = None,
    state: Path | str | None = None,
) -> LoginMethods:
    """Return how one can log in at the hub; as `ways_in`."""
    hub, tls = await _reached(server, normalise_principal(email), ca_file, state)
    return await login_methods(hub.said.grpc_address, tls=tls)


async def _reached(
    server: str | None, name: str, ca_file: Path | str | None, state: Path | str | None
) -> tuple[FoundHub, grpc.ChannelCredentials | None]:
    base = Path(state).expanduser().absolute() if state is not None else default_state()
    hub = await find_hub(server, ProfileStore(base), name, ca_file, base)
    if not hub.said.grpc_tls:
        return hub, None
    await hub.trust.prove(hub.said.grpc_address, hub.address)
    return hub, hub.trust.credentials()
