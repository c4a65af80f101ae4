"""Federated runs at one's own site: what was proposed, and the owner's signed decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.federated.v1 import proposal_pb2
from mesh.federated.v1 import site_service_pb2 as pb
from syftmesh_client.node import Node
from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.federated import FEDERATED_APPROVAL_KIND, ProposalState, RunTerms, UpdateLimits
from syftmesh_core.statement import Statement, sign_statement

from syftmesh.site_socket import TIMEOUT_S, SiteSockets

__all__ = ["AsyncSiteRuns", "Proposal", "ProposalState", "UpdateLimits"]

_STATES: Final[Mapping[int, ProposalState]] = {
    proposal_pb2.ProposalState.Value(f"PROPOSAL_STATE_{state.value.upper()}"): state
    for state in ProposalState
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A run as the owner of a site sees it; digests are hex.

    Attributes:
        run_id: The run at the hub.
        site: The own site.
        state: Where it is.
        reason: Constant when it is out; empty while it is not.
        message: The reason in words.
        aggregator: Who proposed it: authenticated.
        app_digest: SHA-256 of the app bundle.
        app_name: publisher/name and version of the app.
        dataset: Version that it is bound to.
        run_config: Overrides of the app's run configuration.
        recipients: Who gets updates in the clear, with account roots.
        train_tasks: Most training tasks.
        evaluate_tasks: Most evaluation and query tasks together.
        limits: The stricter of what was asked and what the owner demands.
        purpose: What for.
        runtime_digest: Runtime of the tasks.
        partition: Number of this site in the run, from 0.
        partitions: Number of sites asked.
        train_tasks_done: Training tasks that were answered.
        evaluate_tasks_done: Evaluation and query tasks that were answered.
        refused_tasks: Tasks that the site refused or the gate held back.
        sent_bytes: What left the site for this run, sealed.
        created_ms: When it arrived, Unix milliseconds.
        updated_ms: When it changed last.
        expires_ms: From when neither proposal nor approval counts.
    """

    run_id: str
    site: str
    state: ProposalState
    reason: str
    message: str
    aggregator: str
    app_digest: str
    app_name: str
    dataset: DatasetVersion
    run_config: Mapping[str, Any]
    recipients: tuple[Recipient, ...]
    train_tasks: int
    evaluate_tasks: int
    limits: UpdateLimits
    purpose: str
    runtime_digest: str
    partition: int
    partitions: int
    train_tasks_done: int
    evaluate_tasks_done: int
    refused_tasks: int
    sent_bytes: int
    created_ms: int
    updated_ms: int
    expires_ms: int

    @property
    def terms(self) -> RunTerms:
        """Exactly what an approval of it signs."""
        return RunTerms(
            run_id=self.run_id,
            app_digest=self.app_digest,
            run_config=self.run_config,
            dataset=self.dataset,
            aggregator=self.aggregator,
            recipients=self.recipients,
            runtime_digest=self.runtime_digest,
            train_tasks=self.train_tasks,
            evaluate_tasks=self.evaluate_tasks,
            limits=self.limits,
            purpose=self.purpose,
            expires_ms=self.expires_ms,
        )


