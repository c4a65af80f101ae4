"""What is said of federated runs and proposals: to programs with stable keys, to people as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from syftmesh.cli.output import Fields, Human, Table, shown, size_text, unix_ms_text

if TYPE_CHECKING:
    from syftmesh.run_status import RoundReport, RunSnapshot
    from syftmesh.site_run import Proposal

_NESTED = frozenset({"sites", "rounds", "artifacts", "config", "proposal"})


def run_document(run: RunSnapshot) -> dict[str, Any]:
    """Return what is said of a run."""
    return {
        "id": run.id,
        "state": str(run.state),
        "final": run.final,
        "reason": run.reason,
        "message": run.message,
        "dataset": run.dataset,
        "purpose": run.purpose,
        "app": run.app_name,
        "app_digest": run.app_digest,
        "config": json.loads(run.run_config_json or "{}"),
        "aggregator": run.aggregator,
        "rounds_asked": run.rounds_asked,
        "minimum_sites": run.minimum_sites,
        "stock": run.stock,
        "sites": [
            {"site": s.site, "state": str(s.state), "reason": s.reason, "connected": s.connected}
            for s in run.sites
        ],
        "rounds": [round_document(report) for report in run.rounds],
        "artifacts": [
            {"name": a.name, "size_bytes": a.size_bytes, "sha256": a.sha256} for a in run.artifacts
        ],
        "created": unix_ms_text(run.created_ms),
        "updated": unix_ms_text(run.updated_ms),
        "deadline": unix_ms_text(run.deadline_ms),
    }


def round_document(report: RoundReport) -> dict[str, Any]:
    """Return what is said of one phase."""
    return {
        "round": report.round,
        "phase": report.phase,
        "replies": [
            {"site": r.site, "ok": r.ok, "reason": r.reason, "received_bytes": r.received_bytes}
            for r in report.replies
        ],
        "started": unix_ms_text(report.started_ms),
        "ended": unix_ms_text(report.ended_ms),
        "took_s": (report.ended_ms - report.started_ms) / 1000,
    }


def proposal_document(proposal: Proposal) -> dict[str, Any]:
    """Return what is said of a proposal: everything that an approval binds, and what was done."""
    limits = proposal.limits
    return {
        "id": proposal.run_id,
        "site": proposal.site,
        "state": str(proposal.state),
        "reason": proposal.reason,
        "message": proposal.message,
        "aggregator": proposal.aggregator,
        "purpose": proposal.purpose,
        "app": proposal.app_name,
        "app_digest": proposal.app_digest,
        "dataset": {"name": proposal.dataset.name, "digest": proposal.dataset.digest},
        "config": dict(proposal.run_config),
        "recipients": [{"email": r.email, "root": r.root} for r in proposal.recipients],
        "train_tasks": proposal.train_tasks,
        "evaluate_tasks": proposal.evaluate_tasks,
        "limits": {
            "max_update_bytes": limits.max_update_bytes,
            "max_norm": limits.max_norm,
            "min_rows": limits.min_rows,
            "max_metrics": limits.max_metrics,
        },
        "runtime_digest": proposal.runtime_digest,
        "partition": proposal.partition,
        "partitions": proposal.partitions,
        "train_tasks_done": proposal.train_tasks_done,
        "evaluate_tasks_done": proposal.evaluate_tasks_done,
        "refused_tasks": proposal.refused_tasks,
        "sent_bytes": proposal.sent_bytes,
        "created": unix_ms_text(proposal.created_ms),
        "updated": unix_ms_text(proposal.updated_ms),
        "expires": unix_ms_text(proposal.expires_ms),
    }


def run_parts(document: Mapping[str, Any]) -> tuple[Human, ...]:
    """Return a run for people."""
    pairs = [(n, v) for n, v in document.items() if n not in _NESTED and v not in ("", None)]
    pairs += [("config", config_text(document["config"]))] if document["config"] else []
    sites = [[s["site"], s["state"], s["reason"] or None, s["connected"]] for s in document["sites"]]
    rounds = [
        [
            r["round"],
            r["phase"],
            reply["site"],
            "ok" if reply["ok"] else reply["reason"] or "no answer",
            size_text(reply["received_bytes"]),
            f"{r['took_s']:.1f} s",
        ]
        for r in document["rounds"]
        for reply in r["replies"]
    ]
    parts: list[Human] = [Fields(pairs), "", Table(["site", "state", "reason", "connected"], sites)]
    if rounds:
        parts += ["", Table(["round", "phase", "site", "answer", "size", "took"], rounds)]
    if document["artifacts"]:
        parts += ["", artifact_table(document["artifacts"])]
    return tuple(parts)


def artifact_table(artifacts: list[dict[str, Any]]) -> Table:
    """Return what a run left, for people."""
    rows = [[a["name"], size_text(a["size_bytes"]), a["sha256"]] for a in artifacts]
    return Table(["file", "size", "sha256"], rows, "The run has left nothing (yet).")


def proposal_parts(document: Mapping[str, Any]) -> tuple[Human, ...]:
    """Return a proposal for who decides on it."""
    limits = document["limits"]
    nested = {"dataset", "config", "recipients", "limits"}
    pairs = [(n, v) for n, v in document.items() if n not in nested and v not in ("", None)]
    pairs += [
        ("dataset", document["dataset"]["name"]),
        ("dataset digest", document["dataset"]["digest"]),
        ("config", config_text(document["config"]) or "the app's own"),
        *((f"updates go to {r['email']}", r["root"]) for r in document["recipients"]),
        ("largest update", size_text(limits["max_update_bytes"])),
        ("largest norm", f"{limits['max_norm']:g}" if limits["max_norm"] else "not clipped"),
        ("fewest rows", limits["min_rows"]),
        ("most metrics", limits["max_metrics"]),
    ]
    return (Fields(pairs),)


def config_text(config: Mapping[str, Any]) -> str:
    """Return overrides of a configuration in one line."""
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in config.items())


class Ticker:
    """Says in lines what is new of a run.

    Args:
        say: Takes one line.
    """

    def __init__(self, say: Any) -> None:
        self._say = say
        self._state = ""
        self._sites: dict[str, str] = {}
        self._rounds = 0

    def __call__(self, run: RunSnapshot) -> None:
        """Say what `run` has that the one before had not."""
        state = _joined(run.state, run.reason, run.message)
        if state != self._state:
            self._state = state
            self._say(f"run {run.id}: {state}")
        for site in run.sites:
            part = _joined(site.state, site.reason, "" if site.connected else "not connected")
            if self._sites.get(site.site) != part:
                self._sites[site.site] = part
                self._say(f"  {site.site}: {part}")
        for report in run.rounds[self._rounds :]:
            answers = ", ".join(
                f"{r.site} {size_text(r.received_bytes) if r.ok else r.reason or 'no answer'}"
                for r in report.replies
            )
            took_s = (report.ended_ms - report.started_ms) / 1000
            self._say(f"  round {report.round} {report.phase}, {took_s:.1f} s: {shown(answers)}")
        self._rounds = max(self._rounds, len(run.rounds))


def _joined(state: str, reason: str, message: str) -> str:
    return ", ".join(filter(None, (str(state), reason, message)))
