"""Login by a code sent by e-mail: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import Any

from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_core.errors import Unimplemented


class CodeHandlers:
    """The handlers of login by code."""

    async def ListLoginMethods(
        self, request: rpc.ListLoginMethodsRequest, context: Any
    ) -> rpc.ListLoginMethodsResponse:
        raise Unimplemented("The list of logins comes with the complete identity service.")

    async def RequestCode(self, request: rpc.RequestCodeRequest, context: Any) -> rpc.RequestCodeResponse:
        raise Unimplemented("Login by e-mailed code comes with the complete identity service.")

    async def LoginWithCode(
        self, request: rpc.LoginWithCodeRequest, context: Any
    ) -> rpc.LoginWithCodeResponse:
        raise Unimplemented("Login by e-mailed code comes with the complete identity service.")
