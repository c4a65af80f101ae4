"""The one place where a job changes its state: transition, storage, status and audit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from syftmesh_core.clock import Clock
from syftmesh_core.errors import MeshError, NotFound
from syftmesh_core.job import JobEnd, JobEvent, JobState, Role, allowed_ends, transition

from syftmesh_runner.domain.audit import AuditTrail
from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.ports import JobStore, Unit

RUNNER = "runner"
"""Actor of what the site's own machinery does."""


class Ledger:
    """Moves jobs through their states.

    Args:
        unit: Transactions.
        jobs: Where jobs are.
        audit: Where every step is written down.
        clock: Source of times.
        wakes: Called after each step, maybe from another thread and before its transaction is committed.
    """

    def __init__(
        self, unit: Unit, jobs: JobStore, audit: AuditTrail, clock: Clock, wakes: Sequence[Callable[[], None]]
    ) -> None:
        self._unit = unit
        self._jobs = jobs
        self._audit = audit
        self._clock = clock
        self._wakes = wakes

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFound: JOB_UNKNOWN.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise job_unknown(job_id)
        return job

    def step(
        self,
        job_id: str,
        event: JobEvent,
        role: Role,
        actor: str,
        *,
        end: JobEnd | None = None,
        message: str = "",
        changes: Mapping[str, Any] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Job:
        """Take one step of the state machine, or write down that somebody tried.

        Args:
            job_id: The job; read anew, so that a step is taken from where it is now.
            event: What happens.
            role: What the actor is to the job.
            actor: Principal, or `RUNNER`.
            end: Reason of an end.
            message: For people; the submitter reads it.
            changes: Other attributes of the job that change with it.
            fields: Further facts for the audit.

        Raises:
            NotFound: JOB_UNKNOWN.
            WrongState: WRONG_STATE.
            PermissionDenied: ROLE_DENIED.
        """
        job = self.get(job_id)
        try:
            target = transition(job.state, event, role)
        except MeshError as refusal:
            self.refused(job, event.value, actor, refusal)
            raise
        if end is not None and end not in allowed_ends(job.state, event):
            raise ValueError(f"{end} is no end of {event} in {job.state}")
        moved = replace(
            job,
            **{
                "state": target,
                "updated_ms": self._clock.now_ms(),
                "end_reason": end.value if end else job.end_reason,
                "message": message or job.message,
                **(changes or {}),
            },
        )
        facts = {**audit_fields(job), "from": job.state.value, "to": target.value, **(fields or {})}
        if end is not None:
            facts["end_reason"] = end.value
        with self._unit.transaction():
            self._jobs.save(moved)
            self._audit.append(f"job.{target.value}", actor, facts, checkpoint=target is JobState.RELEASED)
        for wake in self._wakes:
            wake()
        return moved

    def refused(self, job: Job, what: str, actor: str, refusal: MeshError) -> None:
        """Write down that a step was tried and refused."""
        facts = {**audit_fields(job), "attempt": what, "state": job.state.value, "reason": refusal.reason}
        self._audit.append("job.attempt_refused", actor, facts)


def audit_fields(job: Job) -> dict[str, object]:
    """Return what every audit entry about a job says."""
    return {"job_id": job.job_id, "submitter": job.submitter, "datasets": [d.name for d in job.datasets]}


def job_unknown(job_id: str) -> NotFound:
    """Return the error for a job that is not there, or that the caller may not know of."""
    return NotFound("There is no such job.", reason="JOB_UNKNOWN", metadata={"job_id": job_id[:64]})
