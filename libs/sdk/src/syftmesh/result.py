"""Results of a job as its recipient opens them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from syftmesh_client.node import Node
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.parallel import in_parallel

from syftmesh.folder import write_files
from syftmesh.job_status import STATUS_FILE
from syftmesh.provenance import read_of_owner
from syftmesh.table import dataframe, one_of

if TYPE_CHECKING:
    import pandas as pd

LINEAGE_FILE: Final = "lineage.json"
_BESIDE: Final = frozenset({STATUS_FILE, LINEAGE_FILE})
_AT_ONCE: Final = 8


class AsyncResults:
    """What the owner released of a job."""

    def __init__(self, node: Node, base: str) -> None:
        self._node = node
        self._base = base

    async def files(self) -> list[str]:
        """Return the names of the released files; none before the release."""
        return [name for name in await self._names() if name not in _BESIDE]

    async def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            NotFound: FILE_MISSING.
            IntegrityFailure: AUTHOR_NOT_ALLOWED: the site's owner did not write it.
            MeshError: As `FileClient.read`.
        """
        return await read_of_owner(self._node.files, f"{self._base}/{name}")

    async def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Return a file as a table; the only one when no name is given; raises as `table.dataframe`."""
        chosen = name if name is not None else one_of(await self.files(), None)
        return await asyncio.to_thread(dataframe, chosen, await self.read(chosen))

    async def lineage(self) -> dict[str, Any]:
        """Return where the released files come from: dataset versions, code, approvals, run, release.

        Raises:
            NotFound: Nothing was released (FILE_MISSING).
            IntegrityFailure: It is no JSON object (LINEAGE_INVALID).
        """
        data = await self.read(LINEAGE_FILE)
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise IntegrityFailure("The lineage of the results is damaged.", reason="LINEAGE_INVALID")
        return found

    async def download(self, folder: Path | str) -> Path:
        """Write all files and their lineage below `folder` and return it; raises as `write_files` and `read`."""
        names = [name for name in await self._names() if name != STATUS_FILE]
        data = await in_parallel([self.read(name) for name in names], at_once=_AT_ONCE)
        return await asyncio.to_thread(write_files, Path(folder), dict(zip(names, data, strict=True)))

    async def _names(self) -> list[str]:
        # Also what does not verify: reading it says why, leaving it out would say nothing.
        return [view.path.removeprefix(f"{self._base}/") for view in await self._node.files.list(self._base)]
