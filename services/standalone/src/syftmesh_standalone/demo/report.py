"""What the demo says at its end: a table for people, one document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from syftmesh_standalone.demo.data import DIAGNOSIS, FEATURES
from syftmesh_standalone.demo.step import StepResult
from syftmesh_standalone.demo.story import OWNERS, Story

_POOLED = "pooled"


def document(story: Story, results: Sequence[StepResult], seconds: float, *, kept: bool) -> dict[str, Any]:
    """Return the document of ``--json``; its keys are stable.

    Args:
        story: The state at the end.
        results: Of every step.
        seconds: Of the whole demo.
        kept: Whether the state folder stays.
    """
    scan = story.scan
    return {
        "ok": True,
        "seconds": round(seconds, 3),
        "steps": [
            {"number": step.number, "title": step.title, "seconds": step.seconds, "checks": list(step.checks)}
            for step in results
        ],
        "results": {"sites": story.answers, _POOLED: story.pooled},
        "federated": story.training.document(),
        "bytes_out": story.bytes_out,
        "canary": {
            "scanned_bytes": scan.scanned_bytes,
            "unpacked_bytes": scan.unpacked_bytes,
            "places": scan.places,
            "findings": scan.found,
            "damaged": len(scan.damaged),
            "unreadable": len(scan.unreadable),
            "controls": story.controls,
        },
        "audit": story.audit,
        "state": {"folder": str(story.state), "kept": kept},
    }


def table(story: Story) -> Iterator[str]:
    """Give the lines of the results table for people."""
    header = ["", DIAGNOSIS, "n", *FEATURES]
    rows = [_cells(owner, row) for owner in OWNERS for row in story.answers.get(owner, ())]
    rows += [_cells(_POOLED, row) for row in story.pooled]
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if at < 2 else cell.rjust(width) for at, (cell, width) in _numbered(row, widths)
        ]
        yield "  ".join(cells).rstrip()
    training = story.training
    if training.rounds:
        yield ""
        yield (
            f"federated: {training.rounds} rounds, accuracy {training.accuracy:.4f}; "
            f"trained on all rows in one place: {training.pooled:.4f}"
        )
        for owner in OWNERS:
            yield f"  {training.sent.get(owner, 0):,} sealed bytes of updates left {owner}"


def _cells(place: str, row: dict[str, Any]) -> list[str]:
    numbers = [f"{row[f'{name}_mean']:.3f} ± {row[f'{name}_std']:.3f}" for name in FEATURES]
    return [place, str(row[DIAGNOSIS]), str(row["n"]), *numbers]


def _numbered(row: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[int, tuple[str, int]]]:
    return enumerate(zip(row, widths, strict=True))
