"""Submissions arrive: checked, kept in quarantine, and written down together with the inbox entry.

What cannot be told to belong to a reader of the dataset is answered with an error and leaves only an audit
entry. What does belong and is wrong becomes a rejected job, so that a submitter who was offline learns why.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.enc import parse_json
from syftmesh_core.errors import (
    AlreadyExists,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    WrongState,
)
from syftmesh_core.job import JobEnd, JobEvent, Role

from syftmesh_runner.domain.job import Job, check_job_id
from syftmesh_runner.domain.ledger import RUNNER, Ledger, audit_fields
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.review import review_code
from syftmesh_runner.domain.state import SiteState

MAX_DATASETS: Final = 16
MAX_PURPOSE_BYTES: Final = 4096
MAX_PROJECT_BYTES: Final = 200
MAX_ENTRYPOINT_BYTES: Final = 1024
MAX_PARAMETERS_BYTES: Final = 64 * 1024
"""What the executor hands to the code at most."""
DEFAULT_REVIEW_S: Final = 14 * 24 * 3600
DEFAULT_APPROVAL_S: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a call: authenticated principal and account root, 32 bytes."""

    principal: str
    root: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submitter sends; see `mesh.rds.v1.JobSubmission`."""

    job_id: str
    datasets: tuple[DatasetVersion, ...]
    code_archive: bytes
    entrypoint: str
    parameters_json: str
    purpose: str
    project: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A submission that was looked at; `refusal` is what is wrong with it, None when nothing is."""

    job: Job
    refusal: MeshError | None


class Arrival:
    """Takes submissions.

    Args:
        state: What the site keeps.
        runtime: The runtime jobs will run in.
        ledger: Moves jobs.
        review_s: Seconds until an undecided job expires.
        approval_s: Seconds after that until an approval counts no more.
    """

    def __init__(
        self,
        state: SiteState,
        runtime: RuntimeIdentity,
        ledger: Ledger,
        *,
        review_s: int = DEFAULT_REVIEW_S,
        approval_s: int = DEFAULT_APPROVAL_S,
    ) -> None:
        self._state = state
        self._runtime = runtime
        self._ledger = ledger
        self._review_ms = review_s * 1000
        self._approval_ms = approval_s * 1000

    async def prepare(self, sender: Sender, submission: Submission) -> Prepared:
        """Look at a submission; nothing but quarantined code is stored.

        Raises:
            InvalidInput: JOB_INVALID: a field is malformed or too long.
            NotFound: DATASET_UNKNOWN: a dataset is not there, or the sender may not read its card.
            AlreadyExists: JOB_EXISTS: the id is taken by another submission.
        """
        try:
            _check_form(submission)
            known = self._known(sender, submission)
            if known is not None:
                return Prepared(known, None)
            for version in submission.datasets:
                self._check_readable(sender, version.name)
        except MeshError as refusal:
            facts = {
                "job_id": submission.job_id[:64],
                "submitter": sender.principal,
                "reason": refusal.reason,
            }
            self._state.audit.append("job.submission_refused", sender.principal, facts)
            raise
        job = await asyncio.to_thread(self._describe, sender, submission)
        try:
            self._check_versions(submission)
            files = await asyncio.to_thread(self._check_code, submission)
        except MeshError as refusal:
            return Prepared(job, refusal)
        return Prepared(replace(job, findings=await asyncio.to_thread(review_code, files)), None)

    def store(self, prepared: Prepared) -> Job:
        """Store a prepared submission as a job in review, or rejected; the second time nothing happens.

        Raises:
            AlreadyExists: JOB_EXISTS: another submission took the id meanwhile.
        """
        job, refusal = prepared.job, prepared.refusal
        with self._state.unit.transaction():
            known = self._state.jobs.get(job.job_id)
            if known is not None:
                if not _is_same(known, job):
                    raise _job_exists(job.job_id)
                return known
            self._state.jobs.save(job)
            self._state.audit.append("job.submitted", job.submitter, {**audit_fields(job), **_binding(job)})
            if refusal is None:
                return self._ledger.step(job.job_id, JobEvent.RECEIVE, Role.RUNNER, RUNNER)
            changed = refusal.reason == JobEnd.DATASET_CHANGED
            return self._ledger.step(
                job.job_id,
                JobEvent.REFUSE,
                Role.RUNNER,
                RUNNER,
                end=JobEnd.DATASET_CHANGED if changed else None,
                message=refusal.message,
                changes={} if changed else {"end_reason": refusal.reason},
                fields={"reason": refusal.reason},
            )

    def _known(self, sender: Sender, submission: Submission) -> Job | None:
        known = self._state.jobs.get(submission.job_id)
        if known is None:
            return None
        if not _is_same(known, self._describe(sender, submission)):
            raise _job_exists(submission.job_id)
        return known

    def _check_readable(self, sender: Sender, name: str) -> None:
        dataset = self._state.datasets.get(name)
        is_owner = sender.principal == self._state.owner
        if dataset is None or not (is_owner or dataset.may_be_read_by(sender.principal)):
            raise NotFound(
                f"There is no dataset {name[:80]!r} that you may use.",
                reason="DATASET_UNKNOWN",
                metadata={"dataset": name[:80]},
            )

    def _describe(self, sender: Sender, submission: Submission) -> Job:
        now_ms = self._state.clock.now_ms()
        root = sender.root.hex()
        return Job(
            job_id=submission.job_id,
            project=submission.project,
            submitter=sender.principal,
            submitter_root=root,
            datasets=submission.datasets,
            code_digest=hashlib.sha256(submission.code_archive).hexdigest(),
            entrypoint=submission.entrypoint,
            parameters_json=submission.parameters_json,
            runtime_digest=self._runtime.digest(),
            purpose=submission.purpose,
            recipients=(Recipient(sender.principal, root),),
            created_ms=now_ms,
            updated_ms=now_ms,
            expires_ms=now_ms + self._review_ms,
            approval_expires_ms=now_ms + self._review_ms + self._approval_ms,
        )

    def _check_versions(self, submission: Submission) -> None:
        for version in submission.datasets:
            dataset = self._state.datasets.get(version.name)
            if dataset is None or dataset.private_digest != version.digest:
                raise WrongState(
                    f"The dataset {version.name!r} has another version now: get its card and submit anew.",
                    reason="DATASET_CHANGED",
                    metadata={"dataset": version.name},
                )

    def _check_code(self, submission: Submission) -> Sequence[tuple[str, bytes]]:
        """Check parameters and code; return the files of the code. Runs in a thread: it asks no store."""
        _check_parameters(submission.parameters_json)
        files = self._state.folder.keep_code(submission.job_id, submission.code_archive)
        if submission.entrypoint not in {name for name, _ in files}:
            raise InvalidInput(
                f"The code has no file {submission.entrypoint[:120]!r}, which is named as its entrypoint.",
                reason="ENTRYPOINT_MISSING",
                metadata={"entrypoint": submission.entrypoint[:120]},
            )
        return files


