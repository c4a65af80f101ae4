# ruff: noqa: N802 - methods are named as the protocol names them
"""`DatasetService`, `JobService`, `AuditService`, `SiteRunService`: the local API of a site, on its own socket."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from mesh.federated.v1 import site_service_pb2 as site_pb
from mesh.federated.v1 import site_service_pb2_grpc as site_api
from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from mesh.rds.v1 import rds_service_pb2_grpc as api
from syftmesh_core.bundle import read_bundle
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, Unimplemented

from syftmesh_runner import convert
from syftmesh_runner.domain.catalogue import Catalogue
from syftmesh_runner.domain.decision import Decision
from syftmesh_runner.domain.execution import Execution
from syftmesh_runner.domain.job import STDERR, STDOUT, check_job_id
from syftmesh_runner.domain.ledger import Ledger
from syftmesh_runner.domain.ports import AuditStore, KeyDirectory
from syftmesh_runner.domain.proposal_arrival import bundle_changed
from syftmesh_runner.domain.proposal_decision import ProposalDecision
from syftmesh_runner.domain.proposal_ledger import ProposalLedger
from syftmesh_runner.domain.publication import Publication
from syftmesh_runner.domain.release import Release
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.super_node import RuntimeApi, SuperNodeNeed

LOG_PIECE_BYTES = 256 * 1024
MAX_LISTED = 200
"""Proposals in one list: what fits into a message at their longest."""
MAX_CODE_BYTES = 7 << 20
"""Of a bundle's files in one answer: what fits into a message with their names."""


class DatasetServicer(api.DatasetServiceServicer):
    """Keeps the site's datasets."""

    def __init__(self, catalogue: Catalogue, publication: Publication, site: str) -> None:
        self._catalogue = catalogue
        self._publication = publication
        self._site = site

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Any) -> pb.CreateDatasetResponse:
        """Register a dataset."""
        del context
        dataset = await self._catalogue.create(convert.new_dataset(request))
        return pb.CreateDatasetResponse(dataset=convert.dataset_message(dataset, self._site))

    async def UpdateDataset(self, request: pb.UpdateDatasetRequest, context: Any) -> pb.UpdateDatasetResponse:
        """Answer that this is not built."""
        del request, context
        raise Unimplemented("Datasets cannot be changed yet: delete it and register it anew.")

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Any) -> pb.GetDatasetResponse:
        """Give one dataset."""
        del context
        dataset = self._catalogue.get(request.name)
        return pb.GetDatasetResponse(dataset=convert.dataset_message(dataset, self._site))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        """List datasets by name."""
        del context
        size = convert.page_size(request.page_size)
        found = list(self._catalogue.page(size + 1, request.page_token))
        return pb.ListDatasetsResponse(
            datasets=[convert.dataset_message(dataset, self._site) for dataset in found[:size]],
            next_page_token=found[size - 1].name if len(found) > size else "",
        )

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Any) -> pb.DeleteDatasetResponse:
        """Remove a dataset."""
        del context
        await self._catalogue.delete(request.name)
        return pb.DeleteDatasetResponse()


