"""Tables of a dataset: reading CSV files, their shape, and rows in a form that formatting does not change."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from syftmesh_core.errors import IntegrityFailure

from syftmesh_runner.domain.dataset import Column, Table, dataset_invalid

if TYPE_CHECKING:
    import pandas as pd

TABLE_SUFFIX: Final = ".csv"
MAX_DIFFERENCES: Final = 20
_MAX_FIELD_BYTES: Final = 1 << 20

Row = tuple[str, ...]


def is_table(file: str) -> bool:
    """Return whether a file of a dataset is read as a table; all others are opaque."""
    return file.lower().endswith(TABLE_SUFFIX)


def read_table(path: Path, file: str) -> pd.DataFrame:
    """Return the CSV file (RFC 4180, with a header, UTF-8) as a frame.

    Args:
        path: Where it lies.
        file: Its name inside the dataset, for messages.

    Raises:
        InvalidInput: DATASET_INVALID when it is not such a file.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, encoding="utf-8")
    except (ValueError, UnicodeError, OSError) as error:
        raise dataset_invalid(
            f"The file {file!r} is not a readable CSV table in UTF-8 with a header."
        ) from error
    if frame.columns.duplicated().any():
        raise dataset_invalid(f"The file {file!r} has two columns of one name.")
    return frame


def read_tables(folder: Path, files: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the tables among `files` below `folder` by name.

    Raises:
        InvalidInput: DATASET_INVALID.
    """
    return {file: read_table(folder / file, file) for file in files if is_table(file)}


def shape_of(files: Sequence[str], frames: Mapping[str, pd.DataFrame]) -> tuple[Table, ...]:
    """Return the shape of a part, file by file in name order."""
    return tuple(
        Table(
            file,
            tuple(Column(str(name), str(kind)) for name, kind in frames[file].dtypes.items())
            if file in frames
            else (),
            len(frames[file]) if file in frames else 0,
        )
        for file in sorted(files)
    )


def differences(private: Sequence[Table], mock: Sequence[Table]) -> list[str]:
    """Return every difference of shape between the private part and its mock, as sentences."""
    left, right = ({table.file: table for table in part} for part in (private, mock))
    found = [f"the mock lacks the file {file!r}" for file in left if file not in right]
    found += [
        f"the mock has the file {file!r}, the private part has not" for file in right if file not in left
    ]
    for file in sorted(left.keys() & right.keys()):
        found += _column_differences(file, left[file].columns, right[file].columns)
    return found


def check_same_shape(private: Sequence[Table], mock: Sequence[Table]) -> None:
    """Refuse a mock of another shape.

    Raises:
        InvalidInput: DATASET_INVALID; the differences are listed.
    """
    found = differences(private, mock)
    if found:
        more = f" and {len(found) - MAX_DIFFERENCES} more" if len(found) > MAX_DIFFERENCES else ""
        raise dataset_invalid(f"Mock and private part differ: {'; '.join(found[:MAX_DIFFERENCES])}{more}.")


def _column_differences(file: str, private: Sequence[Column], mock: Sequence[Column]) -> Iterator[str]:
    left, right = ({column.name: column.type for column in columns} for columns in (private, mock))
    for name in left:
        if name not in right:
            yield f"{file}: the mock lacks the column {name!r}"
        elif left[name] != right[name]:
            yield f"{file}: the column {name!r} is {left[name]}, in the mock {right[name]}"
    for name in right:
        if name not in left:
            yield f"{file}: the mock has the column {name!r}, the private part has not"
    if list(left) != list(right) and left.keys() == right.keys():
        yield f"{file}: the columns stand in another order"


def normal_cell(value: object) -> str:
    """Return a cell in a form that formatting (case, spaces, final zeros) does not change.

    Numbers are compared to ten significant digits, so that a re-written float is still the same.
    """
    if value is None:
        return ""
    text = value.strip() if isinstance(value, str) else str(value)
    folded = text.casefold()
    if folded in ("", "nan", "none", "null", "na", "nat"):
        return ""
    if folded in ("true", "false"):
        return folded
    try:
        number = float(folded)
    except ValueError:
        return " ".join(folded.split())
    if not math.isfinite(number):
        return folded
    return f"{number:.10g}"


def normal_rows(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of `frame`, every cell as `normal_cell` gives it."""
    columns = [[normal_cell(value) for value in frame[name].tolist()] for name in frame.columns]
    return list(zip(*columns, strict=True))


def parse_csv(text: str) -> list[list[str]]:
    """Return the rows of CSV text as cells.

    Raises:
        IntegrityFailure: OUTPUT_UNREADABLE when it cannot be split.
    """
    csv.field_size_limit(_MAX_FIELD_BYTES)
    try:
        return [row for row in csv.reader(text.splitlines(), strict=False) if row]
    except csv.Error as error:
        raise IntegrityFailure(
            "A CSV output cannot be split into cells.", reason="OUTPUT_UNREADABLE"
        ) from error
