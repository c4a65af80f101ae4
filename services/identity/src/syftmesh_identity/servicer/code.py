"""Login by a code sent by e-mail: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.identity.v1 import identity_service_pb2 as rpc

from syftmesh_identity import convert

if TYPE_CHECKING:
    from syftmesh_identity.servicer.service import UseCases


@dataclass(frozen=True, slots=True)
class LoginMethods:
    """How one can log in at this mesh.

    Attributes:
        local: By the local token.
        code: By a code that is sent by e-mail.
        providers: By these OIDC providers.
        guests: As a guest.
    """

    local: bool = False
    code: bool = False
    providers: tuple[str, ...] = ()
    guests: bool = False


class CodeHandlers:
    """The handlers of login by code."""

    _use: UseCases

    async def ListLoginMethods(
        self, request: rpc.ListLoginMethodsRequest, context: Any
    ) -> rpc.ListLoginMethodsResponse:
        found = self._use.login_methods
        return rpc.ListLoginMethodsResponse(
            local=found.local, code=found.code, providers=found.providers, guests=found.guests
        )

    async def RequestCode(self, request: rpc.RequestCodeRequest, context: Any) -> rpc.RequestCodeResponse:
        await self._use.codes.request(request.principal, self._use.address(context))
        return rpc.RequestCodeResponse()

    async def LoginWithCode(
        self, request: rpc.LoginWithCodeRequest, context: Any
    ) -> rpc.LoginWithCodeResponse:
        pair = await self._use.codes.login(
            request.principal, request.code, request.device_id, request.label, self._use.address(context)
        )
        return rpc.LoginWithCodeResponse(tokens=convert.token_pair(pair))
