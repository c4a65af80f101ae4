"""The gRPC face of federated learning: every method says that it is not built yet, and what it waits for."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from typing import Any, Final, NoReturn

from mesh.federated.v1 import federated_service_pb2 as rpc
from mesh.federated.v1 import federated_service_pb2_grpc as grpc_api
from syftmesh_core.errors import Unimplemented
from syftmesh_kit.caller import current_caller

SERVICE: Final = "mesh.federated.v1.FederationService"


class FederationServicer(grpc_api.FederationServiceServicer):
    """Serves `mesh.federated.v1.FederationService`."""

    async def CreateRun(self, request: rpc.CreateRunRequest, context: Any) -> rpc.CreateRunResponse:
        _not_built()

    async def GetRun(self, request: rpc.GetRunRequest, context: Any) -> rpc.GetRunResponse:
        _not_built()

    async def ListRuns(self, request: rpc.ListRunsRequest, context: Any) -> rpc.ListRunsResponse:
        _not_built()

    def WatchRun(self, request: rpc.WatchRunRequest, context: Any) -> Any:
        _not_built()

    async def AcquireServerTask(
        self, request: rpc.AcquireServerTaskRequest, context: Any
    ) -> rpc.AcquireServerTaskResponse:
        _not_built()

    async def ReportRound(self, request: rpc.ReportRoundRequest, context: Any) -> rpc.ReportRoundResponse:
        _not_built()

    async def CancelRun(self, request: rpc.CancelRunRequest, context: Any) -> rpc.CancelRunResponse:
        _not_built()

    async def ResumeRun(self, request: rpc.ResumeRunRequest, context: Any) -> rpc.ResumeRunResponse:
        _not_built()

    async def GetArtifacts(self, request: rpc.GetArtifactsRequest, context: Any) -> rpc.GetArtifactsResponse:
        _not_built()


def _not_built() -> NoReturn:
    current_caller()
    raise Unimplemented(
        "Federated learning is not built yet: it comes with the complete superlink service.",
        hint="Use `syftmesh job submit` for analyses that need one site at a time.",
    )