class AsyncSiteRuns:
    """The owner's decisions on federated runs, signed by this profile's device, which must be an admin device.

    Every method raises NotFound (SITE_NOT_RUNNING, RUN_UNKNOWN) and, where the proposal is not in a state for
    it, WrongState (WRONG_STATE).
    """

    def __init__(self, node: Node, sockets: SiteSockets) -> None:
        self._node = node
        self._sockets = sockets

    async def proposals(self) -> list[Proposal]:
        """Return all proposals, newest first."""
        answer = await self._sockets.runs.ListProposals(pb.ListProposalsRequest(), timeout=TIMEOUT_S)
        return [self._proposal(message) for message in answer.proposals]

    async def get(self, run_id: str) -> Proposal:
        """Return one proposal."""
        answer = await self._sockets.runs.GetProposal(pb.GetProposalRequest(run_id=run_id), timeout=TIMEOUT_S)
        return self._proposal(answer.proposal)

    async def code(self, run_id: str) -> dict[str, bytes]:
        """Return the files of the app bundle by path."""
        request = pb.GetProposalCodeRequest(run_id=run_id)
        answer = await self._sockets.runs.GetProposalCode(request, timeout=TIMEOUT_S)
        return {file.path: file.content for file in answer.files}

    async def approve(self, run: Proposal | str) -> Proposal:
        """Sign the approval of a run; its tasks may run from then on.

        Args:
            run: The proposal as it was reviewed, whose terms are signed; or the run's id: the terms as they are
                now.

        Raises:
            WrongState: A term is not the proposal's (any more) (APPROVAL_MISMATCH); metadata `term` names it.
                The time of the proposal is over (APPROVAL_EXPIRED).
            PermissionDenied: This device may not decide (NOT_A_REVIEWER).
        """
        seen = run if isinstance(run, Proposal) else await self.get(run)
        device = self._node.keystore.device
        body = json.loads(seen.terms.to_json())
        now_ms = self._node.clock.now_ms()
        statement = Statement(FEDERATED_APPROVAL_KIND, device.principal, device.device_id, now_ms, None, body)
        request = pb.ApproveProposalRequest(
            run_id=seen.run_id, signed_approval=sign_statement(statement, device)
        )
        answer = await self._sockets.runs.ApproveProposal(request, timeout=TIMEOUT_S)
        return self._proposal(answer.proposal)

    async def deny(self, run_id: str, reason: str = "") -> Proposal:
        """Refuse a run; the reason stays at the site, the aggregator reads DENIED_BY_OWNER."""
        request = pb.DenyProposalRequest(run_id=run_id, reason=reason)
        return self._proposal((await self._sockets.runs.DenyProposal(request, timeout=TIMEOUT_S)).proposal)

    async def leave(self, run_id: str, reason: str = "") -> Proposal:
        """Take an approval back: nothing of the run runs here any more; the reason stays at the site."""
        request = pb.WithdrawApprovalRequest(run_id=run_id, reason=reason)
        answer = await self._sockets.runs.WithdrawApproval(request, timeout=2 * TIMEOUT_S)
        return self._proposal(answer.proposal)

    def _proposal(self, message: proposal_pb2.Proposal) -> Proposal:
        return _proposal(message, self._node.principal)


def _proposal(message: proposal_pb2.Proposal, site: str) -> Proposal:
    state = _STATES.get(message.state)
    if state is None:
        raise IntegrityFailure(
            f"A proposal is in the state {message.state}, which is none.",
            reason="STATUS_INVALID",
            metadata={"state": str(message.state)},
        )
    limits = message.limits
    return Proposal(
        run_id=message.run_id,
        site=site,
        state=state,
        reason=message.reason,
        message=message.message,
        aggregator=message.aggregator,
        app_digest=message.app_digest,
        app_name=message.app_name,
        dataset=DatasetVersion(message.dataset, message.dataset_digest),
        run_config=json.loads(message.run_config_json or "{}"),
        recipients=tuple(Recipient(r.email, r.root) for r in message.recipients),
        train_tasks=message.train_tasks,
        evaluate_tasks=message.evaluate_tasks,
        limits=UpdateLimits(limits.max_update_bytes, limits.max_norm, limits.min_rows, limits.max_metrics),
        purpose=message.purpose,
        runtime_digest=message.runtime_digest,
        partition=message.partition,
        partitions=message.partitions,
        train_tasks_done=message.train_tasks_done,
        evaluate_tasks_done=message.evaluate_tasks_done,
        refused_tasks=message.refused_tasks,
        sent_bytes=message.sent_bytes,
        created_ms=message.created_unix_ms,
        updated_ms=message.updated_unix_ms,
        expires_ms=message.expires_unix_ms,
    )
