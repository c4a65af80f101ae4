"""The one place where a proposal changes: transition, storage, report to the hub and audit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from syftmesh_core.errors import MeshError, NotFound
from syftmesh_core.federated import ACTIVE, ProposalEvent, ProposalState, transition
from syftmesh_core.job import Role

from syftmesh_runner.domain.federated_port import SitePart
from syftmesh_runner.domain.proposal import Proposal
from syftmesh_runner.domain.state import SiteState

HUB: Final = "hub"
"""Actor of what happens by the hub's word."""

_PARTS: Final = {
    ProposalState.APPROVED: SitePart.APPROVED,
    ProposalState.DENIED: SitePart.DENIED,
    ProposalState.WITHDRAWN: SitePart.WITHDRAWN,
    ProposalState.EXPIRED: SitePart.FAILED,
}
"""What the hub is told of a state; of an end that came from the hub it is told nothing."""


class ProposalLedger:
    """Moves proposals through their states.

    Args:
        state: What the site keeps.
        wakes: Called after each change, maybe from another thread and before its transaction is committed.
    """

    def __init__(self, state: SiteState, wakes: Sequence[Callable[[], None]]) -> None:
        self._state = state
        self._wakes = wakes
        self._left: list[Callable[[str], None]] = []

    def on_left(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the run id whenever a run is approved no more."""
        self._left.append(callback)

    def get(self, run_id: str) -> Proposal:
        """Return a proposal.

        Raises:
            NotFound: RUN_UNKNOWN.
        """
        proposal = self._state.proposals.get(run_id)
        if proposal is None:
            raise run_unknown(run_id)
        return proposal

    def add(self, proposal: Proposal, run_key: bytes, *, is_refused: bool) -> None:
        """Store a new proposal, in the transaction that is open; the hub is told of one that waits."""
        with self._state.unit.transaction():
            self._state.proposals.add(proposal, run_key)
            self._state.audit.append(
                "federated.proposed", proposal.aggregator, {**audit_fields(proposal), **_binding(proposal)}
            )
            if not is_refused:
                self._state.proposals.owe(proposal.run_id, SitePart.AWAITING_APPROVAL, "")
        self._wake()

    def count(
        self, proposal: Proposal, approvals: tuple[str, ...], actor: str, facts: Mapping[str, object]
    ) -> Proposal:
        """Store an approval that needs others beside it."""
        counted = replace(proposal, approvals=approvals)
        with self._state.unit.transaction():
            self._state.proposals.save(counted)
            self._state.audit.append("federated.approval_counted", actor, {**audit_fields(proposal), **facts})
        return counted

    def step(
        self,
        run_id: str,
        event: ProposalEvent,
        role: Role,
        actor: str,
        *,
        end: str = "",
        message: str = "",
        changes: Mapping[str, Any] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Proposal:
        """Take one step of the state machine, or write down that somebody tried.

        Args:
            run_id: The run; read anew, so that a step is taken from where it is now.
            event: What happens.
            role: What the actor is to the site.
            actor: Principal, `HUB`, or the runner itself.
            end: Constant why it is over.
            message: For the owner.
            changes: Other attributes that change with it.
            fields: Further facts for the audit.

        Raises:
            NotFound: RUN_UNKNOWN.
            WrongState: WRONG_STATE.
            PermissionDenied: ROLE_DENIED.
        """
        proposal = self.get(run_id)
        try:
            target = transition(proposal.state, event, role)
        except MeshError as refusal:
            self.refused(proposal, event.value, actor, refusal)
            raise
        moved = replace(
            proposal,
            **{
                "state": target,
                "updated_ms": self._state.clock.now_ms(),
                "end_reason": end,
                "message": message,
                **(changes or {}),
            },
        )
        facts = {**audit_fields(proposal), "from": proposal.state.value, "to": target.value, **(fields or {})}
        if end:
            facts["end_reason"] = end
        with self._state.unit.transaction():
            self._store(moved)
            self._state.audit.append(f"federated.{target.value}", actor, facts)
        self._wake()
        if proposal.state is ProposalState.APPROVED:
            for callback in self._left:
                callback(run_id)
        return moved

    def refused(self, proposal: Proposal, what: str, actor: str, refusal: MeshError) -> None:
        """Write down that a step was tried and refused."""
        facts = {
            **audit_fields(proposal),
            "attempt": what,
            "state": proposal.state.value,
            "reason": refusal.reason,
        }
        self._state.audit.append("federated.attempt_refused", actor, facts)

    def _store(self, moved: Proposal) -> None:
        proposals = self._state.proposals
        proposals.save(moved)
        part = _PARTS.get(moved.state)
        if part is not None:
            proposals.owe(moved.run_id, part, moved.end_reason)
        else:
            proposals.settle_run(moved.run_id)
        if moved.state not in ACTIVE:
            proposals.forget_key(moved.run_id)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


def audit_fields(proposal: Proposal) -> dict[str, object]:
    """Return what every audit entry about a proposal says."""
    return {
        "run_id": proposal.run_id,
        "aggregator": proposal.aggregator,
        "datasets": [proposal.dataset.name],
    }


def run_unknown(run_id: str) -> NotFound:
    """Return the error for a run that was not proposed here, or that the caller may not know of."""
    return NotFound("There is no such run.", reason="RUN_UNKNOWN", metadata={"run_id": run_id[:64]})


def _binding(proposal: Proposal) -> dict[str, object]:
    return {
        "app_digest": proposal.app_digest,
        "app_name": proposal.app_name,
        "runtime_digest": proposal.runtime_digest,
        "versions": {proposal.dataset.name: proposal.dataset.digest},
        "recipients": [recipient.email for recipient in proposal.recipients],
        "train_tasks": proposal.train_tasks,
        "evaluate_tasks": proposal.evaluate_tasks,
        "purpose": proposal.purpose,
        "expires_ms": proposal.expires_ms,
    }
