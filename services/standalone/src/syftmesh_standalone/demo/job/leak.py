"""Try to carry private rows out as a result, which the site's release gate refuses."""

import os
from pathlib import Path

import pandas as pd


def main() -> None:
    """Write the first private rows, with their identifiers, as if they were a result."""
    frame = pd.read_csv(Path(os.environ["DATA_DIR"]) / "breast_cancer.csv")
    frame.head(12).to_csv(Path(os.environ["OUTPUT_DIR"]) / "extremes.csv", index=False)


if __name__ == "__main__":
    main()
