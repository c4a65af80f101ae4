"""The life of a job as data: states, events, roles, and who may do what in which state.

docs/protocol/rds.md, "State machine". Everything here is pure; the service stores what `transition` answers
and audits what it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from syftmesh_core.errors import PermissionDenied, WrongState


class JobState(StrEnum):
    """Where a job is."""

    SUBMITTED = "submitted"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"
    WITHHELD = "withheld"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class JobEvent(StrEnum):
    """What happens to a job."""

    RECEIVE = "receive"
    REFUSE = "refuse"
    APPROVE = "approve"
    REJECT = "reject"
    ENQUEUE = "enqueue"
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    WITHDRAW = "withdraw"
    EXPIRE = "expire"
    RELEASE = "release"
    WITHHOLD = "withhold"


class Role(StrEnum):
    """What somebody is to a job."""

    SUBMITTER = "submitter"
    """Who sent it."""
    OWNER = "owner"
    """The site's owner or a reviewer the owner named."""
    RUNNER = "runner"
    """The site's own machinery."""


class JobEnd(StrEnum):
    """Why a job is over, for programs; a job that is rejected or withdrawn has a message and no reason."""

    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_LIMIT = "DISK_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    EXIT_NONZERO = "EXIT_NONZERO"
    ISOLATION_FAILED = "ISOLATION_FAILED"
    RUNNER_LOST = "RUNNER_LOST"
    CANCELLED_BY_OWNER = "CANCELLED_BY_OWNER"
    CANCELLED_BY_SUBMITTER = "CANCELLED_BY_SUBMITTER"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"
    APPROVAL_MISMATCH = "APPROVAL_MISMATCH"
    DATASET_CHANGED = "DATASET_CHANGED"
    QUOTA = "QUOTA"
    BUDGET = "BUDGET"


BEFORE_RUNNING: Final = frozenset(
    {JobState.SUBMITTED, JobState.IN_REVIEW, JobState.APPROVED, JobState.QUEUED}
)
"""States in which none of the job's code has run at the site."""

FINAL: Final = frozenset({JobState.CANCELLED, JobState.REJECTED, JobState.EXPIRED, JobState.WITHDRAWN})
"""States that nothing leaves."""

SETTLED: Final = FINAL | {JobState.RELEASED, JobState.WITHHELD}
"""States at which a submitter stops waiting."""

_S, _E, _R = JobState, JobEvent, Role
_OWNER, _SUBMITTER, _RUNNER = frozenset({_R.OWNER}), frozenset({_R.SUBMITTER}), frozenset({_R.RUNNER})

TRANSITIONS: Final[Mapping[tuple[JobState, JobEvent], tuple[JobState, frozenset[Role]]]] = {
    (_S.SUBMITTED, _E.RECEIVE): (_S.IN_REVIEW, _RUNNER),
    (_S.SUBMITTED, _E.REFUSE): (_S.REJECTED, _RUNNER),
    (_S.IN_REVIEW, _E.APPROVE): (_S.APPROVED, _OWNER),
    (_S.IN_REVIEW, _E.REJECT): (_S.REJECTED, _OWNER),
    (_S.APPROVED, _E.ENQUEUE): (_S.QUEUED, _RUNNER),
    (_S.QUEUED, _E.START): (_S.RUNNING, _RUNNER),
    (_S.RUNNING, _E.SUCCEED): (_S.SUCCEEDED, _RUNNER),
    (_S.APPROVED, _E.FAIL): (_S.FAILED, _RUNNER),
    (_S.QUEUED, _E.FAIL): (_S.FAILED, _RUNNER),
    (_S.RUNNING, _E.FAIL): (_S.FAILED, _RUNNER),
    (_S.APPROVED, _E.CANCEL): (_S.CANCELLED, _OWNER),
    (_S.QUEUED, _E.CANCEL): (_S.CANCELLED, _OWNER),
    (_S.RUNNING, _E.CANCEL): (_S.CANCELLED, _OWNER | _SUBMITTER),
    (_S.SUBMITTED, _E.WITHDRAW): (_S.WITHDRAWN, _SUBMITTER),
    (_S.IN_REVIEW, _E.WITHDRAW): (_S.WITHDRAWN, _SUBMITTER),
    (_S.APPROVED, _E.WITHDRAW): (_S.WITHDRAWN, _SUBMITTER),
    (_S.QUEUED, _E.WITHDRAW): (_S.WITHDRAWN, _SUBMITTER),
    (_S.SUBMITTED, _E.EXPIRE): (_S.EXPIRED, _RUNNER),
    (_S.IN_REVIEW, _E.EXPIRE): (_S.EXPIRED, _RUNNER),
    (_S.APPROVED, _E.EXPIRE): (_S.EXPIRED, _RUNNER),
    (_S.QUEUED, _E.EXPIRE): (_S.EXPIRED, _RUNNER),
    (_S.SUCCEEDED, _E.RELEASE): (_S.RELEASED, _OWNER),
    (_S.FAILED, _E.RELEASE): (_S.RELEASED, _OWNER),
    (_S.SUCCEEDED, _E.WITHHOLD): (_S.WITHHELD, _OWNER),
    (_S.FAILED, _E.WITHHOLD): (_S.WITHHELD, _OWNER),
}
"""Every legal step: state and event to the next state and the roles that may cause it."""

