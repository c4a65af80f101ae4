"""How a run ends: honestly, whatever Flower calls it."""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_superlink.domain.run import OUT, Phase, RoundReport, Run, RunState

MAX_MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """The aggregator's word on the end of a run."""

    ok: bool
    reason: str = ""
    message: str = ""


def final(run: Run, outcome: Outcome) -> Run:
    """Return the run in the final state that its reports prove.

    A run that trained is judged by its training rounds, one that only asked (federated analytics) by its
    queries. Finished means that in each of them at least the minimum of sites answered.
    """
    if not outcome.ok:
        reason = outcome.reason or "SERVER_APP_FAILED"
        message = outcome.message or "The ServerApp ended with an error."
        return run.ended(RunState.FAILED, reason, message[:MAX_MESSAGE_CHARACTERS])
    rounds = _deciding(run)
    if not any(reply.ok for report in rounds for reply in report.replies):
        return run.ended(
            RunState.FAILED, "NO_RESULTS", f"No site gave a result. {_dropped(run, rounds)}".strip()
        )
    short = [report.round for report in rounds if _ok_count(report) < run.minimum_sites]
    if short:
        named = ", ".join(map(str, short[:20]))
        return run.ended(
            RunState.FAILED,
            "TOO_FEW_SITES",
            f"Fewer than {run.minimum_sites} sites gave a result in round {named}. {_dropped(run, rounds)}".strip(),
        )
    dropped = _dropped(run, rounds)
    if dropped:
        return run.ended(RunState.PARTIAL, "SITES_DROPPED_OUT", dropped)
    return run.ended(RunState.SUCCEEDED)


def hopeless(run: Run) -> Run | None:
    """Return the run as failed when too many sites are out for it ever to finish, else None."""
    possible = len(run.approved) + len(run.undecided)
    if possible >= run.minimum_sites:
        return None
    out = "; ".join(_out(run).values())
    return run.ended(
        RunState.FAILED,
        "TOO_FEW_SITES",
        f"{possible} of {len(run.sites)} sites can take part and {run.minimum_sites} have to. {out}."[
            :MAX_MESSAGE_CHARACTERS
        ],
    )


def _deciding(run: Run) -> list[RoundReport]:
    trained = [report for report in run.reports if report.phase is Phase.TRAIN]
    return trained or [report for report in run.reports if report.phase is Phase.QUERY]


def _ok_count(report: RoundReport) -> int:
    return sum(reply.ok for reply in report.replies)


def _dropped(run: Run, rounds: list[RoundReport]) -> str:
    """Return who dropped out and why, in a sentence; empty when nobody did."""
    found = _out(run)
    for report in rounds:
        replies = {reply.site: reply for reply in report.replies}
        for site in run.sites:
            reply = replies.get(site.site)
            if site.site not in found and (reply is None or not reply.ok):
                why = f" ({reply.reason})" if reply is not None and reply.reason else ""
                found[site.site] = f"{site.site} gave nothing in round {report.round}{why}"
    return f"{'; '.join(found.values())}."[:MAX_MESSAGE_CHARACTERS] if found else ""


def _out(run: Run) -> dict[str, str]:
    return {
        site.site: f"{site.site} {site.state.value}{f' ({site.reason})' if site.reason else ''}"
        for site in run.sites
        if site.state in OUT
    }
