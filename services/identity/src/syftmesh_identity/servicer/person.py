"""Guests, and what administrators do with people and keys: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import Any

from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_core.errors import Unimplemented


class PersonHandlers:
    """The handlers of guests and administration."""

    async def LoginAsGuest(self, request: rpc.LoginAsGuestRequest, context: Any) -> rpc.LoginAsGuestResponse:
        raise Unimplemented("Guests comes with the complete identity service.")

    async def RevokePrincipal(
        self, request: rpc.RevokePrincipalRequest, context: Any
    ) -> rpc.RevokePrincipalResponse:
        raise Unimplemented("Ending a person comes with the complete identity service.")

    async def ReinstatePrincipal(
        self, request: rpc.ReinstatePrincipalRequest, context: Any
    ) -> rpc.ReinstatePrincipalResponse:
        raise Unimplemented("Ending a person comes with the complete identity service.")

    async def ListPrincipals(
        self, request: rpc.ListPrincipalsRequest, context: Any
    ) -> rpc.ListPrincipalsResponse:
        raise Unimplemented("The list of people comes with the complete identity service.")

    async def RotateSigningKey(
        self, request: rpc.RotateSigningKeyRequest, context: Any
    ) -> rpc.RotateSigningKeyResponse:
        raise Unimplemented("Rotation of the signing key comes with the complete identity service.")
