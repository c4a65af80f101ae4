"""The state machine of a job, looked at in full: every state, event and role."""

from __future__ import annotations

import itertools

import pytest
from syftmesh_core.errors import PermissionDenied, WrongState
from syftmesh_core.job import (
    BEFORE_RUNNING,
    FINAL,
    SETTLED,
    TRANSITIONS,
    JobEnd,
    JobEvent,
    JobState,
    Role,
    allowed_ends,
    stop_event,
    transition,
)

# The machine as docs/protocol/rds.md writes it, said once more by hand.
LEGAL = {
    ("submitted", "receive", "runner"): "in_review",
    ("submitted", "refuse", "runner"): "rejected",
    ("in_review", "approve", "owner"): "approved",
    ("in_review", "reject", "owner"): "rejected",
    ("approved", "enqueue", "runner"): "queued",
    ("queued", "start", "runner"): "running",
    ("running", "succeed", "runner"): "succeeded",
    ("approved", "fail", "runner"): "failed",
    ("queued", "fail", "runner"): "failed",
    ("running", "fail", "runner"): "failed",
    ("approved", "cancel", "owner"): "cancelled",
    ("queued", "cancel", "owner"): "cancelled",
    ("running", "cancel", "owner"): "cancelled",
    ("running", "cancel", "submitter"): "cancelled",
    ("submitted", "withdraw", "submitter"): "withdrawn",
    ("in_review", "withdraw", "submitter"): "withdrawn",
    ("approved", "withdraw", "submitter"): "withdrawn",
    ("queued", "withdraw", "submitter"): "withdrawn",
    ("submitted", "expire", "runner"): "expired",
    ("in_review", "expire", "runner"): "expired",
    ("approved", "expire", "runner"): "expired",
    ("queued", "expire", "runner"): "expired",
    ("succeeded", "release", "owner"): "released",
    ("failed", "release", "owner"): "released",
    ("succeeded", "withhold", "owner"): "withheld",
    ("failed", "withhold", "owner"): "withheld",
}

EVERY = list(itertools.product(JobState, JobEvent, Role))


@pytest.mark.parametrize(("state", "event", "role"), EVERY, ids=lambda value: str(value))
def test_step_is_legal_exactly_where_the_protocol_says(state: JobState, event: JobEvent, role: Role) -> None:
    expected = LEGAL.get((state.value, event.value, role.value))
    if expected is not None:
        assert transition(state, event, role) == expected
        return
    ever = any(e == event.value and r == role.value for _, e, r in LEGAL)
    others_may = any(s == state.value and e == event.value for s, e, _ in LEGAL)
    with pytest.raises(PermissionDenied if not ever or others_may else WrongState) as caught:
        transition(state, event, role)
    assert caught.value.metadata["event"] == event.value


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_leaves_a_final_state(state: JobState) -> None:
    assert not [key for key in TRANSITIONS if key[0] is state]


def test_every_state_is_reached_and_settled_states_end_the_wait() -> None:
    reached = {target for target, _ in TRANSITIONS.values()} | {JobState.SUBMITTED}
    assert reached == set(JobState)
    assert {key[0] for key in TRANSITIONS}.isdisjoint(SETTLED)


@pytest.mark.parametrize("state", JobState)
def test_submitter_withdraws_before_running_and_cancels_while_running(state: JobState) -> None:
    assert (stop_event(state, Role.SUBMITTER) is JobEvent.WITHDRAW) == (state in BEFORE_RUNNING)
    assert stop_event(state, Role.OWNER) is JobEvent.CANCEL


def test_reasons_before_the_start_are_the_three_of_the_protocol() -> None:
    before = {JobEnd.APPROVAL_MISMATCH, JobEnd.DATASET_CHANGED, JobEnd.ISOLATION_FAILED}
    assert allowed_ends(JobState.QUEUED, JobEvent.FAIL) == before
    assert JobEnd.DATASET_CHANGED not in allowed_ends(JobState.RUNNING, JobEvent.FAIL)
    assert allowed_ends(JobState.IN_REVIEW, JobEvent.APPROVE) == frozenset()
