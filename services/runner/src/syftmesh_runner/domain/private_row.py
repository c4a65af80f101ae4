"""Rows and columns of private tables that come out again, under whatever names and in whatever order.

Three rules, each looked at only for the cells that the output has, so that large private parts stay cheap:
a tuple of three or more columns named as in the private table that only few private rows have; three or more
rare cells of one private row in one row, line or column of the output; a column of the output that is mostly
made of the rare values of one private column.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from syftmesh_runner.domain.table import Row, normal_cell

if TYPE_CHECKING:
    import pandas as pd

MIN_COLUMNS: Final = 3
RARE_ROWS: Final = 20
"""A value that more private rows than this have says nothing about one of them."""
MIN_DUMPED: Final = 10
MAX_KEY_VALUES: Final = 50


@dataclass(frozen=True, slots=True)
class PrivateColumn:
    """A column of a private table in normalised cells."""

    name: str
    cells: tuple[str, ...]
    is_key: bool


class PrivateTable:
    """A private table, normalised once for all outputs of a job.

    Args:
        frame: The table.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = [_column(str(name), frame[name]) for name in frame.columns]
        self.by_name = {column.name.casefold(): column for column in self.columns}
        self._places: list[dict[str, list[int]]] = []
        for column in self.columns:
            places: dict[str, list[int]] = defaultdict(list)
            for row, cell in enumerate(column.cells):
                if cell and len(places[cell]) <= RARE_ROWS:
                    places[cell].append(row)
            self._places.append({cell: rows for cell, rows in places.items() if len(rows) <= RARE_ROWS})

    def holds_row(self, cells: Iterable[str]) -> bool:
        """Return whether three or more different cells are rare and stand in one private row together."""
        votes: Counter[int] = Counter()
        for cell in {cell for cell in cells if cell}:
            rows = {row for places in self._places for row in places.get(cell, ())}
            votes.update(rows)
        return any(count >= MIN_COLUMNS for count in votes.values())

    def dumped_column(self, cells: Sequence[str]) -> str | None:
        """Return the private column whose rare values make up most of `cells`, None when there is none."""
        different = {cell for cell in cells if cell}
        if len(different) < MIN_DUMPED:
            return None
        for column, places in zip(self.columns, self._places, strict=True):
            if sum(cell in places for cell in different) * 2 >= len(different):
                return column.name
        return None

    def count(self, columns: Sequence[PrivateColumn]) -> Counter[Row]:
        """Return how many private rows have each tuple of cells in `columns`."""
        return Counter(zip(*(column.cells for column in columns), strict=True))


def _column(name: str, values: pd.Series[Any]) -> PrivateColumn:
    import pandas as pd

    is_float = pd.api.types.is_float_dtype(values) and not pd.api.types.is_bool_dtype(values)
    is_text = not pd.api.types.is_numeric_dtype(values)
    different = int(values.nunique())
    is_key = not is_float and different < len(values) and (is_text or different <= MAX_KEY_VALUES)
    return PrivateColumn(name, tuple(normal_cell(value) for value in values.tolist()), is_key)


def named_matches(
    header: Sequence[str], rows: Sequence[Row], table: PrivateTable, min_cell: int
) -> Iterator[tuple[int, bool]]:
    """Give the rows (from 1) that name few private rows, and whether as a group (else as a private row).

    A row is one when it agrees with 1 to `min_cell` - 1 private rows in three or more columns of the same
    name; a group when it does so in one or more columns by which rows are grouped.
    """
    common = [
        (at, table.by_name[name.strip().casefold()])
        for at, name in enumerate(header)
        if name.strip().casefold() in table.by_name
    ]
    keys = [(at, column) for at, column in common if column.is_key]
    for chosen, is_group in ((common, False), (keys, True)):
        if len(chosen) < (1 if is_group else MIN_COLUMNS):
            continue
        counts = table.count([column for _, column in chosen])
        for number, row in enumerate(rows, start=1):
            if max(at for at, _ in chosen) < len(row):
                found = counts.get(tuple(row[at] for at, _ in chosen), 0)
                if 0 < found < min_cell:
                    yield number, is_group