class JobServicer(api.JobServiceServicer):
    """Lets the owner see and decide jobs."""

    def __init__(
        self,
        state: SiteState,
        ledger: Ledger,
        decision: Decision,
        execution: Execution,
        release: Release,
        *,
        executor: str,
    ) -> None:
        self._executor = executor
        self._state = state
        self._ledger = ledger
        self._decision = decision
        self._execution = execution
        self._release = release

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """List jobs, newest first."""
        del context
        size = convert.page_size(request.page_size)
        if request.page_token:
            _check_token(request.page_token)
        found = list(self._state.jobs.page(convert.states_of(request.states), size + 1, request.page_token))
        return pb.ListJobsResponse(
            jobs=[convert.job_message(job) for job in found[:size]],
            next_page_token=found[size - 1].job_id if len(found) > size else "",
        )

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """Give one job and the terms of its approval."""
        del context
        job = self._ledger.get(request.job_id)
        return pb.GetJobResponse(job=convert.job_message(job), approval_terms_json=convert.terms_json(job))

    async def GetJobCode(self, request: pb.GetJobCodeRequest, context: Any) -> pb.GetJobCodeResponse:
        """Give the submitted files."""
        del context
        job = self._ledger.get(request.job_id)
        return pb.GetJobCodeResponse(
            files=[
                rds_pb2.SourceFile(name=name, content=content)
                for name, content in self._state.folder.code_files(job.job_id)
            ],
            code_digest=job.code_digest,
        )

    async def ApproveJob(self, request: pb.ApproveJobRequest, context: Any) -> pb.ApproveJobResponse:
        """Take a signed approval."""
        del context
        job = await self._decision.approve(request.job_id, convert.signed_bytes(request.approval))
        return pb.ApproveJobResponse(job=convert.job_message(job))

    async def RejectJob(self, request: pb.RejectJobRequest, context: Any) -> pb.RejectJobResponse:
        """Refuse a job in review."""
        del context
        return pb.RejectJobResponse(
            job=convert.job_message(self._decision.reject(request.job_id, request.reason))
        )

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """End a job; answers when no process of it is left."""
        del context
        job, was_running = self._decision.cancel(request.job_id)
        if was_running:
            await self._execution.cancel(job.job_id)
        return pb.CancelJobResponse(job=convert.job_message(job))

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, context: Any) -> pb.ReleaseJobResponse:
        """Let chosen outputs leave."""
        del context
        job, bytes_out = await self._release.release(request.job_id, convert.signed_bytes(request.release))
        return pb.ReleaseJobResponse(job=convert.job_message(job), bytes_out=bytes_out)

    async def WithholdJob(self, request: pb.WithholdJobRequest, context: Any) -> pb.WithholdJobResponse:
        """Keep the outputs at the site."""
        del context
        await self._release.withholdable(request.job_id)
        return pb.WithholdJobResponse(
            job=convert.job_message(self._decision.withhold(request.job_id, request.reason))
        )

    async def RevokeRelease(self, request: pb.RevokeReleaseRequest, context: Any) -> pb.RevokeReleaseResponse:
        """Answer that this is not built."""
        del request, context
        raise Unimplemented("A release cannot be revoked yet; withhold before you release.")

    async def StreamLogs(
        self, request: pb.StreamLogsRequest, context: Any
    ) -> AsyncIterator[pb.StreamLogsResponse]:
        """Give the captured output of a run that ended; nothing before."""
        del context
        job = self._ledger.get(request.job_id)
        for stream, name in (("stdout", STDOUT), ("stderr", STDERR)):
            try:
                data = self._state.folder.output(job.job_id, name)
            except IntegrityFailure:
                continue  # it has not run
            for at in range(0, len(data), LOG_PIECE_BYTES):
                yield pb.StreamLogsResponse(stream=stream, data=data[at : at + LOG_PIECE_BYTES])

    async def ProbeIsolation(
        self, request: pb.ProbeIsolationRequest, context: Any
    ) -> pb.ProbeIsolationResponse:
        """Run the isolation probe now."""
        del request, context
        report = await self._execution.probe()
        return pb.ProbeIsolationResponse(
            passed=report.passed,
            checks=[
                pb.IsolationCheck(name=check.name, passed=check.passed, detail=check.detail)
                for check in report.checks
            ],
            executor=self._executor,
        )


