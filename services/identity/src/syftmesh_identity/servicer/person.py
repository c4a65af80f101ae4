"""Guests, and what administrators do with people and keys: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_kit.caller import current_caller

from syftmesh_identity import convert
from syftmesh_identity.domain.page import page_of
from syftmesh_identity.servicer.own_end import past_own_end

if TYPE_CHECKING:
    from syftmesh_identity.servicer.service import UseCases


class PersonHandlers:
    """The handlers of guests and administration."""

    _use: UseCases

    async def LoginAsGuest(self, request: rpc.LoginAsGuestRequest, context: Any) -> rpc.LoginAsGuestResponse:
        access = await self._use.guests.login(self._use.address(context))
        return rpc.LoginAsGuestResponse(
            access_token=access.token, access_expires_at=convert.timestamp(access.expires_ms)
        )

    async def RevokePrincipal(
        self, request: rpc.RevokePrincipalRequest, context: Any
    ) -> rpc.RevokePrincipalResponse:
        self._require_administrator()
        own = request.principal.lower() == current_caller().principal
        await past_own_end(self._use.people.revoke(request.principal), ends_caller=own)
        return rpc.RevokePrincipalResponse()

    async def ReinstatePrincipal(
        self, request: rpc.ReinstatePrincipalRequest, context: Any
    ) -> rpc.ReinstatePrincipalResponse:
        self._require_administrator()
        await self._use.people.reinstate(request.principal)
        return rpc.ReinstatePrincipalResponse()

    async def ListPrincipals(
        self, request: rpc.ListPrincipalsRequest, context: Any
    ) -> rpc.ListPrincipalsResponse:
        self._require_administrator()
        page, following = page_of(
            await self._use.people.list(),
            lambda account: account.principal,
            kind="principal",
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return rpc.ListPrincipalsResponse(
            principals=[convert.principal(account) for account in page], next_page_token=following
        )

    async def RotateSigningKey(
        self, request: rpc.RotateSigningKeyRequest, context: Any
    ) -> rpc.RotateSigningKeyResponse:
        self._require_administrator()
        return rpc.RotateSigningKeyResponse(key_id=await self._use.rotation.rotate())

    def _require_administrator(self) -> None:
        self._use.administrators.require(current_caller().principal)
