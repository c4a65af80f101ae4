"""The gRPC face of federated runs: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from mesh.federated.v1 import federated_service_pb2_grpc as grpc_api
from syftmesh_core.errors import Unimplemented
from syftmesh_kit.caller import current_caller

from syftmesh_superlink import convert
from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.page import page_of
from syftmesh_superlink.domain.presence import Presence
from syftmesh_superlink.domain.run import Run

SERVICE: Final = "mesh.federated.v1.FederationService"

RunChanged = Callable[[Run], None]


class FederationServicer(grpc_api.FederationServiceServicer):
    """Serves `mesh.federated.v1.FederationService`.

    Args:
        federation: The use cases.
        presence: Who is connected.
        wake: Called with a run whose members changed: what waits for their answers looks again.
        node_of: Gives the Flower node of a site now.
    """

    def __init__(
        self,
        federation: Federation,
        presence: Presence,
        wake: RunChanged,
        node_of: Callable[[str], int | None],
    ) -> None:
        self._use = federation
        self._presence = presence
        self._wake = wake
        self._node_of = node_of

    async def CreateRun(self, request: rpc.CreateRunRequest, context: Any) -> rpc.CreateRunResponse:
        caller = current_caller()
        run = await self._use.create(caller.principal, convert.draft(request.run), request.bundle)
        return rpc.CreateRunResponse(run=self._encoded(run))

    async def GetRun(self, request: rpc.GetRunRequest, context: Any) -> rpc.GetRunResponse:
        run = self._use.get(current_caller().principal, request.run_id)
        return rpc.GetRunResponse(run=self._encoded(run))

    async def ListRuns(self, request: rpc.ListRunsRequest, context: Any) -> rpc.ListRunsResponse:
        runs = self._use.runs_of(current_caller().principal)
        page, following = page_of(
            runs, request.page_size, request.page_token, lambda run: self._encoded(run).ByteSize()
        )
        return rpc.ListRunsResponse(runs=[self._encoded(run) for run in page], next_page_token=following)

    async def WatchRun(
        self, request: rpc.WatchRunRequest, context: Any
    ) -> AsyncIterator[rpc.WatchRunResponse]:
        async with aclosing(self._use.watch(current_caller().principal, request.run_id)) as runs:
            async for run in runs:
                yield rpc.WatchRunResponse(run=self._encoded(run))

    async def GetRunBundle(self, request: rpc.GetRunBundleRequest, context: Any) -> rpc.GetRunBundleResponse:
        return rpc.GetRunBundleResponse(
            bundle=await self._use.bundle(current_caller().principal, request.run_id)
        )

    async def ReportSite(self, request: rpc.ReportSiteRequest, context: Any) -> rpc.ReportSiteResponse:
        state = convert.site_state(request.state)
        run = await self._use.report_site(current_caller().principal, request.run_id, state, request.reason)
        self._wake(run)
        return rpc.ReportSiteResponse(run=self._encoded(run))

    async def AcquireServerTask(
        self, request: rpc.AcquireServerTaskRequest, context: Any
    ) -> rpc.AcquireServerTaskResponse:
        run, token = await self._use.acquire(current_caller().principal, request.run_id)
        self._presence.aggregator_heard(run.run_id)
        return rpc.AcquireServerTaskResponse(task_token=token)

    async def ReportRound(self, request: rpc.ReportRoundRequest, context: Any) -> rpc.ReportRoundResponse:
        principal = current_caller().principal
        run = await self._use.report(principal, request.run_id, convert.report(request))
        return rpc.ReportRoundResponse(run=self._encoded(run))

    async def CancelRun(self, request: rpc.CancelRunRequest, context: Any) -> rpc.CancelRunResponse:
        run = await self._use.cancel_run(current_caller().principal, request.run_id, request.reason)
        self._wake(run)
        return rpc.CancelRunResponse(run=self._encoded(run))

    async def ResumeRun(self, request: rpc.ResumeRunRequest, context: Any) -> rpc.ResumeRunResponse:
        current_caller()
        raise Unimplemented(
            "A run cannot be resumed yet.", hint="Start a new run from the last checkpoint of this one."
        )

    async def GetArtifacts(self, request: rpc.GetArtifactsRequest, context: Any) -> rpc.GetArtifactsResponse:
        run = self._use.get(current_caller().principal, request.run_id)
        return rpc.GetArtifactsResponse(artifacts=[convert.artifact(found) for found in run.artifacts])

    def _encoded(self, run: Run) -> pb.Run:
        return convert.run(run, self._presence.is_connected, self._node_of)
