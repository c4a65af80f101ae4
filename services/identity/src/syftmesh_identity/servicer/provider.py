"""Login by an OIDC provider: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh.identity.v1 import identity_service_pb2 as rpc

from syftmesh_identity import convert
from syftmesh_identity.domain.provider_login import PendingLogin

if TYPE_CHECKING:
    from syftmesh_identity.servicer.service import UseCases


class ProviderHandlers:
    """The handlers of the device flow."""

    _use: UseCases

    async def StartDeviceLogin(
        self, request: rpc.StartDeviceLoginRequest, context: Any
    ) -> rpc.StartDeviceLoginResponse:
        started = await self._use.provider_logins.start(
            request.provider,
            request.device_id,
            request.label,
            self._use.address(context),
            request.principal,
        )
        shown = started.authorization
        return rpc.StartDeviceLoginResponse(
            verification_uri=shown.verification_uri,
            user_code=shown.user_code,
            verification_uri_complete=shown.verification_uri_complete,
            login_secret=started.login_secret,
            interval_seconds=shown.interval_s,
            expires_at=convert.timestamp(started.expires_ms),
        )

    async def FinishDeviceLogin(
        self, request: rpc.FinishDeviceLoginRequest, context: Any
    ) -> rpc.FinishDeviceLoginResponse:
        found = await self._use.provider_logins.finish(request.login_secret)
        if isinstance(found, PendingLogin):
            return rpc.FinishDeviceLoginResponse(pending=True, interval_seconds=found.interval_s)
        return rpc.FinishDeviceLoginResponse(
            principal=found.principal, tokens=convert.token_pair(found.tokens)
        )
