"""Mocks: one drawn from schema and marginals with noise, and the check that no mock holds private rows.

Columns are drawn independently, so no relation between them survives. Numbers come from a few noisy
quantiles, categories from noisy frequencies without rare values, identifiers as fresh random values of one
form, text as a placeholder. Randomness comes from the operating system and is not kept.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from syftmesh_core.clock import Random
from syftmesh_core.errors import IntegrityFailure

from syftmesh_runner.domain.dataset import Policy, dataset_invalid
from syftmesh_runner.domain.decoding import Decoding
from syftmesh_runner.domain.identifier import IdentifierIndex, identifier_columns
from syftmesh_runner.domain.table import normal_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MAX_ROWS: Final = 1000
MIN_ROWS: Final = 20
QUANTILES: Final = 11
NOISE: Final = 0.1
"""Scale of the Laplace noise on quantiles, as a share of the middle of the marginal."""
COUNT_NOISE: Final = 2.0
"""Scale of the Laplace noise on frequencies, in rows."""
MAX_TRIES: Final = 50
MAX_CATEGORIES: Final = 50
_IDENTIFIER: Final = "identifier"


def generate(frames: Mapping[str, pd.DataFrame], policy: Policy, random: Random) -> dict[str, pd.DataFrame]:
    """Return a mock of every table; each has the columns and types of the private one.

    Args:
        frames: The private tables by file.
        policy: Names identifier columns and the smallest group.
        random: Source of the seed, the operating system's.

    Raises:
        InvalidInput: DATASET_INVALID when a table is too small or too uniform to hide its rows.
    """
    import numpy as np

    generator = np.random.default_rng(int.from_bytes(random(16), "big"))
    return {file: _table(file, frame, policy, generator) for file, frame in frames.items()}


def _table(file: str, frame: pd.DataFrame, policy: Policy, generator: np.random.Generator) -> pd.DataFrame:
    identifying = set(identifier_columns(frame, policy.identifier_columns))
    rows = min(MAX_ROWS, max(MIN_ROWS, len(frame)))
    made = _draw(frame, identifying, rows, policy, generator)
    for _ in range(MAX_TRIES):
        bad = shared_rows(frame, made, policy.min_cell)
        if not bad:
            break
        # A row that came out as a private one is drawn anew; rows are independent of each other.
        fresh = _draw(frame, identifying, len(bad), policy, generator)
        for column in made.columns:
            values = made[column].tolist()
            for place, value in zip(bad, fresh[column].tolist(), strict=True):
                values[place] = value
            made[column] = _typed(values, frame[column])
    made = made.drop(index=made.index[shared_rows(frame, made, policy.min_cell)]).reset_index(drop=True)
    if len(made) < min(MIN_ROWS, rows) // 2:
        raise dataset_invalid(
            f"No mock of {file!r} can be drawn that does not repeat private rows: give a mock of your own."
        )
    return made


def _draw(
    frame: pd.DataFrame, identifying: set[str], rows: int, policy: Policy, generator: np.random.Generator
) -> pd.DataFrame:
    import pandas as pd

    columns = {
        name: _typed(
            _column(frame[name], rows, _IDENTIFIER if str(name) in identifying else "", policy, generator),
            frame[name],
        )
        for name in frame.columns
    }
    return pd.DataFrame(columns)


def _column(
    values: pd.Series[Any], rows: int, kind: str, policy: Policy, generator: np.random.Generator
) -> list[object]:
    import pandas as pd

    present = values.dropna()
    if present.empty:
        return [None] * rows
    different = int(present.nunique())
    if kind == _IDENTIFIER:
        known = {str(value) for value in present.tolist()}
        made: list[object] = [_fresh(present, known, generator) for _ in range(rows)]
    elif pd.api.types.is_bool_dtype(values):
        made = [bool(value) for value in _categories(present, rows, 0, generator)]
    elif pd.api.types.is_numeric_dtype(values):
        few = different <= MAX_CATEGORIES and pd.api.types.is_integer_dtype(values)
        drawn = _categories(present, rows, policy.min_cell, generator) if few else []
        made = drawn or _numbers(present, rows, generator)
    else:
        made = _categories(present, rows, policy.min_cell, generator) or ["text"] * rows
    missing = float(values.isna().mean())
    if missing:
        holes = generator.random(rows) < max(0.0, min(0.9, missing + generator.normal(0, 0.02)))
        made = [None if hole else value for hole, value in zip(holes, made, strict=True)]
        made[0] = None  # one hole at least, or a whole-number column would read back as another type
    return made


def _numbers(present: pd.Series[Any], rows: int, generator: np.random.Generator) -> list[object]:
    import numpy as np
    import pandas as pd

    numbers = np.sort(present.to_numpy(dtype=float))
    # The outermost values are single persons: the ends of the marginal are taken a little inside.
    edge = min(0.25, 5 / len(numbers))
    marks = np.quantile(numbers, np.linspace(edge, 1 - edge, QUANTILES))
    spread = float(marks[-3] - marks[2]) or abs(float(marks[5])) or 1.0
    noisy = np.sort(marks + generator.laplace(0, NOISE * spread, QUANTILES))
    if numbers[0] >= 0:
        noisy = np.abs(noisy)
        noisy.sort()
    drawn = np.interp(generator.random(rows), np.linspace(0, 1, QUANTILES), noisy)
    if pd.api.types.is_integer_dtype(present) or bool(np.all(numbers == np.floor(numbers))):
        return [round(float(value)) for value in drawn]
    digits = max(0, min(12, 3 - math.floor(math.log10(spread)) if spread > 0 else 3))
    return [round(float(value), digits) for value in drawn]


def _categories(
    present: pd.Series[Any], rows: int, min_cell: int, generator: np.random.Generator
) -> list[object]:
    import numpy as np

    counts = present.value_counts()
    noisy = counts.to_numpy(dtype=float) + generator.laplace(0, COUNT_NOISE, len(counts))
    kept = [
        (value, max(weight, 1.0))
        for value, count, weight in zip(counts.index.tolist(), counts.tolist(), noisy, strict=True)
        if count >= min_cell and weight >= min_cell
    ]
    if not kept:
        return []
    weights = np.array([weight for _, weight in kept])
    chosen = generator.choice(len(kept), size=rows, p=weights / weights.sum())
    return [kept[int(place)][0] for place in chosen]


def _fresh(present: pd.Series[Any], known: set[str], generator: np.random.Generator) -> object:
    """Return a random value of the form of a private one: letters, digits and case stay in their places."""
    import pandas as pd

    whole = pd.api.types.is_integer_dtype(present)
    for _ in range(MAX_TRIES):
        form = str(present.iloc[int(generator.integers(len(present)))])
        text = _form(form, generator)
        if text not in known:
            return int(text) if whole else text
    return (
        int(generator.integers(10**17, 10**18))
        if whole
        else f"mock-{int(generator.integers(10**17, 10**18))}"
    )


def _form(form: str, generator: np.random.Generator) -> str:
    body = form.replace("-", "")
    hexadecimal = len(body) >= 6 and any(char.isalpha() for char in body)
    hexadecimal = hexadecimal and (
        set(body) <= set("0123456789abcdef") or set(body) <= set("0123456789ABCDEF")
    )
    if hexadecimal:
        digits = "0123456789abcdef" if form == form.lower() else "0123456789ABCDEF"
        return "".join(char if char == "-" else _pick(digits, generator) for char in form)
    out = []
    for at, char in enumerate(form):
        if char.isdigit():
            out.append(_pick(string.digits[1:] if at == 0 else string.digits, generator))
        elif char.isalpha():
            out.append(_pick(string.ascii_uppercase if char.isupper() else string.ascii_lowercase, generator))
        else:
            out.append(char)
    return "".join(out)


def _pick(letters: str, generator: np.random.Generator) -> str:
    return letters[int(generator.integers(len(letters)))]


def _typed(values: Sequence[object], like: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    series: pd.Series[Any] = pd.Series(list(values))
    return series.astype(like.dtype)


def shared_rows(private: pd.DataFrame, mock: pd.DataFrame, min_cell: int) -> list[int]:
    """Return the places of mock rows that are, normalised, rows of the private part.

    A row that `min_cell` or more private rows share is of nobody and does not count.
    """
    from collections import Counter

    counts = Counter(normal_rows(private))
    return [place for place, row in enumerate(normal_rows(mock)) if 0 < counts.get(row, 0) < min_cell]


def check_mock(
    private: Mapping[str, pd.DataFrame],
    mock: Mapping[str, pd.DataFrame],
    policy: Policy,
    *,
    all_identifiers: bool,
    encode: Callable[[pd.DataFrame], bytes],
) -> None:
    """Refuse a mock that gives private rows or identifiers away.

    Args:
        private: Private tables by file.
        mock: Mock tables by file, of the same shape.
        policy: Names identifier columns and the smallest group.
        all_identifiers: Look for every unique column's values (a generated mock), else of the named ones.
        encode: Writes a frame as the file that would be published.

    Raises:
        IntegrityFailure: MOCK_HOLDS_PRIVATE_ROWS with the number of rows per file.
    """
    for file, frame in mock.items():
        found = shared_rows(private[file], frame, policy.min_cell)
        if found:
            raise _holds_private(
                f"{len(found)} rows of the mock {file!r}, first row {found[0] + 1},", file, len(found)
            )
    named = policy.identifier_columns
    frames = list(private.values())
    if not all_identifiers:
        frames = [frame[[name for name in frame.columns if str(name) in named]] for frame in frames]
    index = IdentifierIndex.of_frames([frame for frame in frames if len(frame.columns)], named)
    for file, frame in mock.items():
        for view in Decoding().views(encode(frame)):
            match = next(iter(index.search(view)), None)
            if match is not None:
                raise _holds_private(
                    f"values of the identifier column {match.column!r} in the mock {file!r}", file, 1
                )


def _holds_private(what: str, file: str, rows: int) -> IntegrityFailure:
    return IntegrityFailure(
        f"The mock is refused: {what} are of the private part. Take them out, or let a mock be generated.",
        reason="MOCK_HOLDS_PRIVATE_ROWS",
        metadata={"file": file, "rows": str(rows)},
    )
