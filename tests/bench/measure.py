"""Pairs of measurements that alternate, what they give, and the table that tells it."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

MIN_PAIRS: Final = 5

Sample = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached.

    Attributes:
        limit: The bound.
        at_least: Whether the value is to be at or above the bound, rather than at or below it.
        of_ratio: Whether the ratio is bounded, rather than our own value.
        unit: Unit of a bounded value.
    """

    limit: float
    at_least: bool = False
    of_ratio: bool = True
    unit: str = ""

    def is_met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.limit:g}{'x' if self.of_ratio else ' ' + self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is measured.
        ours: Median of our samples.
        unit: Unit of `ours` and `peer`.
        peer: Median of the peer's samples, None without a peer.
        peer_name: Who the peer is.
        ratio: Median of the ratios of the pairs, None without a peer.
        spread: Lowest and highest ratio of a pair; without a peer lowest and highest of our samples.
        samples: How many pairs or samples.
        target: What is to be reached, empty where nothing is.
        verdict: ``met``, ``missed``, or ``shown`` where nothing is to be reached.
    """

    what: str
    ours: float
    unit: str
    peer: float | None
    peer_name: str
    ratio: float | None
    spread: tuple[float, float]
    samples: int
    target: str
    verdict: str


async def pairs(count: int, ours: Sample, peer: Sample) -> list[tuple[float, float]]:
    """Return `count` pairs of samples, after one of each that does not count; who begins alternates.

    Raises:
        ValueError: Fewer pairs than make a median worth telling.
    """
    if count < MIN_PAIRS:
        raise ValueError(f"at least {MIN_PAIRS} pairs")
    await ours()
    await peer()
    found = []
    for number in range(count):
        if number % 2:
            theirs = await peer()
            found.append((await ours(), theirs))
        else:
            mine = await ours()
            found.append((mine, await peer()))
    return found


def compared(
    what: str, unit: str, peer_name: str, found: Sequence[tuple[float, float]], target: Target | None
) -> Row:
    """Return the row of pairs."""
    ratios = [mine / theirs for mine, theirs in found]
    ratio = statistics.median(ratios)
    ours = statistics.median(mine for mine, _ in found)
    theirs = statistics.median(theirs for _, theirs in found)
    judged = ratio if target is None or target.of_ratio else ours
    return Row(
        what,
        ours,
        unit,
        theirs,
        peer_name,
        ratio,
        (min(ratios), max(ratios)),
        len(found),
        str(target or ""),
        _verdict(target, judged),
    )


def alone(
    what: str, unit: str, samples: Sequence[float], limit: float | None, *, highest: bool = False
) -> Row:
    """Return the row of something that has no peer, against an upper bound on its median.

    Args:
        what: What is measured.
        unit: Its unit.
        samples: The samples.
        limit: Upper bound, None to show only.
        highest: Judge the highest sample instead of the median.
    """
    target = None if limit is None else Target(limit, of_ratio=False, unit=unit)
    value = max(samples) if highest else statistics.median(samples)
    spread = (min(samples), max(samples))
    return Row(
        what, value, unit, None, "", None, spread, len(samples), str(target or ""), _verdict(target, value)
    )


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the sample below which `share` of all lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    head = ("what", "ours", "peer", "ratio (spread)", "target", "verdict")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    return "\n".join([texts[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *texts[1:]])


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows and what the machine is."""
    document = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Return what the numbers depend on, without names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "architecture": platform.machine(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _verdict(target: Target | None, value: float) -> str:
    if target is None:
        return "shown"
    return "met" if target.is_met(value) else "missed"


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.spread
    peer = "" if row.peer is None else f"{_number(row.peer)} {row.unit} ({row.peer_name})"
    ratio = (
        f"({_number(low)}-{_number(high)} {row.unit})"
        if row.ratio is None
        else f"{_number(row.ratio)} ({_number(low)}-{_number(high)})"
    )
    return (row.what, f"{_number(row.ours)} {row.unit}", peer, ratio, row.target, row.verdict)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
