"""Identifiers of a private part, and whether one of them stands in some bytes, in plain or encoded.

Which columns are identifiers: the ones the policy names, and those whose text values (or whole numbers of
many digits) are all different. A value is looked for without regard to case, separators and direction, in the
bytes and in everything `syftmesh_runner.domain.decoding` gets out of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from syftmesh_runner.domain.table import normal_cell

if TYPE_CHECKING:
    import pandas as pd

MIN_SEARCHED: Final = 6
"""Shortest value that is looked for anywhere; shorter ones count as a cell only."""
MIN_LONG_DIGITS: Final = 12
"""Digits from which a number is looked for across separators; shorter ones count as whole numbers only."""
MIN_ROWS: Final = 2

_SEPARATORS = bytes(code for code in (0, 9, 10, 13, *range(32, 127)) if not chr(code).isalnum())
_NUMBER = re.compile(rb"[0-9]{6,}")
_FLOAT_END = re.compile(r"\.0+$")


def identifier_columns(frame: pd.DataFrame, named: Iterable[str]) -> list[str]:
    """Return the columns of `frame` whose values identify a row: named by the policy, or all different."""
    chosen = set(named)
    return [str(name) for name in frame.columns if str(name) in chosen or _is_unique(frame[name])]


def _is_unique(values: pd.Series[Any]) -> bool:
    import pandas as pd

    present = values.dropna()
    if len(present) < MIN_ROWS or not present.is_unique:
        return False
    if pd.api.types.is_bool_dtype(present) or pd.api.types.is_float_dtype(present):
        return False
    if pd.api.types.is_integer_dtype(present):
        return bool((present.abs() >= 10 ** (MIN_SEARCHED - 1)).all())
    return True


def compact(data: bytes) -> bytes:
    """Return `data` in lower case without printable separators, line ends and the NULs of UTF-16.

    Other bytes stay: noise from decoding what was not encoded would otherwise be pressed together into words.
    """
    return data.lower().translate(None, _SEPARATORS)


@dataclass(frozen=True, slots=True)
class Match:
    """Where an identifier was found: its column, and the place in the compacted bytes (never the value)."""

    column: str
    at: int


class IdentifierIndex:
    """Values that may not leave, prepared for searching.

    Args:
        values: Column to its values as text.
    """

    def __init__(self, values: Mapping[str, Iterable[str]]) -> None:
        self._by_start: dict[bytes, list[tuple[bytes, str]]] = {}
        self._numbers: dict[bytes, str] = {}
        self._cells: dict[str, str] = {}
        for column, found in values.items():
            for value in found:
                self._add(column, value)

    @classmethod
    def of_frames(cls, frames: Iterable[pd.DataFrame], named: Iterable[str]) -> IdentifierIndex:
        """Return the index over all identifier columns of `frames`."""
        values: dict[str, list[str]] = {}
        chosen = tuple(named)
        for frame in frames:
            for column in identifier_columns(frame, chosen):
                texts = (_FLOAT_END.sub("", str(value)) for value in frame[column].dropna().tolist())
                values.setdefault(column, []).extend(texts)
        return cls(values)

    def __len__(self) -> int:
        return len(self._cells)

    def _add(self, column: str, value: str) -> None:
        self._cells[normal_cell(value)] = column
        plain = compact(value.encode())
        if len(plain) < MIN_SEARCHED:
            return
        for needle in {plain, plain[::-1]}:
            if needle.isdigit() and len(needle) < MIN_LONG_DIGITS:
                self._numbers[needle] = column
            else:
                self._by_start.setdefault(needle[:MIN_SEARCHED], []).append((needle, column))

    def column_of_cell(self, cell: str) -> str | None:
        """Return the column whose value a whole cell is, however written; None when it is none."""
        normal = normal_cell(cell)
        found = self._cells.get(normal) if normal else None
        if found is not None and len(compact(normal.encode())) >= MIN_SEARCHED:
            return found
        digits = compact(cell.encode())
        return self._numbers.get(digits) if digits.isdigit() else None

    def short_column_of_cell(self, cell: str) -> str | None:
        """Return the column of a short value that a whole cell is; it means something in that column only."""
        return self._cells.get(normal_cell(cell)) if cell.strip() else None

    def search(self, data: bytes) -> Iterator[Match]:
        """Give the identifiers that stand in `data` as it is; encoded forms are the caller's to decode."""
        if self._numbers:
            for number in _NUMBER.finditer(data):
                column = self._numbers.get(number[0])
                if column is not None:
                    yield Match(column, number.start())
        if self._by_start:
            yield from self._search_compact(compact(data))

    def _search_compact(self, data: bytes) -> Iterator[Match]:
        starts, width = self._by_start, MIN_SEARCHED
        for at in range(len(data) - width + 1):
            candidates = starts.get(data[at : at + width])
            if candidates:
                for needle, column in candidates:
                    if data.startswith(needle, at):
                        yield Match(column, at)
                        break
