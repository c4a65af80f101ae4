"""States of jobs as the protocol writes them and as the SDK names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mesh.rds.v1 import rds_pb2
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.job import JobState
from syftmesh_core.quote import quoted

_PREFIX: Final = "JOB_STATE_"
_STATES: Final[Mapping[int, JobState]] = {
    rds_pb2.JobState.Value(f"{_PREFIX}{state.value.upper()}"): state for state in JobState
}


def state_of(value: int) -> JobState:
    """Return the state that `value` of `mesh.rds.v1.JobState` stands for.

    Raises:
        IntegrityFailure: STATUS_INVALID: it is unspecified, or none that this version knows.
    """
    state = _STATES.get(value)
    if state is None:
        raise IntegrityFailure(
            f"A job is in the state {value}, which is none.",
            reason="STATUS_INVALID",
            metadata={"state": str(value)},
        )
    return state


def state_value(state: JobState | str) -> rds_pb2.JobState.ValueType:
    """Return the value of `mesh.rds.v1.JobState` that stands for `state`.

    Raises:
        InvalidInput: STATE_INVALID.
    """
    try:
        return rds_pb2.JobState.Value(f"{_PREFIX}{JobState(state).value.upper()}")
    except ValueError as error:
        raise InvalidInput(
            f"{quoted(str(state))} is no state of a job; there are {', '.join(JobState)}.",
            reason="STATE_INVALID",
            metadata={"state": quoted(str(state))},
        ) from error
