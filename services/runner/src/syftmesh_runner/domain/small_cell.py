"""Counts of fewer people than the owner allows, in tables, JSON and text.

Which numbers are counts: columns and keys named like one, columns named after a value of a private column
(cross tables), and, in a table of nothing but one label and whole numbers, all of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from syftmesh_runner.domain.table import Row

_WORDS = (
    "n|nb|no|num|number|count|counts|freq|frequency|frequencies|size|sizes|total|totals|cases|patients|people|persons|"
    "rows|records|members|subjects|individuals|participants|events|deaths|population|support|samples|nobs"
)
_COUNT_NAME = re.compile(rf"(?:^|[^a-z])(?:{_WORDS})(?:$|[^a-z])")
_TEXT_COUNT = re.compile(rf"(?i)(?<![a-z])(?:{_WORDS})\s*(?:of[^0-9\n:=]{{0,40}})?\s*[:=]?\s*(\d+)(?![\d.])")
_WHOLE = re.compile(r"-?\d+(?:\.0+)?(?:e\+\d+)?")


def is_count_name(name: str) -> bool:
    """Return whether a column or key is named like a count."""
    return _COUNT_NAME.search(re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()) is not None


def is_small(cell: str, min_cell: int) -> bool:
    """Return whether a cell is a whole number of 1 to `min_cell` - 1."""
    return _WHOLE.fullmatch(cell) is not None and 0 < float(cell) < min_cell


def count_columns(header: Sequence[str], rows: Sequence[Row], categories: Collection[str]) -> list[int]:
    """Return the places of the columns that hold counts.

    Args:
        header: Names of the columns.
        rows: Cells as `normal_cell` gives them.
        categories: Normalised values of the private part by which its rows are grouped.
    """
    chosen = [
        at
        for at, name in enumerate(header)
        if is_count_name(name) or (name.strip().casefold() in categories and _is_whole(rows, at))
    ]
    if chosen or len(header) < 2:
        return chosen
    rest = range(1, len(header))
    return list(rest) if rows and not _is_whole(rows, 0) and all(_is_whole(rows, at) for at in rest) else []


def small_cells(
    header: Sequence[str], rows: Sequence[Row], categories: Collection[str], min_cell: int
) -> Iterator[tuple[int, str]]:
    """Give row (from 1) and column of every count below `min_cell`."""
    for at in count_columns(header, rows, categories):
        for number, row in enumerate(rows, start=1):
            if at < len(row) and is_small(row[at], min_cell):
                yield number, header[at]


def small_json(value: object, min_cell: int, *, key: str = "", counted: bool = False) -> Iterator[str]:
    """Give the key of every count below `min_cell` in a JSON value; a key named so covers what is in it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            yield from small_json(inner, min_cell, key=path, counted=counted or is_count_name(str(name)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from small_json(inner, min_cell, key=f"{key}[{number}]", counted=counted)
    elif (
        counted and not isinstance(value, bool) and isinstance(value, int | float) and _below(value, min_cell)
    ):
        yield key


def _below(value: float, min_cell: int) -> bool:
    return 0 < value < min_cell and float(value).is_integer()


def small_text(text: str, min_cell: int) -> Iterator[int]:
    """Give the line (from 1) of every count below `min_cell` in running text, such as ``n = 3``."""
    for number, line in enumerate(text.splitlines(), start=1):
        if any(
            0 < int(found[1]) < min_cell for found in _TEXT_COUNT.finditer(line[:4096]) if len(found[1]) < 10
        ):
            yield number


def _is_whole(rows: Sequence[Row], at: int) -> bool:
    cells = [row[at] for row in rows if at < len(row) and row[at]]
    return bool(cells) and all(_WHOLE.fullmatch(cell) and float(cell) >= 0 for cell in cells)
