"""A federated run as the hub tells of it: states, sites, rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mesh.federated.v1 import federated_pb2
from syftmesh_core.errors import IntegrityFailure


class RunState(StrEnum):
    """Where a run is."""

    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SiteState(StrEnum):
    """Where one site of a run is."""

    ASKED = "asked"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


FINAL: Final = frozenset({RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED})
"""States after which nothing follows."""

_RUN_STATES: Final[Mapping[int, RunState]] = {
    federated_pb2.RunState.Value(f"RUN_STATE_{state.value.upper()}"): state for state in RunState
}
_SITE_STATES: Final[Mapping[int, SiteState]] = {
    federated_pb2.SiteState.Value(f"SITE_STATE_{state.value.upper()}"): state for state in SiteState
}


@dataclass(frozen=True, slots=True)
class SiteRun:
    """One site's part in a run.

    Attributes:
        site: E-mail of the site.
        state: Where it is.
        reason: Constant when the site is out; empty while it is not.
        connected: Whether its SuperNode was heard lately.
    """

    site: str
    state: SiteState
    reason: str = ""
    connected: bool = False


@dataclass(frozen=True, slots=True)
class SiteReply:
    """Whether one site answered in a phase: `ok`, or the constant `reason`; the size is that of sealed bytes."""

    site: str
    ok: bool
    reason: str = ""
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One phase of a run as the aggregator saw it.

    Attributes:
        round: From 1.
        phase: train, evaluate or query.
        replies: Of each site that was asked.
        started_ms: When the messages went out, Unix milliseconds.
        ended_ms: When the last answer was in.
    """

    round: int
    phase: str
    replies: tuple[SiteReply, ...]
    started_ms: int = 0
    ended_ms: int = 0


@dataclass(frozen=True, slots=True)
class RunArtifact:
    """A file that the aggregator kept: name, place in its datasite, SHA-256 (hex) and size of its plain bytes."""

    name: str
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run at one moment.

    Attributes:
        id: Flower's own run id, a decimal number.
        state: Where it is.
        sites: The sites' parts, in the order in which they were asked.
        rounds: What the aggregator reported, in order.
        reason: Constant of a run that failed, was cancelled, is held or partial; else empty.
        message: Explains the reason to people.
        dataset: Name of the dataset at every site.
        rounds_asked: How many rounds it is to have.
        minimum_sites: The fewest sites that may finish.
        aggregator: Whose agent aggregates.
        app_name: publisher/name and version of the app.
        app_digest: SHA-256 of the app bundle, hex.
        run_config_json: Overrides of the app's run configuration.
        purpose: What for.
        artifacts: What the aggregator kept.
        stock: Whether a stock Flower client started it.
        created_ms: When it was created, Unix milliseconds.
        updated_ms: When anything of it changed last.
        deadline_ms: When it ends at the latest.
    """

    id: str
    state: RunState
    sites: tuple[SiteRun, ...]
    rounds: tuple[RoundReport, ...]
    reason: str = ""
    message: str = ""
    dataset: str = ""
    rounds_asked: int = 0
    minimum_sites: int = 0
    aggregator: str = ""
    app_name: str = ""
    app_digest: str = ""
    run_config_json: str = ""
    purpose: str = ""
    artifacts: tuple[RunArtifact, ...] = ()
    stock: bool = False
    created_ms: int = 0
    updated_ms: int = 0
    deadline_ms: int = 0

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self.state in FINAL


def run_snapshot(message: federated_pb2.Run) -> RunSnapshot:
    """Return what `message` says.

    Raises:
        IntegrityFailure: STATUS_INVALID: the run or a site of it is in a state that this version does not know.
    """
    state = _RUN_STATES.get(message.state)
    if state is None:
        raise _invalid("A run", message.state)
    return RunSnapshot(
        id=message.run_id,
        state=state,
        sites=tuple(_site_run(site) for site in message.site_runs),
        rounds=tuple(_report(report) for report in message.round_reports),
        reason=message.reason,
        message=message.message,
        dataset=message.dataset,
        rounds_asked=message.rounds,
        minimum_sites=message.minimum_sites,
        aggregator=message.aggregator,
        app_name=message.app_name,
        app_digest=message.app_digest,
        run_config_json=message.run_config_json,
        purpose=message.purpose,
        artifacts=tuple(RunArtifact(a.name, a.path, a.sha256, a.size_bytes) for a in message.artifacts),
        stock=message.stock,
        created_ms=message.created_unix_ms,
        updated_ms=message.updated_unix_ms,
        deadline_ms=message.deadline_unix_ms,
    )


def _site_run(message: federated_pb2.SiteRun) -> SiteRun:
    state = _SITE_STATES.get(message.state)
    if state is None:
        raise _invalid("A site of a run", message.state)
    return SiteRun(message.site, state, message.reason, message.connected)


def _report(message: federated_pb2.RoundReport) -> RoundReport:
    replies = tuple(SiteReply(r.site, r.ok, r.reason, r.received_bytes) for r in message.replies)
    return RoundReport(message.round, message.phase, replies, message.started_unix_ms, message.ended_unix_ms)


def _invalid(what: str, value: int) -> IntegrityFailure:
    return IntegrityFailure(
        f"{what} is in the state {value}, which is none.",
        reason="STATUS_INVALID",
        metadata={"state": str(value)},
    )
