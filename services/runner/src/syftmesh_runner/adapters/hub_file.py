"""Files of the own datasite, through the file client."""

from __future__ import annotations

from syftmesh_client.files import FileClient
from syftmesh_core.errors import NotFound
from syftmesh_core.path import parse_path
from syftmesh_core.permission.reader import ReaderKind

from syftmesh_runner.domain.dataset import EVERYONE


class DatasiteFiles:
    """See `syftmesh_runner.domain.ports.HubFiles`."""

    def __init__(self, files: FileClient) -> None:
        self._files = files

    async def write(self, path: str, data: bytes) -> int:
        """Write a file; return the bytes that left, as stored."""
        await self._files.write(path, data)
        view = await self._files.stat(path)
        return view.stored_size_bytes if view is not None else len(data)

    async def delete(self, path: str) -> None:
        """Delete a file; nothing happens when there is none."""
        try:
            await self._files.delete(path)
        except NotFound:
            return

    async def reseal(self, path: str) -> None:
        """Seal a file anew for its readers' devices of now."""
        await self._files.reseal(path)

    async def readers(self, path: str) -> frozenset[str]:
        """Return who but the owner may read `path` by the signed rules; of open readers, ``USER`` too."""
        where = parse_path(path)
        found = await self._files.rules.readers(where)
        if found.kind is ReaderKind.PUBLIC:
            return frozenset({EVERYONE})
        named = found.principals - {where.site}
        return named if found.kind is ReaderKind.CLOSED else named | {"USER"}