class SiteRunServicer(site_api.SiteRunServiceServicer):
    """Lets the owner see and decide proposals, and tells the site's agent of SuperNodes."""

    def __init__(
        self,
        state: SiteState,
        ledger: ProposalLedger,
        decision: ProposalDecision,
        need: SuperNodeNeed,
        runtime_api: RuntimeApi,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._decision = decision
        self._need = need
        self._runtime_api = runtime_api

    async def ListProposals(
        self, request: site_pb.ListProposalsRequest, context: Any
    ) -> site_pb.ListProposalsResponse:
        """List proposals, newest first."""
        del request, context
        found = self._state.proposals.newest(MAX_LISTED)
        return site_pb.ListProposalsResponse(
            proposals=[convert.proposal_message(proposal) for proposal in found]
        )

    async def GetProposal(
        self, request: site_pb.GetProposalRequest, context: Any
    ) -> site_pb.GetProposalResponse:
        """Give one proposal."""
        del context
        proposal = self._ledger.get(request.run_id)
        return site_pb.GetProposalResponse(proposal=convert.proposal_message(proposal))

    async def GetProposalCode(
        self, request: site_pb.GetProposalCodeRequest, context: Any
    ) -> site_pb.GetProposalCodeResponse:
        """Give the files of the app bundle, from the bytes that an approval would bind."""
        del context
        proposal = self._ledger.get(request.run_id)
        files = await asyncio.to_thread(self._code, proposal.run_id, proposal.app_digest)
        return site_pb.GetProposalCodeResponse(
            files=[site_pb.BundleFile(path=path, content=content) for path, content in files]
        )

    async def ApproveProposal(
        self, request: site_pb.ApproveProposalRequest, context: Any
    ) -> site_pb.ApproveProposalResponse:
        """Take a signed approval."""
        del context
        proposal = await self._decision.approve(request.run_id, request.signed_approval)
        return site_pb.ApproveProposalResponse(proposal=convert.proposal_message(proposal))

    async def DenyProposal(
        self, request: site_pb.DenyProposalRequest, context: Any
    ) -> site_pb.DenyProposalResponse:
        """Refuse a proposal."""
        del context
        proposal = self._decision.deny(request.run_id, request.reason)
        return site_pb.DenyProposalResponse(proposal=convert.proposal_message(proposal))

    async def WithdrawApproval(
        self, request: site_pb.WithdrawApprovalRequest, context: Any
    ) -> site_pb.WithdrawApprovalResponse:
        """Leave a run that was approved."""
        del context
        proposal = self._decision.withdraw(request.run_id, request.reason)
        return site_pb.WithdrawApprovalResponse(proposal=convert.proposal_message(proposal))

    async def WatchSuperNode(
        self, request: site_pb.WatchSuperNodeRequest, context: Any
    ) -> AsyncIterator[site_pb.WatchSuperNodeResponse]:
        """Tell whether a SuperNode is needed, at once and whenever that changes."""
        del request, context
        async for needed in self._need.watch():
            yield site_pb.WatchSuperNodeResponse(
                needed=needed,
                runtime_port=self._runtime_api.port,
                secret_file=str(self._runtime_api.secret_file),
            )

    def _code(self, run_id: str, digest: str) -> Sequence[tuple[str, bytes]]:
        """Return the files of a bundle. Runs in a thread: it asks no store."""
        data = self._state.folder.bundle(run_id, digest)
        if hashlib.sha256(data).hexdigest() != digest:
            raise bundle_changed("the site has no such file any more, or never took it")
        files = list(read_bundle(data).files.items())
        if sum(len(content) for _, content in files) > MAX_CODE_BYTES:
            raise LimitExceeded(
                f"The files of the app have more than {MAX_CODE_BYTES} bytes together: deny the run, or look "
                "at the bundle in the site's state folder.",
                reason="BUNDLE_TOO_LARGE",
            )
        return files


class AuditServicer(api.AuditServiceServicer):
    """Reads the audit chain."""

    def __init__(
        self,
        state: SiteState,
        store: AuditStore,
        keys: KeyDirectory,
        sent_bytes: Callable[[], Mapping[str, int]],
    ) -> None:
        self._state = state
        self._store = store
        self._keys = keys
        self._sent_bytes = sent_bytes

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Any) -> pb.VerifyAuditResponse:
        """Check the whole chain."""
        del request, context
        found = await self._state.audit.verify(self._keys)
        return pb.VerifyAuditResponse(entries=found.entries, root=found.root, checkpoints=found.checkpoints)

    async def QueryAudit(self, request: pb.QueryAuditRequest, context: Any) -> pb.QueryAuditResponse:
        """List entries that name a dataset, a job or a kind."""
        del context
        size = convert.page_size(request.page_size)
        if request.page_token and not (request.page_token.isascii() and request.page_token.isdecimal()):
            raise convert.page_invalid()
        found = list(
            self._store.query(
                dataset=request.dataset,
                job_id=request.job_id,
                kind=request.kind,
                after=int(request.page_token[:18] or 0),
                limit=size + 1,
            )
        )
        return pb.QueryAuditResponse(
            entries=[convert.entry_message(entry) for entry in found[:size]],
            next_page_token=str(found[size - 1].sequence) if len(found) > size else "",
        )

    async def ExportAudit(
        self, request: pb.ExportAuditRequest, context: Any
    ) -> AsyncIterator[pb.ExportAuditResponse]:
        """Stream the whole chain."""
        del request, context
        last, done = 0, False
        while not done:
            # In pages: a cursor that stays open would keep the write-ahead log from being folded in.
            page = list(self._store.query(dataset="", job_id="", kind="", after=last, limit=convert.MAX_PAGE))
            for entry in page:
                yield pb.ExportAuditResponse(entry=convert.entry_message(entry))
            done = len(page) < convert.MAX_PAGE
            last = page[-1].sequence if page else last

    async def GetTraffic(self, request: pb.GetTrafficRequest, context: Any) -> pb.GetTrafficResponse:
        """Tell how many bytes the runner has sent."""
        del request, context
        return pb.GetTrafficResponse(bytes_sent=self._sent_bytes())


def _check_token(token: str) -> None:
    try:
        check_job_id(token)
    except InvalidInput as error:
        raise convert.page_invalid() from error