_BEFORE_START = frozenset({JobEnd.APPROVAL_MISMATCH, JobEnd.DATASET_CHANGED, JobEnd.ISOLATION_FAILED})
_OF_A_RUN = frozenset(
    {
        JobEnd.TIMEOUT,
        JobEnd.OUT_OF_MEMORY,
        JobEnd.DISK_LIMIT,
        JobEnd.PROCESS_LIMIT,
        JobEnd.OUTPUT_LIMIT,
        JobEnd.EXIT_NONZERO,
        JobEnd.ISOLATION_FAILED,
        JobEnd.RUNNER_LOST,
    }
)


def transition(state: JobState, event: JobEvent, role: Role) -> JobState:
    """Return the state that `event` by `role` leads to from `state`.

    Raises:
        PermissionDenied: ROLE_DENIED: the role may never cause the event, or not in this state.
        WrongState: WRONG_STATE: nobody may, in this state.
    """
    if not any(role in roles for (_, known), (_, roles) in TRANSITIONS.items() if known is event):
        raise _denied(state, event, role)
    step = TRANSITIONS.get((state, event))
    if step is None:
        raise WrongState(
            f"A job that is {state} cannot take the step '{event}'; look at its state and decide again.",
            metadata={"state": state.value, "event": event.value},
        )
    target, roles = step
    if role not in roles:
        raise _denied(state, event, role)
    return target


def stop_event(state: JobState, role: Role) -> JobEvent:
    """Return what it means when `role` stops a job: the submitter withdraws until it runs, else cancels."""
    if role is Role.SUBMITTER and state in BEFORE_RUNNING:
        return JobEvent.WITHDRAW
    return JobEvent.CANCEL


def allowed_ends(state: JobState, event: JobEvent) -> frozenset[JobEnd]:
    """Return the reasons of an end that may go with `event` in `state`; empty where there is none."""
    if event is JobEvent.FAIL:
        return _OF_A_RUN if state is JobState.RUNNING else _BEFORE_START
    if event is JobEvent.CANCEL:
        return frozenset({JobEnd.CANCELLED_BY_OWNER, JobEnd.CANCELLED_BY_SUBMITTER})
    if event is JobEvent.EXPIRE:
        return frozenset({JobEnd.APPROVAL_EXPIRED})
    if event is JobEvent.REFUSE:
        return frozenset({JobEnd.DATASET_CHANGED, JobEnd.QUOTA, JobEnd.BUDGET})
    return frozenset()


def _denied(state: JobState, event: JobEvent, role: Role) -> PermissionDenied:
    return PermissionDenied(
        f"The {role} of a job cannot take the step '{event}' while it is {state}.",
        reason="ROLE_DENIED",
        metadata={"state": state.value, "event": event.value, "role": role.value},
    )
