"""The release gate: what every output and log of a run must pass before it may leave.

Findings name file and cell and never the private value. The gate lowers the risk of an accident and of crude
smuggling; a program that hides values in ways nobody thought of is what the reviewer of the code is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from syftmesh_core.errors import IntegrityFailure

from syftmesh_runner.domain.dataset import Policy
from syftmesh_runner.domain.decoding import Decoding
from syftmesh_runner.domain.finding import Finding, Severity
from syftmesh_runner.domain.identifier import IdentifierIndex
from syftmesh_runner.domain.private_row import PrivateTable, named_matches
from syftmesh_runner.domain.small_cell import small_cells, small_json, small_text
from syftmesh_runner.domain.table import Row, normal_cell, parse_csv

if TYPE_CHECKING:
    import pandas as pd

MAX_FINDINGS: Final = 50
"""Findings of one file; more say nothing that these do not."""
MAX_SCANNED_BYTES: Final = 8 << 20
PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_SUFFIXES: Final = frozenset({"csv", "tsv", "json", "jsonl", "txt", "md", "log", ""})
_ALLOWED_CONTROL: Final = frozenset("\t\n\r\x0c")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the outputs of one job are held against.

    Attributes:
        policy: The strictest of the datasets' policies.
        identifiers: Values that may not leave.
        tables: The private tables.
        categories: Normalised values by which private rows are grouped.
    """

    policy: Policy
    identifiers: IdentifierIndex
    tables: tuple[PrivateTable, ...]
    categories: frozenset[str]

    @classmethod
    def of_frames(cls, frames: Sequence[pd.DataFrame], policy: Policy) -> Gate:
        """Return the gate for private tables; reads them once."""
        tables = tuple(PrivateTable(frame) for frame in frames)
        categories = {
            cell
            for table in tables
            for column in table.columns
            if column.is_key
            for cell in set(column.cells)
        }
        return cls(
            policy=policy,
            identifiers=IdentifierIndex.of_frames(frames, policy.identifier_columns),
            tables=tables,
            categories=frozenset(categories - {""}),
        )

    def check(self, file: str, data: bytes) -> tuple[Finding, ...]:
        """Return what is to be said of one output or log, blocking findings first; at most 50."""
        found: dict[Finding, None] = {}
        for finding in self._all(file, data):
            found[finding] = None
            if len(found) >= MAX_FINDINGS:
                break
        order = {Severity.BLOCK: 0, Severity.WARNING: 1, Severity.INFO: 2}
        return tuple(sorted(found, key=lambda finding: order[finding.severity]))

    def _all(self, file: str, data: bytes) -> Iterator[Finding]:
        report = _Reporter(file)
        if len(data) > self.policy.max_result_bytes:
            yield report.block(
                "OUTPUT_TOO_LARGE", f"larger than the {self.policy.max_result_bytes} bytes allowed"
            )
        if len(data) > MAX_SCANNED_BYTES:
            yield report.block("NOT_SCANNED", "too large to be searched; look at it before it leaves")
            return
        yield from self._types(report, file, data)
        yield from self._identifiers(report, file, data)
        text = _text(data)
        if text is not None:
            yield from self._content(report, file, text)

    def _types(self, report: _Reporter, file: str, data: bytes) -> Iterator[Finding]:
        suffix = file.rpartition("/")[2].rpartition(".")[2].lower() if "." in file else ""
        if data.startswith(PNG_MAGIC) and suffix == "png":
            yield report.block(
                "IMAGE_NOT_READ", "an image, which the gate cannot read; look at it before it leaves"
            )
        elif _text(data) is None:
            yield report.block("UNKNOWN_BINARY", "neither text, CSV, JSON nor PNG")
        elif suffix not in _TEXT_SUFFIXES:
            yield report.block("UNKNOWN_TYPE", "its name ends like no text, CSV or JSON file")

    def _identifiers(self, report: _Reporter, file: str, data: bytes) -> Iterator[Finding]:
        if not len(self.identifiers):
            return
        walk = Decoding()
        hits = 0
        for source in (data, file.encode()):
            for depth, view in enumerate(walk.views(source)):
                for match in self.identifiers.search(view):
                    hits += 1
                    how = "stands in it" if depth == 0 else "stands in it encoded"
                    yield report.block(
                        "PRIVATE_VALUE", f"a value of the identifier column {how}", cell=match.column
                    )
                    if hits >= MAX_FINDINGS:
                        return
        if walk.exhausted:
            yield report.block("NOT_SCANNED", "decodes to more than is searched; look at it before it leaves")

    def _content(self, report: _Reporter, file: str, text: str) -> Iterator[Finding]:
        kind = file.rpartition(".")[2].lower()
        if kind in ("csv", "tsv"):
            yield from self._csv(report, text.replace("\t", ",") if kind == "tsv" else text)
        elif kind == "json":
            yield from self._json(report, text)
        else:
            yield from self._lines(report, text)

    def _csv(self, report: _Reporter, text: str) -> Iterator[Finding]:
        try:
            raw = parse_csv(text)
        except IntegrityFailure:
            yield report.block("OUTPUT_UNREADABLE", "cannot be split into cells")
            return
        if not raw:
            return
        header, rows = raw[0], [tuple(normal_cell(cell) for cell in row) for row in raw[1:]]
        minimum = self.policy.min_cell
        for line, column in small_cells(header, rows, self.categories, minimum):
            yield report.block("SMALL_CELL", f"a count below {minimum}", line, column)
        for table in self.tables:
            for line, is_group in named_matches(header, rows, table, minimum):
                yield report.group(line, minimum) if is_group else report.row(line)
        yield from self._cells(report, header, raw[1:])
        yield from self._rows(report, [tuple(normal_cell(cell) for cell in header), *rows], first_line=0)

    def _cells(
        self, report: _Reporter, header: Sequence[str], raw: Sequence[Sequence[str]]
    ) -> Iterator[Finding]:
        named = {name.casefold() for name in self.policy.identifier_columns}
        for line, row in enumerate(raw, start=1):
            for name, cell in zip(header, row, strict=False):
                column = self.identifiers.column_of_cell(cell)
                if column is None and name.strip().casefold() in named:
                    column = self.identifiers.short_column_of_cell(cell)
                if column is not None:
                    yield report.block("PRIVATE_VALUE", "a value of the identifier column", line, column)

    def _json(self, report: _Reporter, text: str) -> Iterator[Finding]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            yield report.block("OUTPUT_UNREADABLE", "not readable as JSON")
            return
        for key in small_json(value, self.policy.min_cell):
            yield report.block("SMALL_CELL", f"a count below {self.policy.min_cell}", 0, _short(key))
        yield from self._rows(report, list(_json_rows(value)), first_line=0)

    def _lines(self, report: _Reporter, text: str) -> Iterator[Finding]:
        for line in small_text(text, self.policy.min_cell):
            yield report.block("SMALL_CELL", f"a count below {self.policy.min_cell}", line)
        rows = [
            tuple(normal_cell(word.strip("[](){}'\"")) for word in _words(line)) for line in text.splitlines()
        ]
        yield from self._rows(report, rows, first_line=1)

    def _rows(self, report: _Reporter, rows: Sequence[Row], *, first_line: int) -> Iterator[Finding]:
        for table in self.tables:
            for line, row in enumerate(rows, start=first_line):
                if table.holds_row(row):
                    yield report.row(line)
            width = max((len(row) for row in rows), default=0)
            for at in range(min(width, 1000)):
                cells = [row[at] for row in rows if at < len(row)]
                dumped = table.dumped_column(cells)
                if dumped is not None:
                    yield report.block("PRIVATE_COLUMN", "values of a private column, one by one", 0, dumped)
                elif len(cells) <= 200 and table.holds_row(cells):
                    yield report.block("PRIVATE_ROW", "a row of the private part, written as a column", 0)


@dataclass(frozen=True, slots=True)
class _Reporter:
    file: str
    prefix: str = field(default="")

    def block(self, rule: str, text: str, line: int = 0, cell: str = "") -> Finding:
        return Finding(Severity.BLOCK, rule, self.file, line, cell, text)

    def row(self, line: int) -> Finding:
        return self.block("PRIVATE_ROW", "a row of the private part, or most of one", line)

    def group(self, line: int, minimum: int) -> Finding:
        return self.block("SMALL_GROUP", f"a group of fewer than {minimum} private rows", line)


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in _ALLOWED_CONTROL for char in set(text)) else None


def _words(line: str) -> list[str]:
    for separator in ",;|\t":
        line = line.replace(separator, " ")
    return line.split()[:2000]


def _json_rows(value: object) -> Iterator[Row]:
    """Give the scalars of every list and object, each as one row."""
    if isinstance(value, dict | list):
        inner = list(value.values()) if isinstance(value, dict) else value
        yield tuple(normal_cell(item) for item in inner if not isinstance(item, dict | list))
        for item in inner:
            yield from _json_rows(item)


def _short(key: str) -> str:
    return key if len(key) <= 120 else key[:117] + "..."
