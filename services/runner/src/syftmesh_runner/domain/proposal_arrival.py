"""Proposals of federated runs arrive: checked, the bundle fetched, and written down with the inbox entry.

What cannot be told to belong to the run's aggregator and to a reader of the dataset is answered with an error
and leaves only an audit entry. A bundle that is wrong makes a denied proposal, so that everybody learns why.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Final

from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.bundle import read_bundle
from syftmesh_core.enc import encode, parse_json
from syftmesh_core.errors import (
    AlreadyExists,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    WrongState,
)
from syftmesh_core.federated import (
    ProposalEvent,
    ProposalState,
    UpdateLimits,
    decimal_text,
    is_run_id,
)
from syftmesh_core.job import Role
from syftmesh_core.principal import is_principal

from syftmesh_runner.domain.arrival import MAX_PURPOSE_BYTES, Sender
from syftmesh_runner.domain.dataset import Dataset
from syftmesh_runner.domain.federated_port import HubRuns
from syftmesh_runner.domain.ledger import RUNNER
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.proposal import Proposal, UpdatePolicy
from syftmesh_runner.domain.proposal_ledger import ProposalLedger, run_unknown
from syftmesh_runner.domain.state import SiteState

MAX_RECIPIENTS: Final = 16
MAX_TASKS: Final = 100_000
MAX_PARTITIONS: Final = 10_000
MAX_CONFIG_BYTES: Final = 16 * 1024
MAX_ROWS: Final = 1 << 50
MAX_AHEAD_MS: Final = 30 * 24 * 3600 * 1000
MAX_UNDECIDED: Final = 50
"""Proposals of one aggregator that may wait for the owner at once."""
RUN_KEY_BYTES: Final = 32

_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What an aggregator sends; see `mesh.federated.v1.RunProposal`."""

    run_id: str
    app_digest: str
    dataset: str
    run_config_json: str
    recipients: tuple[Recipient, ...]
    train_tasks: int
    evaluate_tasks: int
    limits: UpdateLimits
    purpose: str
    deadline_ms: int
    partition: int
    partitions: int
    run_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PreparedProposal:
    """A proposal that was looked at; `refusal` is what is wrong with its bundle, None when nothing is."""

    proposal: Proposal
    run_key: bytes = field(repr=False)
    refusal: MeshError | None


