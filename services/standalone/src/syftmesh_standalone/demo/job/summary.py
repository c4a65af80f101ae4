"""Summarise a breast-cancer table by diagnosis: number of records, means and standard deviations.

Reads ``breast_cancer.csv`` in ``DATA_DIR`` and writes ``summary.csv`` to ``OUTPUT_DIR``. It runs the same on the
mock and on the private table.
"""

import json
import os
import sys
from pathlib import Path

import pandas as pd

DIGITS = 6


def main() -> None:
    """Write the summary of the features named in the parameters."""
    features = json.loads(os.environ["PARAMETERS"])["features"]
    frame = pd.read_csv(Path(os.environ["DATA_DIR"]) / "breast_cancer.csv")
    groups = frame.groupby("diagnosis")
    summary = pd.DataFrame({"n": groups.size()})
    for feature in features:
        summary[f"{feature}_mean"] = groups[feature].mean().round(DIGITS)
        summary[f"{feature}_std"] = groups[feature].std().round(DIGITS)
    summary.reset_index().to_csv(Path(os.environ["OUTPUT_DIR"]) / "summary.csv", index=False)
    sys.stdout.write(f"summarised {len(features)} features of {len(summary)} groups\n")


if __name__ == "__main__":
    main()
