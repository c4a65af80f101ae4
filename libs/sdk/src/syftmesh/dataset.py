"""Datasets of sites: the card that everybody of the audience may read, and the mock behind it."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from google.protobuf import json_format
from mesh.rds.v1 import rds_pb2
from syftmesh_client.node import Node
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound
from syftmesh_core.layout import DATASETS_FOLDER
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh.folder import write_files
from syftmesh.table import dataframe, one_of

if TYPE_CHECKING:
    import pandas as pd

CARD_FILE: Final = "card.json"
_MAX_CARD_BYTES: Final = 4 << 20

_log: Any = structlog.get_logger("syftmesh.sdk")


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
        mock_generated: Whether the mock was drawn from the private part's schema and marginals.
    """

    site: str
    name: str
    summary: str
    readme: str
    tags: tuple[str, ...]
    audience: tuple[str, ...]
    private_digest: str
    mock_digest: str
    tables: tuple[Table, ...]
    mock_generated: bool

    @property
    def id(self) -> str:
        """``<site>/<name>``, as it is asked for."""
        return f"{self.site}/{self.name}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(table.file)}</td><td>{html.escape(column.name)}</td>"
            f"<td>{html.escape(column.type)}</td></tr>"
            for table in self.tables
            for column in table.columns
        )
        return (
            f"<h4>{html.escape(self.id)}</h4><p>{html.escape(self.summary)}</p>"
            f"<table><tr><th>file</th><th>column</th><th>type</th></tr>{rows}</table>"
        )


class AsyncMock:
    """The mock part of a dataset: invented rows of the private part's shape."""

    def __init__(self, node: Node, card: DatasetCard) -> None:
        self._node = node
        self._base = f"{card.site}/{DATASETS_FOLDER}/{card.name}/mock"

    async def files(self) -> list[str]:
        """Return the names of its files."""
        found = await self._node.files.list(self._base)
        return [view.path.removeprefix(f"{self._base}/") for view in found if not view.unverified]

    async def read(self, name: str) -> bytes:
        """Return the bytes of a file, verified.

        Raises:
            NotFound: FILE_MISSING.
            MeshError: As `FileClient.read`.
        """
        return (await self._node.files.read(f"{self._base}/{name}")).data

    async def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Return a file as a table; the only one when no name is given.

        Raises:
            MeshError: As `read`, `table.one_of` and `table.dataframe`.
        """
        chosen = name if name is not None else one_of(await self.files(), None)
        return await asyncio.to_thread(dataframe, chosen, await self.read(chosen))

    async def download(self, folder: Path | str) -> Path:
        """Write all files below `folder` and return it; raises as `folder.write_files` and `read`."""
        files = {name: await self.read(name) for name in await self.files()}
        return await asyncio.to_thread(write_files, Path(folder), files)


@dataclass(frozen=True, slots=True)
class AsyncDataset(DatasetCard):
    """A dataset of a site.

    Attributes:
        mock: Its mock part.
    """

    mock: AsyncMock


class AsyncDatasets:
    """Finds datasets."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list(self, site: str | None = None) -> list[AsyncDataset]:
        """Return the datasets whose card may be read, by site and name; damaged cards are logged and left out.

        Args:
            site: Of this site; None: of the own one and of every site known here.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            Unavailable: The hub does not answer.
        """
        keystore = self._node.keystore
        known = {self._node.principal, *keystore.pinned_roots}
        sites = sorted(known) if site is None else [normalise_principal(site)]
        found: list[AsyncDataset] = []
        for owner in sites:
            for view in await self._node.files.list(f"{owner}/{DATASETS_FOLDER}"):
                name, _, rest = view.path.removeprefix(f"{owner}/{DATASETS_FOLDER}/").partition("/")
                if rest != CARD_FILE:
                    continue
                try:
                    found.append(await self._read(owner, name))
                except (IntegrityFailure, NotFound) as error:
                    _log.warning("dataset.refused", site=owner, reason=error.reason)
        return found

    async def get(self, dataset: str) -> AsyncDataset:
        """Return one dataset.

        Args:
            dataset: ``<site>/<name>``.

        Raises:
            InvalidInput: DATASET_INVALID, PRINCIPAL_INVALID.
            NotFound: There is none that may be seen (DATASET_UNKNOWN).
            IntegrityFailure: Its card does not hold (CARD_INVALID, CARD_FOREIGN), or as `FileClient.read`.
        """
        site, _, name = dataset.partition("/")
        if not name or "/" in name:
            raise InvalidInput(
                f"{quoted(dataset)} is no dataset; give one like alice@hospital.example/breast-cancer.",
                reason="DATASET_INVALID",
                metadata={"dataset": quoted(dataset)},
            )
        owner = normalise_principal(site)
        try:
            return await self._read(owner, name)
        except NotFound as error:
            raise NotFound(
                f"There is no dataset {quoted(f'{owner}/{name}')}, or you are not of its audience.",
                reason="DATASET_UNKNOWN",
                metadata={"dataset": quoted(f"{owner}/{name}")},
                hint=f"syftmesh dataset ls --site {owner}",
            ) from error

    async def _read(self, site: str, name: str) -> AsyncDataset:
        content = await self._node.files.read(f"{site}/{DATASETS_FOLDER}/{name}/{CARD_FILE}")
        card = parse_card(content.data, site, name)
        fields = {field: getattr(card, field) for field in DatasetCard.__dataclass_fields__}
        return AsyncDataset(**fields, mock=AsyncMock(self._node, card))


def parse_card(data: bytes, site: str, name: str) -> DatasetCard:
    """Return the card of the dataset `name` of `site`.

    Raises:
        IntegrityFailure: It is no card (CARD_INVALID), or one of something else (CARD_FOREIGN).
    """
    try:
        if len(data) > _MAX_CARD_BYTES:
            raise ValueError
        card = json_format.Parse(data, rds_pb2.Dataset())
    except (json_format.ParseError, ValueError) as error:
        raise IntegrityFailure(
            f"The card of {quoted(f'{site}/{name}')} is damaged.", reason="CARD_INVALID"
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
        mock_generated=message.mock_generated,
    )


def _table(message: rds_pb2.Table) -> Table:
    columns = tuple(Column(column.name, column.type) for column in message.columns)
    return Table(message.file, columns, message.mock_rows)


async def resolved(datasets: AsyncDatasets, wanted: Sequence[DatasetCard | str]) -> list[DatasetCard]:
    """Return the cards of what a caller named by object or by text.

    Raises:
        InvalidInput: None is named (DATASET_MISSING), or they are of several sites (DATASETS_OF_SEVERAL_SITES).
        MeshError: As `AsyncDatasets.get`.
    """
    cards = [await datasets.get(item) if isinstance(item, str) else item for item in wanted]
    if not cards:
        raise InvalidInput("A job needs a dataset.", reason="DATASET_MISSING")
    sites = sorted({card.site for card in cards})
    if len(sites) > 1:
        raise InvalidInput(
            f"The datasets are of several sites: {', '.join(sites)}. Submit one job to each.",
            reason="DATASETS_OF_SEVERAL_SITES",
            metadata={"sites": ", ".join(sites)},
        )
    return cards