class ProposalArrival:
    """Takes proposals.

    Args:
        state: What the site keeps.
        runtime: The runtime that tasks will run in.
        ledger: Moves proposals.
        hub: Gives runs and bundles.
        policy: What the owner demands of answers.
    """

    def __init__(
        self,
        state: SiteState,
        runtime: RuntimeIdentity,
        ledger: ProposalLedger,
        hub: HubRuns,
        policy: UpdatePolicy,
    ) -> None:
        self._state = state
        self._runtime = runtime
        self._ledger = ledger
        self._hub = hub
        self._policy = policy

    async def prepare(self, sender: Sender, request: RunRequest) -> PreparedProposal:
        """Look at a proposal; nothing but the bundle is stored.

        Raises:
            InvalidInput: RUN_INVALID (metadata `field`).
            NotFound: DATASET_UNKNOWN: it is not there, or the sender may not read its card; RUN_UNKNOWN: the
                hub knows no such run of the sender's.
            AlreadyExists: RUN_CHANGED: the run was proposed with other terms.
            LimitExceeded: LIMIT_EXCEEDED: too many proposals of the sender wait.
            WrongState: WRONG_STATE: the run is over at the hub.
            Unavailable: The hub cannot be reached.
        """
        try:
            _check_form(sender, request, self._state.clock.now_ms())
            fingerprint = _fingerprint(sender, request)
            known = self._known(sender, request.run_id, fingerprint)
            if known is not None:
                return PreparedProposal(known, b"", None)
            dataset = self._readable(sender, request.dataset)
            self._check_room(sender)
            await self._check_run(sender, request.run_id)
            bundle = await self._hub.bundle(request.run_id)
        except MeshError as refusal:
            facts = {
                "run_id": request.run_id[:64],
                "aggregator": sender.principal,
                "reason": refusal.reason,
            }
            self._state.audit.append("federated.proposal_refused", sender.principal, facts)
            raise
        proposal = await asyncio.to_thread(self._describe, sender, request, dataset, fingerprint)
        try:
            app_name = await asyncio.to_thread(self._keep_bundle, request, bundle)
        except MeshError as refusal:
            return PreparedProposal(proposal, request.run_key, refusal)
        return PreparedProposal(replace(proposal, app_name=app_name), request.run_key, None)

    def store(self, prepared: PreparedProposal) -> Proposal:
        """Store a prepared proposal: it waits for the owner, or is denied; the second time nothing happens.

        Raises:
            AlreadyExists: RUN_CHANGED: another proposal of the run came meanwhile.
        """
        proposal, refusal = prepared.proposal, prepared.refusal
        with self._state.unit.transaction():
            known = self._state.proposals.get(proposal.run_id)
            if known is not None:
                if known.fingerprint != proposal.fingerprint:
                    raise _run_changed(proposal.run_id)
                return known
            self._ledger.add(proposal, prepared.run_key, is_refused=refusal is not None)
            if refusal is None:
                return proposal
            return self._ledger.step(
                proposal.run_id,
                ProposalEvent.DENY,
                Role.RUNNER,
                RUNNER,
                end=refusal.reason,
                message=refusal.message,
            )

    def status(self, run_id: str, actor: str) -> Proposal:
        """Return a proposal to who proposed it.

        Raises:
            NotFound: RUN_UNKNOWN: no such run, or another proposed it.
        """
        proposal = self._ledger.get(run_id)
        if proposal.aggregator != actor:
            raise run_unknown(run_id)
        return proposal

    def _known(self, sender: Sender, run_id: str, fingerprint: str) -> Proposal | None:
        known = self._state.proposals.get(run_id)
        if known is None:
            return None
        if known.aggregator != sender.principal:
            raise run_unknown(run_id)
        if known.fingerprint != fingerprint:
            raise _run_changed(run_id)
        return known

    def _readable(self, sender: Sender, name: str) -> Dataset:
        dataset = self._state.datasets.get(name)
        is_owner = sender.principal == self._state.owner
        if dataset is None or not (is_owner or dataset.may_be_read_by(sender.principal)):
            raise NotFound(
                f"There is no dataset {name[:80]!r} that you may use.",
                reason="DATASET_UNKNOWN",
                metadata={"dataset": name[:80]},
            )
        return dataset

    def _check_room(self, sender: Sender) -> None:
        waiting = self._state.proposals.in_state(ProposalState.AWAITING_APPROVAL)
        if sum(proposal.aggregator == sender.principal for proposal in waiting) >= MAX_UNDECIDED:
            raise LimitExceeded(
                f"{MAX_UNDECIDED} proposals of yours wait for the owner here: cancel some, or wait.",
                metadata={"limit": str(MAX_UNDECIDED)},
            )

    async def _check_run(self, sender: Sender, run_id: str) -> None:
        # Or a stranger could take the run id of another's run before that other has asked.
        run = await self._hub.get(run_id)
        if run.aggregator != sender.principal:
            raise run_unknown(run_id)
        if run.end is not None:
            raise WrongState("The run is over at the hub: start a new one.", metadata={"state": run.state})

    def _describe(self, sender: Sender, request: RunRequest, dataset: Dataset, fingerprint: str) -> Proposal:
        now_ms = self._state.clock.now_ms()
        return Proposal(
            run_id=request.run_id,
            aggregator=sender.principal,
            aggregator_root=sender.root.hex(),
            app_digest=request.app_digest,
            app_name="",
            dataset=DatasetVersion(dataset.name, dataset.private_digest),
            run_config_json=request.run_config_json,
            recipients=request.recipients,
            runtime_digest=self._runtime.digest(),
            train_tasks=request.train_tasks,
            evaluate_tasks=request.evaluate_tasks,
            limits=self._policy.clamp(request.limits, dataset.policy.min_cell),
            purpose=request.purpose,
            partition=request.partition,
            partitions=request.partitions,
            created_ms=now_ms,
            updated_ms=now_ms,
            expires_ms=request.deadline_ms,
            fingerprint=fingerprint,
        )

    def _keep_bundle(self, request: RunRequest, data: bytes) -> str:
        """Check and keep a bundle; return the app's name. Runs in a thread: it asks no store."""
        if hashlib.sha256(data).hexdigest() != request.app_digest:
            raise bundle_changed("the one at the hub has another digest than the proposal names")
        bundle = read_bundle(data)
        self._state.folder.keep_bundle(request.run_id, request.app_digest, data)
        return f"{bundle.name} {bundle.version}"


