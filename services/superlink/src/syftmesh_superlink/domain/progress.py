"""What each word about a run changes in it: pure, one function a word."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from syftmesh_core.errors import InvalidInput, PermissionDenied, WrongState

from syftmesh_superlink.domain.draft import MAX_REPLIES
from syftmesh_superlink.domain.run import (
    OUT,
    Artifact,
    RoundReport,
    Run,
    RunState,
    SiteRun,
    SiteState,
    listed,
)
from syftmesh_superlink.domain.verdict import MAX_MESSAGE_CHARACTERS, Outcome, final, hopeless

MAX_ARTIFACTS: Final = 500
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class AggregatorReport:
    """One report of the aggregator; every part is optional."""

    round: RoundReport | None = None
    artifacts: tuple[Artifact, ...] = ()
    proposed: tuple[SiteRun, ...] = ()
    outcome: Outcome | None = None


def require_aggregator(run: Run, principal: str) -> None:
    """Refuse everybody but the aggregator.

    Raises:
        PermissionDenied: NOT_THE_AGGREGATOR.
    """
    if principal != run.aggregator:
        raise PermissionDenied("Only the aggregator of the run may do this.", reason="NOT_THE_AGGREGATOR")


def require_open(run: Run) -> None:
    """Refuse to change a run that is over.

    Raises:
        WrongState: WRONG_STATE.
    """
    if run.is_final:
        raise WrongState(
            f"The run is over: {run.state.value}.", reason="WRONG_STATE", metadata={"state": run.state.value}
        )


def site_reported(run: Run, site: str, state: SiteState, reason: str, now_ms: int) -> Run:
    """Return the run after a site's word on itself; what it says twice changes nothing.

    Raises:
        WrongState: The run is over, or the site is out of it (WRONG_STATE).
        InvalidInput: The reason is no constant, or the state none to report (REPORT_INVALID).
    """
    require_open(run)
    if state is SiteState.ASKED or (reason and not _REASON.fullmatch(reason)):
        raise _refused("A site reports its new state, and a reason in UPPER_SNAKE.")
    known = run.site(site)
    if known is None or (known.state in OUT and known.state is not state):
        raise WrongState("The site is out of this run.", reason="WRONG_STATE")
    # A late word that the proposal arrived takes no approval back.
    if known.state is state or (state is SiteState.AWAITING_APPROVAL and known.state is SiteState.APPROVED):
        return run
    shown = reason if state in OUT else ""
    changed = run.with_site(SiteRun(site, state, shown, now_ms))
    return _settled(changed)


def aggregator_reported(run: Run, report: AggregatorReport, now_ms: int) -> Run:
    """Return the run after the aggregator's report.

    Raises:
        WrongState: The run is over (WRONG_STATE).
        InvalidInput: It names a foreign site, or is too large or malformed (REPORT_INVALID).
    """
    require_open(run)
    for site in report.proposed:
        run = _proposed(run, site, now_ms)
    if report.round is not None:
        run = _with_round(run, report.round)
    if report.artifacts:
        run = _with_artifacts(run, report.artifacts)
    if report.outcome is not None:
        if report.outcome.reason and not _REASON.fullmatch(report.outcome.reason):
            raise _refused("The reason of an outcome is a constant in UPPER_SNAKE.")
        return final(run, report.outcome)
    return _settled(run) if report.proposed else run


def may_start(run: Run, now_ms: int) -> None:
    """Refuse to start before the owners have decided.

    All have to decide while half of the time is not over; then those who approved go ahead without the rest.

    Raises:
        WrongState: The run is over (WRONG_STATE), or APPROVAL_MISSING.
    """
    require_open(run)
    half_ms = run.created_ms + (run.deadline_ms - run.created_ms) // 2
    if len(run.approved) >= run.minimum_sites and (not run.undecided or now_ms >= half_ms):
        return
    raise WrongState(
        f"{len(run.approved)} of {len(run.sites)} sites approved and {run.minimum_sites} have to; not decided: "
        f"{listed(run.undecided)}.",
        reason="APPROVAL_MISSING",
        metadata={"approved": str(len(run.approved)), "minimum": str(run.minimum_sites)},
        hint="Wait for the owners. From half of the time to the deadline on, the minimum is enough.",
    )


def started(run: Run, task_digest: str) -> Run:
    """Return the run with its task given to the aggregator."""
    return replace(run, state=RunState.RUNNING, reason="", message="", task_digest=task_digest)


def cancelled(run: Run, reason: str) -> Run:
    """Return the run cancelled by its aggregator.

    Raises:
        WrongState: It is over (WRONG_STATE).
    """
    require_open(run)
    said = f": {reason[:_MAX_TEXT_CHARACTERS]}" if reason else "."
    return run.ended(RunState.CANCELLED, "CANCELLED", f"The aggregator cancelled the run{said}")


def _proposed(run: Run, told: SiteRun, now_ms: int) -> Run:
    known = run.site(told.site)
    if known is None:
        raise _refused("The report names a site that is none of the run's.")
    if told.state not in (SiteState.AWAITING_APPROVAL, SiteState.FAILED):
        raise _refused("A proposal arrived at a site, or failed to.")
    if told.reason and not _REASON.fullmatch(told.reason):
        raise _refused("The reason of a site is a constant in UPPER_SNAKE.")
    if known.state is not SiteState.ASKED:
        return run  # the site itself has said more
    reason = told.reason if told.state is SiteState.FAILED else ""
    return run.with_site(SiteRun(told.site, told.state, reason, now_ms))


def _with_round(run: Run, report: RoundReport) -> Run:
    sites = {reply.site for reply in report.replies}
    if not sites <= {site.site for site in run.sites}:
        raise _refused("The report names a site that is none of the run's.")
    if report.round < 1 or len(sites) != len(report.replies):
        raise _refused("Rounds count from 1, and each site is named once.")
    if any(reply.reason and not _REASON.fullmatch(reply.reason) for reply in report.replies):
        raise _refused("The reason of a reply is a constant in UPPER_SNAKE.")
    others = [known for known in run.reports if (known.round, known.phase) != (report.round, report.phase)]
    reports = (*others, report)
    if len(reports) > MAX_REPLIES or sum(len(known.replies) for known in reports) > MAX_REPLIES:
        raise _refused(f"A run's reports hold at most {MAX_REPLIES} replies.")
    return replace(run, reports=reports)


def _with_artifacts(run: Run, written: tuple[Artifact, ...]) -> Run:
    for artifact in written:
        texts_fit = (
            0 < len(artifact.name) <= _MAX_TEXT_CHARACTERS and len(artifact.path) <= _MAX_TEXT_CHARACTERS
        )
        if not texts_fit or not _DIGEST.fullmatch(artifact.sha256):
            raise _refused("An artifact has a name, a path and a SHA-256 in hex.")
    known = {artifact.name: artifact for artifact in run.artifacts}
    known |= {artifact.name: artifact for artifact in written}
    if len(known) > MAX_ARTIFACTS:
        raise _refused(f"A run has at most {MAX_ARTIFACTS} artifacts.")
    return replace(run, artifacts=tuple(known.values()))


def _settled(run: Run) -> Run:
    failed = hopeless(run)
    if failed is not None:
        return failed
    if run.state is RunState.PENDING and any(site.state is not SiteState.ASKED for site in run.sites):
        return replace(run, state=RunState.AWAITING_APPROVAL)
    return run


def _refused(message: str) -> InvalidInput:
    return InvalidInput(message[:MAX_MESSAGE_CHARACTERS], reason="REPORT_INVALID")
