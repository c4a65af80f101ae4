"""Datasets of sites: the card that everybody of the audience may read, and the mock behind it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from syftmesh_client.node import Node
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound
from syftmesh_core.layout import DATASETS_FOLDER
from syftmesh_core.parallel import in_parallel
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh.card import CARD_FILE, Column, DatasetCard, DatasetPolicy, Table, parse_card
from syftmesh.folder import write_files
from syftmesh.provenance import read_of_owner
from syftmesh.table import dataframe, one_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AsyncDataset",
    "AsyncDatasets",
    "AsyncMock",
    "Column",
    "DatasetCard",
    "DatasetPolicy",
    "Table",
    "mock_digest",
    "resolved",
]

MAX_DATASETS: Final = 16
"""Datasets of one job."""

_AT_ONCE: Final = 8

_log: Any = structlog.get_logger("syftmesh.sdk")


class AsyncMock:
    """The mock part of a dataset: invented rows of the private part's shape."""

    def __init__(self, node: Node, card: DatasetCard) -> None:
        self._node = node
        self._card = card
        self._base = f"{card.site}/{DATASETS_FOLDER}/{card.name}/mock"

    async def files(self) -> list[str]:
        """Return the names of its files."""
        found = await self._node.files.list(self._base)
        return [view.path.removeprefix(f"{self._base}/") for view in found if not view.unverified]

    async def read(self, name: str) -> bytes:
        """Return the bytes of a file, verified.

        Raises:
            NotFound: FILE_MISSING.
            IntegrityFailure: AUTHOR_NOT_ALLOWED.
            MeshError: As `FileClient.read`.
        """
        return await read_of_owner(self._node.files, f"{self._base}/{name}")

    async def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Return a file as a table; the only one when no name is given.

        Raises:
            MeshError: As `read`, `table.one_of` and `table.dataframe`.
        """
        chosen = name if name is not None else one_of(await self.files(), None)
        return await asyncio.to_thread(dataframe, chosen, await self.read(chosen))

    async def contents(self) -> dict[str, bytes]:
        """Return all files by name: exactly those of the version that the card names.

        Raises:
            IntegrityFailure: They are of another version, or some are missing (MOCK_CHANGED).
            MeshError: As `read`.
        """
        names = await self.files()
        data = await in_parallel([self.read(name) for name in names], at_once=_AT_ONCE)
        files = dict(zip(names, data, strict=True))
        if await asyncio.to_thread(mock_digest, files) != self._card.mock_digest:
            raise IntegrityFailure(
                f"The files of the mock of {self._card.id} are not those that its card names.",
                reason="MOCK_CHANGED",
                metadata={"dataset": self._card.id},
                hint="Get the dataset again: its owner may have changed it just now.",
            )
        return files

    async def download(self, folder: Path | str) -> Path:
        """Write all files below `folder` and return it; raises as `folder.write_files` and `contents`."""
        return await asyncio.to_thread(write_files, Path(folder), await self.contents())


@dataclass(frozen=True, slots=True)
class AsyncDataset(DatasetCard):
    """A dataset of a site.

    Attributes:
        mock: Its mock part.
    """

    mock: AsyncMock = field(repr=False, compare=False)


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
            IntegrityFailure: The keys of `site` do not hold (KEY_CHANGED).
            Unavailable: The hub does not answer.
        """
        if site is not None:
            return [*await self._of_site(normalise_principal(site))]
        known = sorted({self._node.principal, *self._node.keystore.pinned_roots})
        pages = await in_parallel([self._of_known(owner) for owner in known], at_once=_AT_ONCE)
        return [dataset for page in pages for dataset in page]

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

    async def _of_known(self, owner: str) -> Sequence[AsyncDataset]:
        try:
            return await self._of_site(owner)
        except (IntegrityFailure, NotFound) as error:
            # One bad site must not hide the others.
            _log.warning("dataset.site_refused", site=owner, reason=error.reason)
            return []

    async def _of_site(self, owner: str) -> Sequence[AsyncDataset]:
        base = f"{owner}/{DATASETS_FOLDER}"
        views = await self._node.files.list(base)
        places = [view.path.removeprefix(f"{base}/").partition("/") for view in views]
        names = [name for name, _, rest in places if rest == CARD_FILE]
        found = await in_parallel([self._readable(owner, name) for name in names], at_once=_AT_ONCE)
        return [dataset for dataset in found if dataset is not None]

    async def _readable(self, site: str, name: str) -> AsyncDataset | None:
        try:
            return await self._read(site, name)
        except (IntegrityFailure, NotFound) as error:
            _log.warning("dataset.refused", site=site, reason=error.reason)
            return None

    async def _read(self, site: str, name: str) -> AsyncDataset:
        data = await read_of_owner(self._node.files, f"{site}/{DATASETS_FOLDER}/{name}/{CARD_FILE}")
        card = await asyncio.to_thread(parse_card, data, site, name)
        values = {each.name: getattr(card, each.name) for each in fields(DatasetCard)}
        return AsyncDataset(**values, mock=AsyncMock(self._node, card))


def mock_digest(files: Mapping[str, bytes]) -> str:
    """Return the version of a mock with these files, hex: SHA-256 of ``ENC('dataset', [names, digests])``."""
    names = sorted(files)
    digests = [hashlib.sha256(files[name]).digest() for name in names]
    return hashlib.sha256(encode("dataset", [names, digests])).hexdigest()


async def resolved(datasets: AsyncDatasets, wanted: Sequence[DatasetCard | str]) -> list[DatasetCard]:
    """Return the cards of what a caller named by object or by text.

    Raises:
        InvalidInput: None is named (DATASET_MISSING), too many or one twice (JOB_INVALID), or they are of several
            sites (DATASETS_OF_SEVERAL_SITES).
        MeshError: As `AsyncDatasets.get`.
    """
    cards = [await datasets.get(item) if isinstance(item, str) else item for item in wanted]
    if not cards:
        raise InvalidInput("A job needs a dataset.", reason="DATASET_MISSING")
    if len(cards) > MAX_DATASETS or len({card.id for card in cards}) != len(cards):
        raise InvalidInput(f"A job names 1 to {MAX_DATASETS} datasets, each once.", reason="JOB_INVALID")
    sites = sorted({card.site for card in cards})
    if len(sites) > 1:
        raise InvalidInput(
            f"The datasets are of several sites: {', '.join(sites)}. Submit one job to each.",
            reason="DATASETS_OF_SEVERAL_SITES",
            metadata={"sites": ", ".join(sites)},
        )
    return cards
