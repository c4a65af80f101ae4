"""What whoever executes tasks may do: every task is checked anew against what the owner signed.

The terms are built again from the bytes on disk; the database is not believed. See `execution`, which does the
same for jobs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.enc import parse_json
from syftmesh_core.errors import (
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    Unavailable,
    WrongState,
)
from syftmesh_core.federated import (
    FEDERATED_APPROVAL_KIND,
    ProposalState,
    UpdateLimits,
    first_difference,
)

from syftmesh_runner.domain.dataset import Policy, version_digest
from syftmesh_runner.domain.ledger import RUNNER
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.proposal import Proposal, UpdatePolicy, terms_of
from syftmesh_runner.domain.proposal_decision import terms_differ
from syftmesh_runner.domain.proposal_ledger import ProposalLedger, audit_fields
from syftmesh_runner.domain.signature import ReviewerCheck, approval_expired
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.table import read_tables


class TaskKind(StrEnum):
    """What a task does; queries are counted with evaluations."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    QUERY = "query"


_KINDS: Final = frozenset(kind.value for kind in TaskKind)


@dataclass(frozen=True, slots=True)
class Grant:
    """What the owner lets happen now.

    Attributes:
        run_id: The run.
        app_digest: SHA-256 of the bundle, hex; checked against the file.
        run_key: Secret of the run between site and aggregator, 32 bytes.
        bundle: File of the app bundle.
        data: Folder of the private part of the dataset; checked, to be mounted read-only.
        dataset: Version of it.
        rows: Rows of its largest table; of a dataset without tables, the number of its files.
        limits: What bounds one answer; never wider than what was signed.
        wall_s: Longest task in seconds, of the dataset's policy.
        aggregator: Who proposed the run.
        recipients: Who reads updates in the clear.
        run_config: Overrides of the app's run configuration.
        partition: Number of this site, from 0.
        partitions: Number of sites.
        train_left: Training tasks that may still be answered.
        evaluate_left: Evaluation and query tasks that may still be answered.
        expires_ms: Unix milliseconds from which nothing of this counts.
    """

    run_id: str
    app_digest: str
    run_key: bytes = field(repr=False)
    bundle: Path
    data: Path
    dataset: DatasetVersion
    rows: int
    limits: UpdateLimits
    wall_s: int
    aggregator: str
    recipients: tuple[Recipient, ...]
    run_config: Mapping[str, object]
    partition: int
    partitions: int
    train_left: int
    evaluate_left: int
    expires_ms: int


