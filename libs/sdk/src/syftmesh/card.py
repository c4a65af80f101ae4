"""What a site says of a dataset: the file `card.json`, read strictly, for it comes from somebody else."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Final

from google.protobuf import json_format
from mesh.rds.v1 import rds_pb2
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.quote import quoted

from syftmesh.provenance import MAX_DOCUMENT_BYTES

CARD_FILE: Final = "card.json"
_MAX_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and type, such as ``float64``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Table:
    """One file of a dataset: name, columns in order, rows of its mock."""

    file: str
    columns: tuple[Column, ...]
    mock_rows: int


@dataclass(frozen=True, slots=True)
class DatasetPolicy:
    """What the owner demands of jobs.

    Attributes:
        min_cell: Smallest group that a result may show.
        max_result_bytes: Most that one job may release, in bytes.
        required_reviewers: How many reviewers must approve.
        identifier_columns: Columns whose values may be in no result.
        wall_seconds: Longest run.
    """

    min_cell: int = 0
    max_result_bytes: int = 0
    required_reviewers: int = 0
    identifier_columns: tuple[str, ...] = ()
    wall_seconds: int = 0


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What a site says of a dataset.

    Attributes:
        site: E-mail of the owner.
        name: Name at the site.
        summary: One line.
        readme: Markdown.
        tags: Free words.
        audience: Who may read card and mock.
        private_digest: Version of the private part, hex.
        mock_digest: Version of the mock, hex.
        tables: Files with their columns.
        policy: What the owner demands of jobs.
        mock_generated: Whether the mock was drawn from the private part's schema and marginals.
        created_ms: When it was registered, Unix milliseconds.
    """

    site: str
    name: str
    summary: str
    readme: str = field(repr=False)
    tags: tuple[str, ...]
    audience: tuple[str, ...]
    private_digest: str
    mock_digest: str
    tables: tuple[Table, ...] = field(repr=False)
    policy: DatasetPolicy
    mock_generated: bool
    created_ms: int

    @property
    def id(self) -> str:
        """``<site>/<name>``, as it is asked for."""
        return f"{self.site}/{self.name}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all tables, in order."""
        return tuple(column for table in self.tables for column in table.columns)

    def _repr_html_(self) -> str:
        # Everything here is a stranger's text.
        places = [(table.file, column) for table in self.tables for column in table.columns]
        rows = "".join(
            f"<tr><td>{html.escape(file)}</td><td>{html.escape(column.name)}</td>"
            f"<td>{html.escape(column.type)}</td></tr>"
            for file, column in places[:_MAX_SHOWN]
        )
        more = f"<p>and {len(places) - _MAX_SHOWN} columns more</p>" if len(places) > _MAX_SHOWN else ""
        tags = f"<p>{html.escape(', '.join(self.tags))}</p>" if self.tags else ""
        return (
            f"<h4>{html.escape(self.id)}</h4><p>{html.escape(self.summary)}</p>{tags}"
            f"<table><tr><th>file</th><th>column</th><th>type</th></tr>{rows}</table>{more}"
        )


def parse_card(data: bytes, site: str, name: str) -> DatasetCard:
    """Return the card of the dataset `name` of `site`.

    Raises:
        IntegrityFailure: It is no card (CARD_INVALID), or one of something else (CARD_FOREIGN).
    """
    try:
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ValueError
        card = json_format.Parse(data, rds_pb2.Dataset())
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise IntegrityFailure(
            f"The card of {quoted(f'{site}/{name}')} is damaged.",
            reason="CARD_INVALID",
            metadata={"dataset": quoted(f"{site}/{name}")},
        ) from error
    if (card.site, card.name) != (site, name):
        raise IntegrityFailure(
            f"The card of {quoted(f'{site}/{name}')} says that it is of {quoted(f'{card.site}/{card.name}')}.",
            reason="CARD_FOREIGN",
            metadata={"dataset": quoted(f"{site}/{name}")},
        )
    return card_of(card)


def card_of(message: rds_pb2.Dataset) -> DatasetCard:
    """Return a card as an object."""
    return DatasetCard(
        site=message.site,
        name=message.name,
        summary=message.summary,
        readme=message.readme,
        tags=tuple(message.tags),
        audience=tuple(message.audience),
        private_digest=message.private_digest,
        mock_digest=message.mock_digest,
        tables=tuple(_table(table) for table in message.tables),
        policy=_policy(message.policy),
        mock_generated=message.mock_generated,
        created_ms=message.created_unix_ms,
    )


def _table(message: rds_pb2.Table) -> Table:
    columns = tuple(Column(column.name, column.type) for column in message.columns)
    return Table(message.file, columns, message.mock_rows)


def _policy(message: rds_pb2.DatasetPolicy) -> DatasetPolicy:
    return DatasetPolicy(
        min_cell=message.min_cell,
        max_result_bytes=message.max_result_bytes,
        required_reviewers=message.required_reviewers,
        identifier_columns=tuple(message.identifier_columns),
        wall_seconds=message.wall_seconds,
    )
