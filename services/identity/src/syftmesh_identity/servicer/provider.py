"""Login by an OIDC provider: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import Any

from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_core.errors import Unimplemented


class ProviderHandlers:
    """The handlers of the device flow."""

    async def StartDeviceLogin(
        self, request: rpc.StartDeviceLoginRequest, context: Any
    ) -> rpc.StartDeviceLoginResponse:
        raise Unimplemented("Login by a provider comes with the complete identity service.")

    async def FinishDeviceLogin(
        self, request: rpc.FinishDeviceLoginRequest, context: Any
    ) -> rpc.FinishDeviceLoginResponse:
        raise Unimplemented("Login by a provider comes with the complete identity service.")
