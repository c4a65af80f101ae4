"""The gRPC face of the key directory: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import Any, Final, NoReturn

from mesh.crypto.v1 import crypto_pb2 as pb
from mesh.crypto.v1 import crypto_service_pb2 as rpc
from mesh.crypto.v1 import crypto_service_pb2_grpc as grpc_api
from syftmesh_core.errors import Unimplemented
from syftmesh_kit.caller import current_caller

from syftmesh_crypto.domain.lookup import LookUpDevices
from syftmesh_crypto.domain.publish import PublishDeviceList

SERVICE: Final = "mesh.crypto.v1.KeyDirectoryService"


class KeyDirectoryServicer(grpc_api.KeyDirectoryServiceServicer):
    """Serves `mesh.crypto.v1.KeyDirectoryService`."""

    def __init__(self, publish: PublishDeviceList, look_up: LookUpDevices) -> None:
        self._publish = publish
        self._look_up = look_up

    async def PublishDeviceList(
        self, request: rpc.PublishDeviceListRequest, context: Any
    ) -> rpc.PublishDeviceListResponse:
        version = await self._publish.publish(current_caller().principal, request.device_list.device_list)
        return rpc.PublishDeviceListResponse(version=version)

    async def ListDevices(self, request: rpc.ListDevicesRequest, context: Any) -> rpc.ListDevicesResponse:
        current_caller()
        lists = await self._look_up.lists(request.principal, request.from_version)
        return rpc.ListDevicesResponse(device_lists=[pb.SignedDeviceList(device_list=data) for data in lists])

    async def PublishBundle(
        self, request: rpc.PublishBundleRequest, context: Any
    ) -> rpc.PublishBundleResponse:
        _not_built("Prekey bundles come")

    async def ReplenishPrekeys(
        self, request: rpc.ReplenishPrekeysRequest, context: Any
    ) -> rpc.ReplenishPrekeysResponse:
        _not_built("One-time prekeys come")

    async def FetchBundles(self, request: rpc.FetchBundlesRequest, context: Any) -> rpc.FetchBundlesResponse:
        _not_built("Prekey bundles come")

    async def PublishGroup(self, request: rpc.PublishGroupRequest, context: Any) -> rpc.PublishGroupResponse:
        _not_built("Signed groups come")

    async def PublishRulesCheckpoint(
        self, request: rpc.PublishRulesCheckpointRequest, context: Any
    ) -> rpc.PublishRulesCheckpointResponse:
        _not_built("Rules checkpoints come")

    async def PublishGrant(self, request: rpc.PublishGrantRequest, context: Any) -> rpc.PublishGrantResponse:
        _not_built("Key grants come")

    async def GetGrants(self, request: rpc.GetGrantsRequest, context: Any) -> rpc.GetGrantsResponse:
        _not_built("Key grants come")

    async def RequestGrant(self, request: rpc.RequestGrantRequest, context: Any) -> rpc.RequestGrantResponse:
        _not_built("Key grants come")

    async def GetTreeHead(self, request: rpc.GetTreeHeadRequest, context: Any) -> rpc.GetTreeHeadResponse:
        _not_built("The verifiable log comes")

    async def GetInclusionProof(
        self, request: rpc.GetInclusionProofRequest, context: Any
    ) -> rpc.GetInclusionProofResponse:
        _not_built("The verifiable log comes")

    async def GetConsistencyProof(
        self, request: rpc.GetConsistencyProofRequest, context: Any
    ) -> rpc.GetConsistencyProofResponse:
        _not_built("The verifiable log comes")

    async def GetEntries(self, request: rpc.GetEntriesRequest, context: Any) -> rpc.GetEntriesResponse:
        _not_built("The verifiable log comes")

    def WatchKeys(self, request: rpc.WatchKeysRequest, context: Any) -> Any:
        _not_built("Watching keys comes")


def _not_built(what: str) -> NoReturn:
    raise Unimplemented(f"{what} with the complete key directory.")
