"""Findings: what static review or the release gate saw, without a private value in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs; only `BLOCK` keeps an output from leaving without a reason."""

    INFO = "info"
    WARNING = "warning"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a reviewer should know.

    Attributes:
        severity: How much it weighs.
        rule: Constant such as ``IMPORT_NETWORK`` or ``SMALL_CELL``.
        file: Where; a path inside the code or the output.
        line: Line or row from 1, 0 for the whole file.
        cell: Column of a table, empty when there is none.
        text: What it is, for people.
    """

    severity: Severity
    rule: str
    file: str
    line: int = 0
    cell: str = ""
    text: str = ""


def is_blocking(findings: Iterable[Finding]) -> bool:
    """Return whether one of `findings` blocks a release."""
    return any(finding.severity is Severity.BLOCK for finding in findings)
