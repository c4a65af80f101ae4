"""The demo's data: the Wisconsin breast-cancer table, split between two hospitals, and what is true of it.

Source: W. Wolberg, O. Mangasarian, N. Street, W. Street, "Breast Cancer Wisconsin (Diagnostic)", UCI Machine
Learning Repository, 1995 (CC BY 4.0), as scikit-learn brings it along. Its 569 records are public; the demo
treats them as private and gives each an identifier of its own, which is secret for real.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from syftmesh_core.clock import Random

from syftmesh_standalone.demo.canary.needle import RAW_BYTES, Secret

if TYPE_CHECKING:
    import pandas as pd

FILE: Final = "breast_cancer.csv"
DATASET: Final = "breast-cancer"
IDENTIFIER: Final = "record_id"
DIAGNOSIS: Final = "diagnosis"
FEATURES: Final = ("mean_radius", "mean_texture", "mean_area", "mean_concavity")
SPLIT_SEED: Final = 1995
FIRST_SHARE: Final = 371
"""Records of the first hospital, of 569; the second has the other 198."""
_ROW_CELLS: Final = 10
"""Features of a row that are looked for together: with four digits each they are of that row alone."""


@dataclass(frozen=True, slots=True)
class PrivateTable:
    """One owner's table.

    Attributes:
        owner: E-mail of the owner.
        frame: Columns `record_id`, `diagnosis` and 30 features in the units of the source.
    """

    owner: str
    frame: pd.DataFrame

    @property
    def identifiers(self) -> list[str]:
        """The record identifiers, 32 hexadecimal digits each."""
        return [str(value) for value in self.frame[IDENTIFIER]]

    def csv(self) -> bytes:
        """Return the table as the CSV that is registered."""
        return self.frame.to_csv(index=False).encode()

    def write(self, folder: Path) -> Path:
        """Write the CSV below `folder` (0700) for its owner alone, and return its path."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / FILE
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.csv())
        return path

    def secrets(self) -> list[Secret]:
        """Return what no hub may hold: every identifier, and the first ten features of every row."""
        found = [Secret(f"{IDENTIFIER} {n} of {self.owner}", i) for n, i in enumerate(self.identifiers)]
        for number, line in enumerate(self.csv().decode().splitlines()[1:]):
            cells = line.split(",")[2 : 2 + _ROW_CELLS]
            found.append(Secret(f"row {number} of {self.owner}", ",".join(cells), is_identifier=False))
        return found

    def summary(self, features: Sequence[str]) -> list[dict[str, Any]]:
        """Return the statistic that the analysis computes, computed here from the rows without pandas' groups.

        Args:
            features: Columns to summarise; means and sample standard deviations.
        """
        rows = self.frame.to_dict("records")
        found = []
        for diagnosis in sorted({str(row[DIAGNOSIS]) for row in rows}):
            group = [row for row in rows if row[DIAGNOSIS] == diagnosis]
            entry: dict[str, Any] = {DIAGNOSIS: diagnosis, "n": len(group)}
            for feature in features:
                mean, deviation = _moments([float(row[feature]) for row in group])
                entry[f"{feature}_mean"], entry[f"{feature}_std"] = mean, deviation
            found.append(entry)
        return found


def private_tables(owners: Sequence[str], random: Random) -> tuple[PrivateTable, ...]:
    """Return the table of each owner: the split is the same every time, the identifiers never are.

    Args:
        owners: Two e-mails.
        random: Source of the identifiers.
    """
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    source: Any = load_breast_cancer(as_frame=True)
    frame = source.frame.rename(columns=lambda name: str(name).replace(" ", "_"))
    frame.insert(0, DIAGNOSIS, [str(source.target_names[value]) for value in frame.pop("target")])
    order = np.random.default_rng(SPLIT_SEED).permutation(len(frame))
    parts = (order[:FIRST_SHARE], order[FIRST_SHARE:])
    tables = []
    for owner, places in zip(owners, parts, strict=True):
        part = frame.iloc[places].reset_index(drop=True)
        part.insert(0, IDENTIFIER, [random(RAW_BYTES).hex() for _ in range(len(part))])
        tables.append(PrivateTable(owner, part))
    return tuple(tables)


def agrees(
    found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]], digits: int = 6
) -> bool:
    """Return whether two summaries say the same, numbers up to rounding to `digits` decimals."""
    if [list(row) for row in found] != [list(row) for row in expected]:
        return False
    pairs = [(a[name], b[name]) for a, b in zip(found, expected, strict=True) for name in a]
    return all(
        a == b if isinstance(b, str) else math.isclose(float(a), float(b), rel_tol=0, abs_tol=10.0**-digits)
        for a, b in pairs
    )


def pooled(summaries: Sequence[Sequence[Mapping[str, Any]]], features: Sequence[str]) -> list[dict[str, Any]]:
    """Return the summary of all sites together, from their summaries alone.

    Means are weighted by the numbers of records; variances are added with those between the sites' means
    (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979).
    """
    found = []
    for diagnosis in sorted({str(row[DIAGNOSIS]) for summary in summaries for row in summary}):
        rows = [row for summary in summaries for row in summary if row[DIAGNOSIS] == diagnosis]
        total = sum(int(row["n"]) for row in rows)
        entry: dict[str, Any] = {DIAGNOSIS: diagnosis, "n": total}
        for feature in features:
            parts = [(int(r["n"]), float(r[f"{feature}_mean"]), float(r[f"{feature}_std"])) for r in rows]
            mean = sum(n * m for n, m, _ in parts) / total
            squares = sum((n - 1) * s * s + n * (m - mean) ** 2 for n, m, s in parts)
            entry[f"{feature}_mean"] = mean
            entry[f"{feature}_std"] = math.sqrt(squares / (total - 1))
        found.append(entry)
    return found


def _moments(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))
