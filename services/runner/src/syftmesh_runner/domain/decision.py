"""Decisions about a job: approve, reject, stop, withhold, expire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from syftmesh_core.approval import APPROVAL_KIND, first_difference, terms_of
from syftmesh_core.errors import InvalidInput, MeshError, WrongState
from syftmesh_core.job import BEFORE_RUNNING, JobEnd, JobEvent, JobState, Role, stop_event, transition
from syftmesh_core.statement import parse_statement, statement_digest

from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.ledger import RUNNER, Ledger, audit_fields, job_unknown
from syftmesh_runner.domain.signature import ReviewerCheck, approval_expired
from syftmesh_runner.domain.state import SiteState

MAX_REASON_BYTES = 4096


class Decision:
    """Decides on jobs for owner and submitter.

    Args:
        state: What the site keeps.
        ledger: Moves jobs.
        reviewers: Verifies signed approvals.
        queued: Called when a job was queued.
    """

    def __init__(
        self, state: SiteState, ledger: Ledger, reviewers: ReviewerCheck, queued: Callable[[], None]
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._reviewers = reviewers
        self._queued = queued

    async def approve(self, job_id: str, signed: bytes) -> Job:
        """Take a signed approval; with enough of them the job is queued. The same again changes nothing.

        Raises:
            NotFound: JOB_UNKNOWN.
            WrongState: WRONG_STATE, APPROVAL_MISMATCH (metadata `term`), APPROVAL_EXPIRED.
            IntegrityFailure: SIGNATURE_INVALID.
            PermissionDenied: NOT_A_REVIEWER.
        """
        job = self._ledger.get(job_id)
        try:
            statement = await self._reviewers.verify(signed, kind=APPROVAL_KIND, submitter=job.submitter)
            job = self._ledger.get(job_id)
            if signed.hex() in job.approvals:
                return job
            transition(job.state, JobEvent.APPROVE, Role.OWNER)
            self._check_time(job)
            term = first_difference(terms_of(job), statement.body)
            if term is not None:
                raise approval_mismatch(term)
        except MeshError as refusal:
            self._ledger.refused(job, JobEvent.APPROVE.value, self._state.owner, refusal)
            raise
        return self._count(job, signed, statement.issuer)

    def _check_time(self, job: Job) -> None:
        now_ms = self._state.clock.now_ms()
        if now_ms >= job.approval_expires_ms:
            raise approval_expired()
        if now_ms >= job.expires_ms:
            raise WrongState("The job was not decided in time.", metadata={"state": job.state.value})

    def _count(self, job: Job, signed: bytes, issuer: str) -> Job:
        others = [text for text in job.approvals if parse_statement(bytes.fromhex(text)).issuer != issuer]
        approvals = (*others, signed.hex())
        facts = {"reviewer": issuer, "approval": statement_digest(signed).hex()}
        with self._state.unit.transaction():
            if len(approvals) < self._state.policy_of(job).required_reviewers:
                job = replace(job, approvals=approvals)
                self._state.jobs.save(job)
                self._state.audit.append("job.approval_counted", issuer, {**audit_fields(job), **facts})
                return job
            self._ledger.step(
                job.job_id,
                JobEvent.APPROVE,
                Role.OWNER,
                issuer,
                changes={"approvals": approvals},
                fields=facts,
            )
            job = self._ledger.step(job.job_id, JobEvent.ENQUEUE, Role.RUNNER, RUNNER)
        self._queued()
        return job

    def reject(self, job_id: str, reason: str) -> Job:
        """Refuse a job in review.

        Raises:
            NotFound: JOB_UNKNOWN.
            WrongState: WRONG_STATE.
            InvalidInput: REASON_MISSING: the submitter is to be told why.
        """
        return self._ledger.step(
            job_id,
            JobEvent.REJECT,
            Role.OWNER,
            self._state.owner,
            message=_reason(reason),
            fields={"why": reason},
        )

    def withhold(self, job_id: str, reason: str) -> Job:
        """Keep the outputs of an ended job at the site for good.

        Raises:
            NotFound: JOB_UNKNOWN.
            WrongState: WRONG_STATE.
            InvalidInput: REASON_MISSING.
        """
        return self._ledger.step(
            job_id,
            JobEvent.WITHHOLD,
            Role.OWNER,
            self._state.owner,
            message=_reason(reason),
            fields={"why": reason},
        )

    def cancel(self, job_id: str) -> tuple[Job, bool]:
        """End a job for the owner, from approval on; return it, and whether a run must be ended.

        Raises:
            NotFound: JOB_UNKNOWN.
            WrongState: WRONG_STATE: there is nothing to end.
        """
        job = self._ledger.get(job_id)
        return self._stop(job, Role.OWNER, self._state.owner), job.state is JobState.RUNNING

    def withdraw(self, job_id: str, actor: str) -> Job:
        """Take a job back for its submitter: withdrawn before it runs, cancelled while it does.

        Raises:
            NotFound: JOB_UNKNOWN: no such job, or the actor is no party to it.
            PermissionDenied: ROLE_DENIED: the actor is the owner and not the submitter.
            WrongState: WRONG_STATE: it has ended.
        """
        job = self.party(job_id, actor)
        if actor != job.submitter:
            return self._ledger.step(job_id, JobEvent.WITHDRAW, Role.OWNER, actor)  # refused and written down
        return self._stop(job, Role.SUBMITTER, actor)

    def _stop(self, job: Job, role: Role, actor: str) -> Job:
        event = stop_event(job.state, role)
        end = None
        if event is JobEvent.CANCEL:
            by_owner = role is Role.OWNER
            end = JobEnd.CANCELLED_BY_OWNER if by_owner else JobEnd.CANCELLED_BY_SUBMITTER
        return self._ledger.step(job.job_id, event, role, actor, end=end, message=f"Stopped by its {role}.")

    def party(self, job_id: str, actor: str) -> Job:
        """Return a job to its submitter or its owner.

        Raises:
            NotFound: JOB_UNKNOWN: no such job, or the actor is no party to it.
        """
        job = self._ledger.get(job_id)
        if actor not in (job.submitter, self._state.owner):
            raise job_unknown(job_id)
        return job

    def expire(self) -> list[Job]:
        """Expire what was not decided, or not started, in time; return what has expired."""
        now_ms = self._state.clock.now_ms()
        expired = []
        for job in self._state.jobs.in_state(*BEFORE_RUNNING):
            approved = job.state in (JobState.APPROVED, JobState.QUEUED)
            if now_ms < (job.approval_expires_ms if approved else job.expires_ms):
                continue
            end = JobEnd.APPROVAL_EXPIRED if approved else None
            message = f"It was not {'started' if approved else 'decided'} in time."
            expired.append(
                self._ledger.step(job.job_id, JobEvent.EXPIRE, Role.RUNNER, RUNNER, end=end, message=message)
            )
        return expired


def approval_mismatch(term: str) -> WrongState:
    """Return the error for an approval whose `term` is another one than the job's."""
    return WrongState(
        f"The approval does not fit the job: {term} differs. Read the job again and sign its terms.",
        reason="APPROVAL_MISMATCH",
        metadata={"term": term},
    )


def _reason(text: str) -> str:
    if not text.strip() or len(text.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        raise InvalidInput(
            f"Say why, in at most {MAX_REASON_BYTES} bytes: the submitter is told.", reason="REASON_MISSING"
        )
    return text
