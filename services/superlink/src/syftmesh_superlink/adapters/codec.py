"""Runs as JSON in the key-value bucket; replies name their site by its number, or records would be large."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Final

from syftmesh_core.errors import IntegrityFailure

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

_PARTS: Final = frozenset({"sites", "reports", "artifacts", "state"})
_PLAIN: Final = tuple(found.name for found in fields(Run) if found.name not in _PARTS)


def encode(run: Run) -> bytes:
    """Return the bytes of a run."""
    number = {site.site: index for index, site in enumerate(run.sites)}
    document: dict[str, Any] = {name: getattr(run, name) for name in _PLAIN}
    document["state"] = run.state.value
    document["sites"] = [[s.site, s.state.value, s.reason, s.updated_ms] for s in run.sites]
    document["reports"] = [
        [
            report.round,
            report.phase.value,
            report.started_ms,
            report.ended_ms,
            [[number[r.site], int(r.ok), r.reason, r.received_bytes] for r in report.replies],
        ]
        for report in run.reports
    ]
    document["artifacts"] = [[a.name, a.path, a.sha256, a.size_bytes] for a in run.artifacts]
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Run:
    """Return the run in `data`.

    Raises:
        IntegrityFailure: It is damaged (RECORD_DAMAGED).
    """
    try:
        document = json.loads(data)
        sites = tuple(SiteRun(*(s[0], SiteState(s[1]), *s[2:])) for s in document["sites"])
        reports = tuple(
            RoundReport(
                found[0],
                Phase(found[1]),
                tuple(SiteReply(*(sites[r[0]].site, bool(r[1]), *r[2:])) for r in found[4]),
                found[2],
                found[3],
            )
            for found in document["reports"]
        )
        return Run(
            **{name: document[name] for name in _PLAIN},
            state=RunState(document["state"]),
            sites=sites,
            reports=reports,
            artifacts=tuple(Artifact(*found) for found in document["artifacts"]),
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise IntegrityFailure(
            "A record of a federated run is damaged. Restore it from a backup.", reason="RECORD_DAMAGED"
        ) from error
