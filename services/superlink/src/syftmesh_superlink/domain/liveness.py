"""What time does to a run: who is silent, what Flower says, and the deadline. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from syftmesh_superlink.domain.run import UNDER_WAY, Run, RunState, listed
from syftmesh_superlink.domain.verdict import Outcome, final

AWAY_S: Final = 20.0
LOST_S: Final = 90.0
SETTLE_S: Final = 10.0
"""Seconds that the aggregator has for its own word after its task ended at Flower."""


class TaskEnd(StrEnum):
    """How Flower says that the ServerApp's task ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a run at one moment.

    Attributes:
        now_ms: Wall time, Unix milliseconds.
        connected: Sites heard lately.
        silence_s: Seconds since the aggregator was heard.
        end: How the task ended at Flower, None while it has not.
        ended_for_s: Seconds since that was first seen.
    """

    now_ms: int
    connected: AbstractSet[str]
    silence_s: float
    end: TaskEnd | None = None
    ended_for_s: float = 0.0


def seen(run: Run, sight: Sight) -> Run:
    """Return the run as it stands now; the same one when nothing changed."""
    if run.is_final:
        return run
    if sight.now_ms >= run.deadline_ms:
        return _expired(run)
    if run.state not in UNDER_WAY:
        return run
    if sight.end is not None:
        return _ended(run, sight.end) if sight.ended_for_s >= SETTLE_S else run
    if sight.silence_s > LOST_S:
        return _ended(run, TaskEnd.LOST)
    return _held(run, sight)


def _held(run: Run, sight: Sight) -> Run:
    here = [site for site in run.approved if site in sight.connected]
    if sight.silence_s > AWAY_S:
        return _waiting(
            run, "AGGREGATOR_AWAY", "The aggregator is not heard; the run goes on when it is back."
        )
    if len(here) < run.minimum_sites:
        away = [site for site in run.approved if site not in sight.connected]
        return _waiting(
            run,
            "TOO_FEW_CONNECTED",
            f"{len(here)} sites are connected and {run.minimum_sites} have to be; not heard: {listed(away)}.",
        )
    return replace(run, state=RunState.RUNNING, reason="", message="")


def _waiting(run: Run, reason: str, message: str) -> Run:
    return replace(run, state=RunState.HELD, reason=reason, message=message)


def _ended(run: Run, end: TaskEnd) -> Run:
    if end is TaskEnd.COMPLETED:
        return final(run, Outcome(ok=True))
    if end is TaskEnd.LOST:
        return run.ended(RunState.FAILED, "AGGREGATOR_LOST", "The aggregator's process ended or was cut off.")
    if end is TaskEnd.UNKNOWN:
        return run.ended(RunState.FAILED, "RUN_LOST", "Flower's SuperLink does not know the run any more.")
    return final(run, Outcome(ok=False))


def _expired(run: Run) -> Run:
    undecided = f" Not decided: {listed(run.undecided)}." if run.undecided else ""
    return run.ended(
        RunState.FAILED, "DEADLINE_EXCEEDED", f"The run did not finish before its deadline.{undecided}"
    )