class ApprovedRuns:
    """Checks tasks against approvals, and counts them.

    Args:
        state: What the site keeps.
        ledger: Moves proposals.
        reviewers: Verifies approvals once more.
        runtime: The runtime that tasks run in.
        policy: What the owner demands of answers now.
    """

    def __init__(
        self,
        state: SiteState,
        ledger: ProposalLedger,
        reviewers: ReviewerCheck,
        runtime: RuntimeIdentity,
        policy: UpdatePolicy,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._reviewers = reviewers
        self._runtime = runtime
        self._policy = policy
        self._rows: dict[DatasetVersion, int] = {}

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the run id when a run is approved no more; its process is to be ended then."""
        self._ledger.on_left(callback)

    async def authorise(self, run_id: str, app_digest: str, now_ms: int, *, kind: str | None = None) -> Grant:
        """Return what may happen for a task; ask before each one.

        Args:
            run_id: As the task says.
            app_digest: As the task says, hex.
            now_ms: Unix milliseconds.
            kind: What the task does, of `TaskKind`, where that is known already.

        Raises:
            InvalidInput: TASK_KIND_UNKNOWN.
            NotFound: RUN_UNKNOWN: it was not proposed here.
            WrongState: NOT_APPROVED (metadata `state`), APPROVAL_EXPIRED, APPROVAL_MISMATCH (metadata
                `term`), DATASET_CHANGED.
            LimitExceeded: TASKS_EXHAUSTED: no task (of that kind) is left.
            Unavailable: Whether the approval holds cannot be told now.
        """
        proposal = self._current(run_id, app_digest, now_ms, kind)
        self._policy_of(proposal)
        held, rows = await asyncio.to_thread(self._held, proposal)
        await self._check_approvals(proposal, held)
        # The owner may have left while files and signatures were checked.
        proposal = self._current(run_id, app_digest, now_ms, kind)
        return self._grant(proposal, rows)

    def record_task(self, run_id: str, kind: str, outcome_reason: str, sent_bytes: int) -> None:
        """Count a task and write it down.

        Args:
            run_id: As the task says; it need not have been proposed here.
            kind: What the task does; one that is none of `TaskKind` was not answered.
            outcome_reason: Empty when it was answered, else the constant why not.
            sent_bytes: What left the site, sealed, in bytes.
        """
        is_ok = not outcome_reason and kind in _KINDS
        done = TaskKind(kind) if kind in _KINDS else None
        facts: dict[str, object] = {
            "run_id": run_id[:64],
            "kind": done.value if done else "unknown",
            "ok": is_ok,
            "reason": outcome_reason,
            "sent_bytes": sent_bytes,
        }
        with self._state.unit.transaction():
            proposal = self._state.proposals.get(run_id)
            if proposal is not None:
                facts = {**audit_fields(proposal), **facts}
                self._state.proposals.save(_counted(proposal, done, sent_bytes, is_ok=is_ok))
            self._state.audit.append("federated.task", RUNNER, facts)

    def keep_log(self, run_id: str, stdout: bytes, stderr: bytes) -> None:
        """Keep what the app of a run printed, for the owner, in place of what it printed before.

        Raises:
            NotFound: RUN_UNKNOWN: it was not proposed here.
        """
        self._state.folder.keep_run_log(self._ledger.get(run_id).run_id, stdout, stderr)

    def _current(self, run_id: str, app_digest: str, now_ms: int, kind: str | None) -> Proposal:
        proposal = self._ledger.get(run_id)
        if proposal.state is not ProposalState.APPROVED:
            raise WrongState(
                f"The run is {proposal.state} at this site: no task of it runs.",
                reason="NOT_APPROVED",
                metadata={"state": proposal.state.value},
            )
        if now_ms >= proposal.expires_ms:
            raise approval_expired()
        if app_digest != proposal.app_digest:
            raise terms_differ("app_digest")
        if kind is None:
            left = proposal.train_left + proposal.evaluate_left
        else:
            left = proposal.train_left if _kind(kind) is TaskKind.TRAIN else proposal.evaluate_left
        if not left:
            raise LimitExceeded(
                "All tasks that the owner approved have run: start a new run.", reason="TASKS_EXHAUSTED"
            )
        return proposal

    def _policy_of(self, proposal: Proposal) -> Policy:
        version = proposal.dataset
        dataset = self._state.datasets.get(version.name)
        if dataset is None or dataset.private_digest != version.digest:
            raise _dataset_changed(version)
        return dataset.policy

    def _held(self, proposal: Proposal) -> tuple[Proposal, int]:
        """Return the proposal with every digest computed from what lies on disk now, and the rows.

        Runs in a thread: it asks no store.
        """
        version, folder = proposal.dataset, self._state.folder
        part = folder.private_part(version.name, version.digest)
        try:
            files = folder.digests(part)
        except IntegrityFailure:
            raise _dataset_changed(version) from None
        if version_digest(files) != version.digest:
            raise _dataset_changed(version)
        bundle = folder.bundle(proposal.run_id, proposal.app_digest)
        held = replace(
            proposal,
            app_digest=hashlib.sha256(bundle).hexdigest(),
            runtime_digest=self._runtime.digest(),
        )
        return held, self._count_rows(version, part, sorted(files))

    def _count_rows(self, version: DatasetVersion, part: Path, files: list[str]) -> int:
        # By digest: the bytes were compared just now, so what was counted once is true.
        if version not in self._rows:
            tables = read_tables(part, files)
            self._rows[version] = max((len(frame) for frame in tables.values()), default=len(files))
        return self._rows[version]

    async def _check_approvals(self, proposal: Proposal, held: Proposal) -> None:
        issuers = set()
        for text in proposal.approvals:
            try:
                statement = await self._reviewers.verify(
                    bytes.fromhex(text), kind=FEDERATED_APPROVAL_KIND, submitter=proposal.aggregator
                )
            except (Unavailable, DeadlineExceeded):
                raise
            except MeshError as error:
                if error.reason == "APPROVAL_EXPIRED":
                    raise
                raise terms_differ("signature") from error
            term = first_difference(terms_of(held), statement.body)
            if term is not None:
                raise terms_differ(term)
            issuers.add(statement.issuer)
        if not issuers or len(issuers) < self._state.reviewers_of(proposal):
            raise terms_differ("reviewers")

    def _grant(self, proposal: Proposal, rows: int) -> Grant:
        version, folder, policy = proposal.dataset, self._state.folder, self._policy_of(proposal)
        return Grant(
            run_id=proposal.run_id,
            app_digest=proposal.app_digest,
            run_key=self._state.proposals.run_key(proposal.run_id),
            bundle=folder.bundle_path(proposal.run_id, proposal.app_digest),
            data=folder.private_part(version.name, version.digest),
            dataset=version,
            rows=rows,
            limits=self._policy.clamp(proposal.limits, policy.min_cell),
            wall_s=policy.wall_s,
            aggregator=proposal.aggregator,
            recipients=proposal.recipients,
            run_config=parse_json(proposal.run_config_json.encode()),
            partition=proposal.partition,
            partitions=proposal.partitions,
            train_left=proposal.train_left,
            evaluate_left=proposal.evaluate_left,
            expires_ms=proposal.expires_ms,
        )


def _kind(text: str) -> TaskKind:
    if text not in _KINDS:
        raise InvalidInput(
            f"{text[:32]!r} is no kind of task: it is one of {', '.join(TaskKind)}.",
            reason="TASK_KIND_UNKNOWN",
        )
    return TaskKind(text)


def _counted(proposal: Proposal, kind: TaskKind | None, sent_bytes: int, *, is_ok: bool) -> Proposal:
    trained, evaluated = is_ok and kind is TaskKind.TRAIN, is_ok and kind is not TaskKind.TRAIN
    return replace(
        proposal,
        train_done=proposal.train_done + trained,
        evaluate_done=proposal.evaluate_done + evaluated,
        refused=proposal.refused + (not is_ok),
        sent_bytes=proposal.sent_bytes + sent_bytes,
    )


def _dataset_changed(version: DatasetVersion) -> WrongState:
    return WrongState(
        f"The dataset {version.name} is not as approved any more: start a new run.",
        reason="DATASET_CHANGED",
        metadata={"dataset": version.name},
    )
