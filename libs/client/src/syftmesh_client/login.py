"""Logins that need no token yet: with the local token of the embedded mesh, or with a join token."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from mesh.identity.v1 import identity_pb2
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as grpc_api
from syftmesh_core.errors import NotFound, Unauthenticated
from syftmesh_kit.channel import open_channel

from syftmesh_client.token_file import StoredTokens
from syftmesh_client.token_source import Relogin

_TIMEOUT_S: Final = 10.0
_MAX_TOKEN_BYTES: Final = 4096


async def login_local(
    address: str,
    *,
    local_token: str,
    principal: str,
    device_id: str,
    label: str,
    tls: grpc.ChannelCredentials | None = None,
) -> StoredTokens:
    """Log in on an embedded mesh and return the tokens; give them to `TokenSource.store`.

    Args:
        address: gRPC address of the hub.
        local_token: Content of the mesh's ``local.token``.
        principal: The e-mail to log in as, normalised.
        device_id: Id of the device's keys.
        label: ``profile``, ``agent`` or ``runner``.
        tls: As `session.HubSession`.

    Raises:
        Unauthenticated: LOCAL_TOKEN_INVALID.
        WrongState: LOCAL_LOGIN_DISABLED.
        InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID.
        PermissionDenied: DEVICE_REVOKED.
        AlreadyExists: DEVICE_OF_ANOTHER.
        Unavailable: The hub does not answer.
    """
    request = rpc.LoginLocalRequest(
        local_token=local_token, principal=principal, device_id=device_id, label=label
    )
    async with identity_stub(address, tls) as stub:
        answer = await stub.LoginLocal(request, timeout=_TIMEOUT_S)
    return stored_tokens(answer.tokens, principal, device_id)


async def redeem_join_token(
    address: str,
    *,
    secret: str,
    principal: str,
    device_id: str,
    tls: grpc.ChannelCredentials | None = None,
) -> StoredTokens:
    """Join with a token that works once, and return the device's first tokens.

    Raises:
        Unauthenticated: JOIN_TOKEN_INVALID.
        InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID.
        PermissionDenied: DEVICE_REVOKED.
        AlreadyExists: DEVICE_OF_ANOTHER.
        Unavailable: The hub does not answer; whether the token was used is not known.
    """
    # The same at every try of this device, also after a restart: an answer that was lost can be had again.
    retry_id = hashlib.sha256(f"join-retry\0{device_id}\0{secret}".encode()).hexdigest()
    request = rpc.RedeemJoinTokenRequest(
        secret=secret, principal=principal, device_id=device_id, retry_id=retry_id
    )
    async with identity_stub(address, tls) as stub:
        try:
            answer = await stub.RedeemJoinToken(request, timeout=_TIMEOUT_S)
        except Unauthenticated as error:
            error.hint = error.hint or f"Ask the hub's operator for a new join token for {principal}."
            raise
    return stored_tokens(answer.tokens, principal, device_id)


def local_relogin(
    address: str, *, local_token_file: Path, principal: str, device_id: str, label: str
) -> Relogin:
    """Return how a device of the embedded mesh logs in anew by itself: with the local token as it is then.

    The returned function raises as `login_local`, and NotFound (LOCAL_TOKEN_MISSING) without the file.
    """

    async def log_in() -> StoredTokens:
        token = await asyncio.to_thread(read_local_token, local_token_file)
        return await login_local(
            address, local_token=token, principal=principal, device_id=device_id, label=label
        )

    return log_in


def read_local_token(path: Path) -> str:
    """Return the local token of an embedded mesh.

    Raises:
        NotFound: There is none that this user can read (LOCAL_TOKEN_MISSING).
    """
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(
            "The local token of the mesh cannot be read. Is the mesh up, and is it yours?",
            reason="LOCAL_TOKEN_MISSING",
            hint="syftmesh up",
        ) from error


def stored_tokens(pair: identity_pb2.TokenPair, principal: str, device_id: str) -> StoredTokens:
    """Return a pair from the hub as it is kept."""
    return StoredTokens(
        principal=principal,
        device_id=device_id,
        access_token=pair.access_token,
        access_expires_ms=_unix_ms(pair.access_expires_at),
        refresh_token=pair.refresh_token,
        refresh_expires_ms=_unix_ms(pair.refresh_expires_at),
    )


@asynccontextmanager
async def identity_stub(
    address: str, tls: grpc.ChannelCredentials | None
) -> AsyncIterator[grpc_api.IdentityServiceAsyncStub]:
    """Open a stub of the identity service without a token, for the block."""
    channel = open_channel(address, tls=tls)
    try:
        yield grpc_api.IdentityServiceStub(channel)
    finally:
        await channel.close()


def _unix_ms(at: Timestamp) -> int:
    return at.seconds * 1000 + at.nanos // 1_000_000