def _binding(job: Job) -> dict[str, object]:
    return {
        "code_digest": job.code_digest,
        "runtime_digest": job.runtime_digest,
        "versions": {version.name: version.digest for version in job.datasets},
        "purpose": job.purpose,
        "project": job.project,
    }


def _check_form(submission: Submission) -> None:
    check_job_id(submission.job_id)
    names = [version.name for version in submission.datasets]
    if not 1 <= len(names) <= MAX_DATASETS or len(set(names)) != len(names):
        raise _job_invalid(f"A job names 1 to {MAX_DATASETS} datasets, each once.")
    limits = {
        "purpose": (submission.purpose, MAX_PURPOSE_BYTES),
        "project": (submission.project, MAX_PROJECT_BYTES),
        "entrypoint": (submission.entrypoint, MAX_ENTRYPOINT_BYTES),
        "parameters": (submission.parameters_json, MAX_PARAMETERS_BYTES),
    }
    for name, (text, limit_bytes) in limits.items():
        if len(text.encode("utf-8", "replace")) > limit_bytes:
            raise _job_invalid(f"The {name} of a job has at most {limit_bytes} bytes.")
    if not submission.purpose.strip():
        raise _job_invalid("A job says what it is for: give a purpose.")
    if not submission.entrypoint.endswith(".py"):
        raise _job_invalid("The entrypoint of a job is a Python file.")


def _check_parameters(text: str) -> None:
    try:
        parse_json(text.encode())
    except IntegrityFailure:
        raise InvalidInput(
            "The parameters are not a JSON object in RFC 8785 form.", reason="PARAMETERS_INVALID"
        ) from None


def _is_same(known: Job, other: Job) -> bool:
    def bytes_of(job: Job) -> tuple[object, ...]:
        binding = (job.code_digest, job.entrypoint, job.parameters_json, job.purpose, job.project)
        return (job.submitter, job.datasets, *binding)

    return bytes_of(known) == bytes_of(other)


def _job_invalid(message: str) -> InvalidInput:
    return InvalidInput(message, reason="JOB_INVALID")


def _job_exists(job_id: str) -> AlreadyExists:
    return AlreadyExists(
        "The job id belongs to another submission, whose bytes never change: submit under a new id.",
        reason="JOB_EXISTS",
        metadata={"job_id": job_id},
    )
