"""Domain records to messages of mesh.federated.v1 and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_core.errors import InvalidInput

from syftmesh_superlink.domain.draft import Draft
from syftmesh_superlink.domain.progress import AggregatorReport
from syftmesh_superlink.domain.run import (
    Artifact,
    Phase,
    RoundReport,
    Run,
    RunState,
    SiteReply,
    SiteRun,
    SiteState,
)
from syftmesh_superlink.domain.verdict import Outcome

_RUN_STATES: Final = {state: pb.RunState.Value(f"RUN_STATE_{state.name}") for state in RunState}
_SITE_STATES: Final = {state: pb.SiteState.Value(f"SITE_STATE_{state.name}") for state in SiteState}
_SITE_STATES_BACK: Final = {value: state for state, value in _SITE_STATES.items()}


def run(record: Run, is_connected: Callable[[str], bool], node_of: Callable[[str], int | None]) -> pb.Run:
    """Return the run as a message; `is_connected` says whether a site is heard now, `node_of` which its node is."""
    return pb.Run(
        run_id=record.run_id,
        app_digest=record.app_digest,
        sites=[site.site for site in record.sites],
        dataset=record.dataset,
        state=_RUN_STATES[record.state],
        rounds=record.rounds,
        minimum_sites=record.minimum_sites,
        aggregator=record.aggregator,
        site_runs=[_site_run(site, record, is_connected, node_of) for site in record.sites],
        round_reports=[_round(report) for report in record.reports],
        reason=record.reason,
        message=record.message,
        created_unix_ms=record.created_ms,
        updated_unix_ms=record.updated_ms,
        deadline_unix_ms=record.deadline_ms,
        run_config_json=record.run_config_json,
        purpose=record.purpose,
        app_name=record.app_name,
        artifacts=[artifact(found) for found in record.artifacts],
        stock=record.stock,
    )


def artifact(record: Artifact) -> pb.Artifact:
    """Return the artifact as a message."""
    return pb.Artifact(name=record.name, path=record.path, sha256=record.sha256, size_bytes=record.size_bytes)


def draft(message: pb.Run) -> Draft:
    """Return what the caller says of a run."""
    return Draft(
        sites=tuple(message.sites),
        dataset=message.dataset,
        rounds=message.rounds,
        minimum_sites=message.minimum_sites,
        deadline_ms=message.deadline_unix_ms,
        run_config_json=message.run_config_json,
        purpose=message.purpose,
    )


def site_state(value: int) -> SiteState:
    """Return the state of a site.

    Raises:
        InvalidInput: It is none (REPORT_INVALID).
    """
    found = _SITE_STATES_BACK.get(value)  # type: ignore[call-overload]
    if found is None:
        raise InvalidInput("The report says no state of the site.", reason="REPORT_INVALID")
    return SiteState(found)


def report(request: rpc.ReportRoundRequest) -> AggregatorReport:
    """Return the aggregator's report.

    Raises:
        InvalidInput: A phase or state is none (REPORT_INVALID).
    """
    return AggregatorReport(
        round=_round_back(request.report) if request.HasField("report") else None,
        artifacts=tuple(Artifact(a.name, a.path, a.sha256, a.size_bytes) for a in request.artifacts),
        proposed=tuple(SiteRun(s.site, site_state(s.state), s.reason) for s in request.proposed),
        outcome=Outcome(ok=request.outcome.ok, reason=request.outcome.reason, message=request.outcome.message)
        if request.HasField("outcome")
        else None,
    )


def _site_run(
    record: SiteRun, of: Run, is_connected: Callable[[str], bool], node_of: Callable[[str], int | None]
) -> pb.SiteRun:
    connected = record.state is SiteState.APPROVED and not of.is_final and is_connected(record.site)
    return pb.SiteRun(
        site=record.site,
        state=_SITE_STATES[record.state],
        reason=record.reason,
        connected=connected,
        updated_unix_ms=record.updated_ms,
        node_id=(node_of(record.site) or 0) if record.state is SiteState.APPROVED else 0,
    )


def _round(record: RoundReport) -> pb.RoundReport:
    return pb.RoundReport(
        round=record.round,
        phase=record.phase.value,
        replies=[
            pb.SiteReply(site=r.site, ok=r.ok, reason=r.reason, received_bytes=r.received_bytes)
            for r in record.replies
        ],
        started_unix_ms=record.started_ms,
        ended_unix_ms=record.ended_ms,
    )


def _round_back(message: pb.RoundReport) -> RoundReport:
    try:
        phase = Phase(message.phase)
    except ValueError:
        raise InvalidInput("A phase is train, evaluate or query.", reason="REPORT_INVALID") from None
    replies = tuple(
        SiteReply(r.site, r.ok, "" if r.ok else r.reason, r.received_bytes) for r in message.replies
    )
    return RoundReport(message.round, phase, replies, message.started_unix_ms, message.ended_unix_ms)
