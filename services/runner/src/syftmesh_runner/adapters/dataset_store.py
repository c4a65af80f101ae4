"""Datasets in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter

from syftmesh_runner.adapters.database import Database
from syftmesh_runner.domain.dataset import Dataset

_DATASET = TypeAdapter(Dataset)


class SqliteDatasets:
    """See `syftmesh_runner.domain.ports.DatasetStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> Dataset | None:
        """Return a dataset, None when there is none."""
        row = self._database.row("SELECT document FROM datasets WHERE name = ?", (name,))
        return _DATASET.validate_json(row[0]) if row else None

    def save(self, dataset: Dataset) -> None:
        """Store a new or changed dataset."""
        document = _DATASET.dump_json(dataset).decode()
        self._database.write(
            "INSERT OR REPLACE INTO datasets (name, document, published) VALUES (?, ?, ?)",
            (dataset.name, document, dataset.published),
        )

    def delete(self, name: str) -> None:
        """Forget a dataset."""
        self._database.write("DELETE FROM datasets WHERE name = ?", (name,))

    def page(self, limit: int, after: str) -> Sequence[Dataset]:
        """Return at most `limit` datasets by name, after a name."""
        rows = self._database.rows(
            "SELECT document FROM datasets WHERE name > ? ORDER BY name LIMIT ?", (after, limit)
        )
        return [_DATASET.validate_json(row[0]) for row in rows]

    def unpublished(self) -> Sequence[Dataset]:
        """Return the datasets whose card and mock are not at the hub."""
        rows = self._database.rows("SELECT document FROM datasets WHERE published = 0 ORDER BY name")
        return [_DATASET.validate_json(row[0]) for row in rows]
