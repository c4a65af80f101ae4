"""Proposals of federated runs as the site keeps them, and what the owner demands of every answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.enc import parse_json
from syftmesh_core.federated import ProposalState, RunTerms, UpdateLimits

MIB: Final = 1 << 20
DEFAULT_UPDATE_BYTES: Final = 64 * MIB
MAX_UPDATE_BYTES: Final = 512 * MIB
DEFAULT_METRICS: Final = 64


@dataclass(frozen=True, slots=True)
class Proposal:
    """One run as it was proposed here, and all that became of it; see `mesh.federated.v1.Proposal`.

    The secret of the run is no part of it: it stays in the store, so that it is in no log, audit or answer.

    Attributes:
        run_id: Flower's own run id, a decimal number.
        aggregator: Authenticated principal who proposed it.
        aggregator_root: The aggregator's account root at arrival, 64 hex digits.
        app_digest: SHA-256 of the app bundle, hex.
        app_name: ``publisher/name version`` as the bundle says; empty when it cannot be read.
        dataset: Version of the private part it is bound to.
        run_config_json: RFC 8785 JSON of the overrides.
        recipients: Who reads updates in the clear.
        runtime_digest: Digest of the runtime at arrival, hex.
        train_tasks: Most training tasks.
        evaluate_tasks: Most evaluation and query tasks together.
        limits: The stricter of what was asked and what the owner demands.
        purpose: What for.
        partition: Number of this site in the run, from 0.
        partitions: Number of sites asked.
        created_ms: Unix milliseconds of arrival.
        expires_ms: Unix milliseconds from which neither proposal nor approval counts.
        fingerprint: SHA-256 over everything that the aggregator sent, hex; tells a repetition from a change.
        state: Where it is.
        updated_ms: Unix milliseconds of the last change of state.
        end_reason: Constant why it is over; empty while it is not. The aggregator is told.
        message: Explains it to the owner; it stays at the site.
        approvals: Signed approvals, hex of ``ENC('statement-signed', …)``.
        train_done: Training tasks answered.
        evaluate_done: Evaluation and query tasks answered.
        refused: Tasks refused, failed or held back.
        sent_bytes: What left the site for this run, sealed, in bytes.
    """

    run_id: str
    aggregator: str
    aggregator_root: str
    app_digest: str
    app_name: str
    dataset: DatasetVersion
    run_config_json: str
    recipients: tuple[Recipient, ...]
    runtime_digest: str
    train_tasks: int
    evaluate_tasks: int
    limits: UpdateLimits
    purpose: str
    partition: int
    partitions: int
    created_ms: int
    expires_ms: int
    fingerprint: str = field(repr=False)
    state: ProposalState = ProposalState.AWAITING_APPROVAL
    updated_ms: int = 0
    end_reason: str = ""
    message: str = ""
    approvals: tuple[str, ...] = field(default=(), repr=False)
    train_done: int = 0
    evaluate_done: int = 0
    refused: int = 0
    sent_bytes: int = 0

    @property
    def train_left(self) -> int:
        """Training tasks that may still be answered."""
        return 0 if self._is_spent else max(0, self.train_tasks - self.train_done)

    @property
    def evaluate_left(self) -> int:
        """Evaluation and query tasks that may still be answered."""
        return 0 if self._is_spent else max(0, self.evaluate_tasks - self.evaluate_done)

    @property
    def _is_spent(self) -> bool:
        # Code that fails on purpose runs too: so failures are bounded by the number of all tasks.
        return self.refused >= self.train_tasks + self.evaluate_tasks


def terms_of(proposal: Proposal) -> RunTerms:
    """Return the terms that an approval of `proposal` has to bind.

    Raises:
        IntegrityFailure: ENCODING_INVALID when its configuration is not an object in RFC 8785 form.
    """
    return RunTerms(
        run_id=proposal.run_id,
        app_digest=proposal.app_digest,
        run_config=parse_json(proposal.run_config_json.encode()),
        dataset=proposal.dataset,
        aggregator=proposal.aggregator,
        recipients=proposal.recipients,
        runtime_digest=proposal.runtime_digest,
        train_tasks=proposal.train_tasks,
        evaluate_tasks=proposal.evaluate_tasks,
        limits=proposal.limits,
        purpose=proposal.purpose,
        expires_ms=proposal.expires_ms,
    )


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """What the owner demands of every answer of every run.

    Attributes:
        max_update_bytes: Largest answer in bytes, at most `MAX_UPDATE_BYTES`.
        max_norm: L2 norm to which every update is clipped; 0 for none.
        max_metrics: Largest number of metric values.
    """

    max_update_bytes: int = DEFAULT_UPDATE_BYTES
    max_norm: float = 0.0
    max_metrics: int = DEFAULT_METRICS

    def clamp(self, asked: UpdateLimits, min_cell: int) -> UpdateLimits:
        """Return what holds when `asked` is asked for: the stricter of both in every respect; 0 is not asked.

        Args:
            asked: By the proposer.
            min_cell: Smallest group that a result on the dataset may show.
        """
        ceiling_bytes = min(self.max_update_bytes, MAX_UPDATE_BYTES)
        norms = [norm for norm in (asked.max_norm, self.max_norm) if norm > 0]
        return UpdateLimits(
            max_update_bytes=min(asked.max_update_bytes or ceiling_bytes, ceiling_bytes),
            max_norm=min(norms, default=0.0),
            min_rows=max(asked.min_rows, min_cell),
            max_metrics=min(asked.max_metrics or self.max_metrics, self.max_metrics),
        )
