"""Documents for programs, tables and fields for people."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO

from syftmesh.cli.terminal import many_lines, one_line


@dataclass(frozen=True, slots=True)
class Table:
    """Rows for people.

    Attributes:
        columns: Headings.
        rows: Values, one for each column.
        empty: What to say when there are no rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    empty: str = "Nothing."


@dataclass(frozen=True, slots=True)
class Fields:
    """Names and values of one thing, for people."""

    pairs: Sequence[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Block:
    """A text of several lines, as somebody wrote it."""

    text: str


Human = str | Table | Fields | Block
"""What people see: a sentence, a table, fields or a block of text."""


def jsonable(value: object) -> Any:
    """Return `value` as plain JSON types.

    Moments become RFC 3339 in UTC, bytes base64, numbers that JSON lacks the texts "NaN", "Infinity" and
    "-Infinity".
    """
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, datetime):
        return moment_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    return str(value)


def write_json(stream: TextIO, document: Mapping[str, object]) -> None:
    """Write `document` as one JSON document in ASCII, so that no text in it can steer a terminal."""
    text = json.dumps(jsonable(document), ensure_ascii=True, allow_nan=False, indent=2)
    stream.write(text.replace("\x7f", "\\u007f") + "\n")


def write_human(stream: TextIO, parts: Iterable[Human], *, terminal: bool) -> None:
    """Write what people see; plain lines that are never cut where `stream` is no terminal."""
    for part in parts:
        if isinstance(part, str):
            stream.write(one_line(part) + "\n")
        elif isinstance(part, Block):
            text = many_lines(part.text)
            stream.write(text if text.endswith("\n") or not text else text + "\n")
        elif isinstance(part, Fields):
            _write_fields(stream, part)
        elif not part.rows:
            stream.write(one_line(part.empty) + "\n")
        elif terminal:
            _write_rich(stream, part)
        else:
            _write_columns(stream, [[_upper(c) for c in part.columns], *(_texts(row) for row in part.rows)])


def shown(value: object) -> str:
    """Return `value` as one line for people."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return shown(value.value)
    if isinstance(value, datetime):
        return moment_text(value)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(shown(item) for item in value) if value else "-"
    return one_line(str(value))


def size_text(size_bytes: int | None) -> str:
    """Return a size for people."""
    if size_bytes is None:
        return "-"
    amount, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size_bytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def moment_text(moment: datetime) -> str:
    """Return a moment in RFC 3339, UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_ms_text(unix_ms: int | None) -> str | None:
    """Return Unix milliseconds as RFC 3339, None where there is no moment."""
    return moment_text(datetime.fromtimestamp(unix_ms / 1000, tz=UTC)) if unix_ms else None


def _texts(row: Sequence[object]) -> list[str]:
    return [shown(value) for value in row]


def _upper(heading: str) -> str:
    return heading.upper()


def _write_fields(stream: TextIO, part: Fields) -> None:
    width = max((len(name) for name, _ in part.pairs), default=0)
    for name, value in part.pairs:
        stream.write(f"{one_line(name):<{width}}  {shown(value)}\n")


def _write_columns(stream: TextIO, lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        stream.write("  ".join(cells).rstrip() + "\n")


def _write_rich(stream: TextIO, part: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in part.columns:
        table.add_column(Text(_upper(column)), overflow="fold")
    for row in part.rows:
        # Text is never read as markup.
        table.add_row(*(Text(text) for text in _texts(row)))
    Console(file=stream, highlight=False).print(table)
