"""Tables: bytes of somebody's file as a pandas DataFrame. pandas is imported when it is needed first."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound
from syftmesh_core.quote import quoted

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".json")


def dataframe(name: str, data: bytes) -> pd.DataFrame:
    """Return a table; nothing in it is executed.

    Args:
        name: File name; its suffix names the format: .csv, .tsv, or .json (records).
        data: Its content.

    Raises:
        InvalidInput: No table format (TABLE_UNKNOWN).
        IntegrityFailure: The content is no such table (TABLE_DAMAGED).
    """
    import pandas as pd

    suffix = "." + name.rpartition(".")[2].lower()
    try:
        if suffix == ".csv":
            return pd.read_csv(io.BytesIO(data))
        if suffix == ".tsv":
            return pd.read_csv(io.BytesIO(data), sep="\t")
        if suffix == ".json":
            return pd.read_json(io.BytesIO(data), orient="records")
    except (ValueError, RecursionError, OverflowError) as error:
        raise IntegrityFailure(
            f"{quoted(name)} is no table of its kind.",
            reason="TABLE_DAMAGED",
            metadata={"file": quoted(name)},
        ) from error
    raise InvalidInput(
        f"{quoted(name)} is not read as a table; these are: {', '.join(SUFFIXES)}.",
        reason="TABLE_UNKNOWN",
        metadata={"file": quoted(name)},
        hint="Read its bytes instead.",
    )


def one_of(names: Sequence[str], name: str | None) -> str:
    """Return `name`, or the only table among `names` when it is None.

    Raises:
        NotFound: FILE_MISSING.
        InvalidInput: There are several (FILE_AMBIGUOUS).
    """
    if name is not None:
        return name
    tables = [found for found in names if found.lower().endswith(SUFFIXES)]
    if len(tables) == 1:
        return tables[0]
    if not tables:
        raise NotFound("There is no table.", reason="FILE_MISSING")
    raise InvalidInput(
        f"There are several tables: {', '.join(map(quoted, tables))}. Say which one.",
        reason="FILE_AMBIGUOUS",
        metadata={"files": ", ".join(map(quoted, tables))},
    )
