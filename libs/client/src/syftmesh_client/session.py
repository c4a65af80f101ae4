"""A session with the hub: one channel, typed stubs, tokens that renew themselves, errors that are ours."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self, cast

import grpc
from mesh.crypto.v1 import crypto_service_pb2_grpc as crypto_api
from mesh.federated.v1 import federated_service_pb2_grpc as federated_api
from mesh.identity.v1 import identity_service_pb2 as identity_rpc
from mesh.identity.v1 import identity_service_pb2_grpc as identity_api
from mesh.permissions.v1 import permissions_service_pb2_grpc as permissions_api
from mesh.rpc.v1 import rpc_service_pb2_grpc as rpc_api
from mesh.sync.v1 import sync_service_pb2_grpc as sync_api
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_kit.channel import open_channel

from syftmesh_client.login import stored_tokens
from syftmesh_client.retry import RetryingChannel, RetryPolicy
from syftmesh_client.token_file import StoredTokens
from syftmesh_client.token_source import TokenSource

_REFRESH_TIMEOUT_S: Final = 10.0


class HubSession:
    """Calls of one logged-in device to one hub.

    Every stub raises the classes of `syftmesh_core.errors`. Unary calls have a deadline (30 s unless said),
    idempotent ones are tried again while the hub is away for a moment, and a call whose token was refused is
    made again with a new one. Streams are the caller's to reconnect. A restart of the hub does no harm.

    Args:
        address: gRPC address, ``host:port`` or ``unix:<path>``.
        token_source: The device's tokens; `TokenSource.open` must have been called.
        clock: Time.
        tls: From `grpc.ssl_channel_credentials`; None is plaintext, for loopback only.
        random: Source of jitter.
        retry_window_s: See `RetryPolicy.window_s`.
    """

    def __init__(
        self,
        address: str,
        token_source: TokenSource,
        clock: Clock,
        *,
        tls: grpc.ChannelCredentials | None = None,
        random: Random = system_random,
        retry_window_s: float = 10.0,
    ) -> None:
        self._source = token_source
        # The channel's provider serves streams; unary calls carry the token that the policy chose.
        self._channel = open_channel(address, token_provider=self.access_token, tls=tls)
        # Renewing must not ask for a token first.
        self._bare = open_channel(address, tls=tls)
        policy = RetryPolicy(self.access_token, token_source.refuse, clock, random, retry_window_s)
        channel = cast("Any", RetryingChannel(self._channel, policy))
        self.identity: identity_api.IdentityServiceAsyncStub = identity_api.IdentityServiceStub(channel)
        """Stub of `mesh.identity.v1.IdentityService`."""
        self.sync: sync_api.SyncServiceAsyncStub = sync_api.SyncServiceStub(channel)
        """Stub of `mesh.sync.v1.SyncService`."""
        self.permissions: permissions_api.PermissionServiceAsyncStub
        """Stub of `mesh.permissions.v1.PermissionService`."""
        self.permissions = permissions_api.PermissionServiceStub(channel)
        self.crypto: crypto_api.KeyDirectoryServiceAsyncStub = crypto_api.KeyDirectoryServiceStub(channel)
        """Stub of `mesh.crypto.v1.KeyDirectoryService`."""
        self.rpc: rpc_api.RpcServiceAsyncStub = rpc_api.RpcServiceStub(channel)
        """Stub of `mesh.rpc.v1.RpcService`."""
        self.federated: federated_api.FederationServiceAsyncStub
        """Stub of `mesh.federated.v1.FederationService`."""
        self.federated = federated_api.FederationServiceStub(channel)

    @property
    def principal(self) -> str:
        """The logged-in principal.

        Raises:
            Unauthenticated: Nobody is logged in (NOT_LOGGED_IN).
        """
        return self._source.tokens.principal

    @property
    def device_id(self) -> str:
        """The logged-in device; raises as `principal`."""
        return self._source.tokens.device_id

    async def access_token(self) -> str:
        """Return an access token that holds now; raises as `TokenSource.access_token`."""
        return await self._source.access_token(self._refresh)

    async def token_for(self, *audiences: str) -> str:
        """Return a fresh access token that these services take and no other; raises as `TokenSource.narrow_token`.

        Raises:
            InvalidInput: There is no such service (AUDIENCE_INVALID).
        """

        async def refresh(tokens: StoredTokens) -> StoredTokens:
            return await self._refresh(tokens, audiences)

        return await self._source.narrow_token(refresh)

    async def logout(self) -> None:
        """End the login at the hub and forget the tokens; they are forgotten also when the hub is away.

        Raises:
            MeshError: The hub could not be told; the tokens end there by themselves.
        """
        request = identity_rpc.LogoutRequest(refresh_token=self._source.tokens.refresh_token)
        try:
            await self.identity.Logout(request)
        finally:
            await self._source.clear()

    async def close(self) -> None:
        """Close the channel; open calls end."""
        await self._channel.close()
        await self._bare.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _refresh(self, tokens: StoredTokens, audiences: Sequence[str] = ()) -> StoredTokens:
        stub: identity_api.IdentityServiceAsyncStub = identity_api.IdentityServiceStub(self._bare)
        request = identity_rpc.RefreshRequest(refresh_token=tokens.refresh_token, audiences=audiences)
        answer = await stub.Refresh(request, timeout=_REFRESH_TIMEOUT_S)
        return stored_tokens(answer.tokens, tokens.principal, tokens.device_id)
