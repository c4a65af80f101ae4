"""Registering and removing datasets of one's own site."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from syftmesh_client.files import ChangeKind
from syftmesh_client.node import Node
from syftmesh_core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InvalidInput,
    MeshError,
    NotFound,
    Unimplemented,
)
from syftmesh_core.layout import DATASETS_FOLDER
from syftmesh_core.path import RULES_FILE
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh.card import CARD_FILE, DatasetCard, DatasetPolicy, card_of
from syftmesh.dataset import AsyncDataset, AsyncDatasets
from syftmesh.site_socket import TIMEOUT_S, SiteSockets

GENERATE: Final = "generate"
EVERYONE: Final = "*"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_CREATE_S: Final = 300.0
_PUBLISH_S: Final = 60.0
_PAGE: Final = 100


class AsyncSiteDatasets:
    """The owner's datasets.

    Args:
        node: The owner's admin device, which signs the rule files.
        sockets: The site's programs.
        datasets: Reads cards.
    """

    def __init__(self, node: Node, sockets: SiteSockets, datasets: AsyncDatasets) -> None:
        self._node = node
        self._sockets = sockets
        self._datasets = datasets

    async def create(
        self,
        name: str,
        private: Path | str,
        *,
        mock: Path | str = GENERATE,
        summary: str = "",
        readme: str = "",
        tags: Sequence[str] = (),
        audience: Sequence[str] = (),
        policy: DatasetPolicy | Mapping[str, Any] | None = None,
    ) -> AsyncDataset:
        """Register data of this machine and return the dataset once its card is published.

        Args:
            name: ``[a-z0-9][a-z0-9_-]{0,62}``, for good.
            private: File or folder; the site keeps a copy, which never leaves it.
            mock: File or folder of the same shape, or ``generate``.
            summary: One line.
            readme: Markdown.
            tags: Free words.
            audience: E-mails that may read card and mock, or ``*``.
            policy: What the owner demands, or a mapping with some of the names in `DatasetPolicy`.

        Raises:
            InvalidInput: DATASET_INVALID, POLICY_INVALID, PRINCIPAL_INVALID.
            AlreadyExists: DATASET_EXISTS.
            IntegrityFailure: MOCK_HOLDS_PRIVATE_ROWS.
            Unimplemented: The audience has a group, a glob or ``USER`` (OPEN_READERS).
            NotFound: SITE_NOT_RUNNING.
            DeadlineExceeded: It is registered, and its card not published yet (CARD_NOT_PUBLISHED).
        """
        _check_name(name)
        readers = [_reader(entry) for entry in audience]
        request = pb.CreateDatasetRequest(
            name=name,
            private_path=str(Path(private).absolute()),
            mock_path="" if mock == GENERATE else str(Path(mock).absolute()),
            generate_mock=mock == GENERATE,
            summary=summary,
            readme=readme,
            tags=list(tags),
            audience=readers,
            policy=_policy(policy or {}),
        )
        await self._check_free(name)
        folder = f"{self._node.principal}/{DATASETS_FOLDER}/{name}"
        # Rules first: the card must never be there without those that say who may read it.
        await self._node.files.write(f"{folder}/{RULES_FILE}", _rules(readers))
        try:
            made = await self._sockets.datasets.CreateDataset(request, timeout=_CREATE_S)
        except MeshError as error:
            if error.code not in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
                with suppress(MeshError):
                    await self._node.files.delete(f"{folder}/{RULES_FILE}")
            raise
        return await self._published(name, made.dataset.private_digest)

    async def list(self) -> list[DatasetCard]:
        """Return all datasets by name; raises NotFound (SITE_NOT_RUNNING)."""
        found: list[DatasetCard] = []
        token = ""
        while True:
            request = pb.ListDatasetsRequest(page_size=_PAGE, page_token=token)
            page = await self._sockets.datasets.ListDatasets(request, timeout=TIMEOUT_S)
            found += [card_of(message) for message in page.datasets]
            token = page.next_page_token
            if not token:
                return found

    async def get(self, name: str) -> AsyncDataset:
        """Return one dataset as its audience sees it, once its card is published.

        Raises:
            NotFound: DATASET_UNKNOWN, SITE_NOT_RUNNING.
            DeadlineExceeded: CARD_NOT_PUBLISHED.
        """
        found = await self._sockets.datasets.GetDataset(pb.GetDatasetRequest(name=name), timeout=TIMEOUT_S)
        return await self._published(name, found.dataset.private_digest)

    async def delete(self, name: str) -> None:
        """Remove a dataset, its card, its mock and its rule file.

        Raises:
            NotFound: DATASET_UNKNOWN, SITE_NOT_RUNNING.
            WrongState: An open job names it (DATASET_IN_USE).
        """
        await self._sockets.datasets.DeleteDataset(pb.DeleteDatasetRequest(name=name), timeout=TIMEOUT_S)
        with suppress(NotFound):
            path = f"{self._node.principal}/{DATASETS_FOLDER}/{name}/{RULES_FILE}"
            await self._node.files.delete(path)

    async def _check_free(self, name: str) -> None:
        try:
            await self._sockets.datasets.GetDataset(pb.GetDatasetRequest(name=name), timeout=TIMEOUT_S)
        except NotFound as error:
            if error.reason != "DATASET_UNKNOWN":
                raise
            return
        raise AlreadyExists(
            f"There is a dataset {name} already.",
            reason="DATASET_EXISTS",
            metadata={"dataset": name},
            hint=f"syftmesh dataset rm {name}",
        )

    async def _published(self, name: str, digest: str) -> AsyncDataset:
        owner = self._node.principal
        folder = f"{owner}/{DATASETS_FOLDER}/{name}"
        try:
            async with asyncio.timeout(_PUBLISH_S):
                # What is there comes first in the feed, then every change.
                async for change in self._node.files.watch([folder]):
                    if change.kind is not ChangeKind.UPDATED or change.path != f"{folder}/{CARD_FILE}":
                        continue
                    with suppress(NotFound):
                        found = await self._datasets.get(f"{owner}/{name}")
                        if found.private_digest == digest:
                            return found
        except TimeoutError:
            pass
        raise DeadlineExceeded(
            f"The dataset {name} is registered; its card is not published yet.",
            reason="CARD_NOT_PUBLISHED",
            metadata={"dataset": name},
            hint=f"syftmesh dataset show {owner}/{name}",
        )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{quoted(name)} is no name of a dataset: 1 to 63 of a-z, 0-9, _ and -, the first a letter or digit.",
            reason="DATASET_INVALID",
            metadata={"dataset": quoted(name)},
        )


def _reader(entry: str) -> str:
    if entry == EVERYONE:
        return entry
    if entry in {"USER", "GUEST"} or "*" in entry or entry.startswith("group:"):
        raise Unimplemented(
            f"The audience {quoted(entry)} cannot be sealed for yet: name e-mails, or * for everyone.",
            reason="OPEN_READERS",
            metadata={"entry": quoted(entry)},
        )
    return normalise_principal(entry)


def _rules(readers: Sequence[str]) -> bytes:
    if not readers:
        return b"# The owner alone.\nrules: []\n"
    entries = ", ".join(json.dumps(entry) for entry in readers)
    return f'rules:\n  - pattern: "**"\n    access:\n      read: [{entries}]\n'.encode()


def _policy(policy: DatasetPolicy | Mapping[str, Any]) -> rds_pb2.DatasetPolicy:
    try:
        return rds_pb2.DatasetPolicy(**(asdict(policy) if isinstance(policy, DatasetPolicy) else policy))
    except (TypeError, ValueError) as error:
        names = ", ".join(field.name for field in rds_pb2.DatasetPolicy.DESCRIPTOR.fields)
        raise InvalidInput(
            f"The policy {quoted(str(policy))} is none; it may set {names}.", reason="POLICY_INVALID"
        ) from error