def bundle_changed(what: str) -> IntegrityFailure:
    """Return the error for a bundle that is not the one that was proposed."""
    return IntegrityFailure(
        f"The app bundle is not the one that was proposed: {what}. Start a new run.", reason="BUNDLE_CHANGED"
    )


def _fingerprint(sender: Sender, request: RunRequest) -> str:
    limits = request.limits
    return hashlib.sha256(
        encode(
            "proposal",
            [
                sender.principal,
                sender.root,
                request.run_id,
                request.app_digest,
                request.dataset,
                request.run_config_json,
                [f"{recipient.email} {recipient.root}" for recipient in request.recipients],
                request.train_tasks,
                request.evaluate_tasks,
                [
                    limits.max_update_bytes,
                    decimal_text(limits.max_norm),
                    limits.min_rows,
                    limits.max_metrics,
                ],
                request.purpose,
                request.deadline_ms,
                request.partition,
                request.partitions,
                hashlib.sha256(request.run_key).digest(),
            ],
        )
    ).hexdigest()


def _check_form(sender: Sender, request: RunRequest, now_ms: int) -> None:
    if not is_run_id(request.run_id):
        raise _invalid("run_id", "is a decimal number from 1 to 2^64 - 1")
    if not _HEX_DIGEST.fullmatch(request.app_digest):
        raise _invalid("app_digest", "is 64 lower-case hex digits")
    if len(request.run_key) != RUN_KEY_BYTES:
        raise _invalid("run_key", f"has {RUN_KEY_BYTES} bytes")
    if not 1 <= request.partitions <= MAX_PARTITIONS or request.partition >= request.partitions:
        raise _invalid("partition", f"is below partitions, which is 1 to {MAX_PARTITIONS}")
    for name, tasks in (("train_tasks", request.train_tasks), ("evaluate_tasks", request.evaluate_tasks)):
        if not 1 <= tasks <= MAX_TASKS:
            raise _invalid(name, f"is 1 to {MAX_TASKS}")
    if not now_ms < request.deadline_ms <= now_ms + MAX_AHEAD_MS:
        raise _invalid("deadline", "lies ahead, by at most 30 days")
    if not request.purpose.strip() or len(request.purpose.encode()) > MAX_PURPOSE_BYTES:
        raise _invalid("purpose", f"says what the run is for, in at most {MAX_PURPOSE_BYTES} bytes")
    _check_recipients(sender, request.recipients)
    _check_limits(request.limits)
    _check_config(request.run_config_json)


def _check_recipients(sender: Sender, recipients: tuple[Recipient, ...]) -> None:
    emails = [recipient.email for recipient in recipients]
    if not 1 <= len(emails) <= MAX_RECIPIENTS or len(set(emails)) != len(emails):
        raise _invalid("recipients", f"are 1 to {MAX_RECIPIENTS}, each once")
    for recipient in recipients:
        if not is_principal(recipient.email) or not _HEX_DIGEST.fullmatch(recipient.root):
            raise _invalid(
                "recipients", "are e-mail addresses in lower case with 64 hex digits of their root"
            )
    if Recipient(sender.principal, sender.root.hex()) not in recipients:
        raise _invalid("recipients", "include the sender with the root of the sender's account")


def _check_limits(limits: UpdateLimits) -> None:
    try:
        decimal_text(limits.max_norm)
    except InvalidInput:
        raise _invalid("limits", "have a norm that is a number, 0 or larger") from None
    if limits.min_rows > MAX_ROWS:
        raise _invalid("limits", "ask for no more rows than a dataset can have")


def _check_config(text: str) -> None:
    if len(text.encode()) > MAX_CONFIG_BYTES:
        raise _invalid("run_config", f"has at most {MAX_CONFIG_BYTES} bytes")
    try:
        values = parse_json(text.encode()).values()
    except IntegrityFailure:
        raise _invalid("run_config", "is a JSON object in RFC 8785 form") from None
    # Flower's own rule: a flat table of numbers, texts and booleans.
    if not all(isinstance(value, bool | int | float | str) for value in values):
        raise _invalid("run_config", "has numbers, texts and booleans as values")


def _invalid(name: str, rule: str) -> InvalidInput:
    return InvalidInput(
        f"The proposal of a run is refused: {name} of one {rule}.",
        reason="RUN_INVALID",
        metadata={"field": name},
    )


def _run_changed(run_id: str) -> AlreadyExists:
    return AlreadyExists(
        "The run was proposed to this site with other terms, which never change: start a new run.",
        reason="RUN_CHANGED",
        metadata={"run_id": run_id},
    )
