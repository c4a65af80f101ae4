"""Decisions about a proposal: approve, deny, leave, expire."""

from __future__ import annotations

from syftmesh_core.errors import MeshError, WrongState
from syftmesh_core.federated import (
    ACTIVE,
    FEDERATED_APPROVAL_KIND,
    ProposalEnd,
    ProposalEvent,
    ProposalState,
    first_difference,
    transition,
)
from syftmesh_core.job import Role
from syftmesh_core.statement import Statement, parse_statement, statement_digest

from syftmesh_runner.domain.ledger import RUNNER
from syftmesh_runner.domain.proposal import Proposal, terms_of
from syftmesh_runner.domain.proposal_ledger import ProposalLedger
from syftmesh_runner.domain.signature import ReviewerCheck, approval_expired
from syftmesh_runner.domain.state import SiteState

MAX_WHY = 4096


class ProposalDecision:
    """Decides on proposals for the owner.

    Args:
        state: What the site keeps.
        ledger: Moves proposals.
        reviewers: Verifies signed approvals.
    """

    def __init__(self, state: SiteState, ledger: ProposalLedger, reviewers: ReviewerCheck) -> None:
        self._state = state
        self._ledger = ledger
        self._reviewers = reviewers

    async def approve(self, run_id: str, signed: bytes) -> Proposal:
        """Take a signed approval; with enough of them tasks may run. The same again changes nothing.

        Raises:
            NotFound: RUN_UNKNOWN.
            WrongState: WRONG_STATE, APPROVAL_MISMATCH (metadata `term`), APPROVAL_EXPIRED.
            IntegrityFailure: SIGNATURE_INVALID.
            PermissionDenied: NOT_A_REVIEWER.
        """
        proposal = self._ledger.get(run_id)
        try:
            statement = await self._reviewers.verify(
                signed, kind=FEDERATED_APPROVAL_KIND, submitter=proposal.aggregator
            )
            proposal = self._ledger.get(run_id)
            if signed.hex() in proposal.approvals:
                return proposal
            transition(proposal.state, ProposalEvent.APPROVE, Role.OWNER)
            if self._state.clock.now_ms() >= proposal.expires_ms:
                raise approval_expired()
            term = first_difference(terms_of(proposal), statement.body)
            if term is not None:
                raise terms_differ(term)
        except MeshError as refusal:
            self._ledger.refused(proposal, ProposalEvent.APPROVE.value, self._state.owner, refusal)
            raise
        return self._count(proposal, signed, statement)

    def _count(self, proposal: Proposal, signed: bytes, statement: Statement) -> Proposal:
        issuer = statement.issuer
        others = [
            text for text in proposal.approvals if parse_statement(bytes.fromhex(text)).issuer != issuer
        ]
        approvals = (*others, signed.hex())
        facts = {"reviewer": issuer, "approval": statement_digest(signed).hex()}
        if len(approvals) < self._state.reviewers_of(proposal):
            return self._ledger.count(proposal, approvals, issuer, facts)
        return self._ledger.step(
            proposal.run_id,
            ProposalEvent.APPROVE,
            Role.OWNER,
            issuer,
            changes={"approvals": approvals},
            fields=facts,
        )

    def deny(self, run_id: str, why: str) -> Proposal:
        """Refuse a proposal; why stays at the site.

        Raises:
            NotFound: RUN_UNKNOWN.
            WrongState: WRONG_STATE.
        """
        return self._end(run_id, ProposalEvent.DENY, ProposalEnd.DENIED_BY_OWNER, why)

    def withdraw(self, run_id: str, why: str) -> Proposal:
        """Leave a run that was approved: no task runs any more; why stays at the site.

        Raises:
            NotFound: RUN_UNKNOWN.
            WrongState: WRONG_STATE.
        """
        return self._end(run_id, ProposalEvent.WITHDRAW, ProposalEnd.LEFT_BY_OWNER, why)

    def _end(self, run_id: str, event: ProposalEvent, end: ProposalEnd, why: str) -> Proposal:
        return self._ledger.step(
            run_id,
            event,
            Role.OWNER,
            self._state.owner,
            end=end.value,
            message=why[:MAX_WHY],
            fields={"why": why},
        )

    def expire(self) -> list[Proposal]:
        """Expire what was not decided, or not finished, in time; return what has expired."""
        now_ms = self._state.clock.now_ms()
        expired = []
        for proposal in self._state.proposals.in_state(*ACTIVE):
            if now_ms < proposal.expires_ms:
                continue
            approved = proposal.state is ProposalState.APPROVED
            end = ProposalEnd.APPROVAL_EXPIRED if approved else ProposalEnd.NOT_DECIDED
            message = f"It was not {'finished' if approved else 'decided'} in time."
            expired.append(
                self._ledger.step(
                    proposal.run_id,
                    ProposalEvent.EXPIRE,
                    Role.RUNNER,
                    RUNNER,
                    end=end.value,
                    message=message,
                )
            )
        return expired


def terms_differ(term: str) -> WrongState:
    """Return the error for an approval whose `term` is another one than the proposal's."""
    return WrongState(
        f"The approval does not fit the run: {term} differs. Read the proposal again and sign its terms.",
        reason="APPROVAL_MISMATCH",
        metadata={"term": term},
    )
