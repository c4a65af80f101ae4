"""Files of datasites by path, sealed and verified on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from syftmesh_client.files import Change, FileEntryView
from syftmesh_client.node import Node
from syftmesh_core.record import FileRecord


class AsyncFiles:
    """Reads and writes files; errors are those of `syftmesh_client.files.FileClient`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def read(self, path: str) -> bytes:
        """Return the bytes at ``<e-mail>/<segments>``."""
        return (await self._node.files.read(path)).data

    async def write(self, path: str, data: bytes, *, expected_revision: int | None = None) -> FileRecord:
        """Write `data`; with `expected_revision` only when that is the newest (0: only when there is none)."""
        return await self._node.files.write(path, data, expected_revision=expected_revision)

    async def delete(self, path: str, *, expected_revision: int | None = None) -> FileRecord:
        """Delete the file by a signed tombstone."""
        return await self._node.files.delete(path, expected_revision=expected_revision)

    async def list(self, prefix: str) -> list[FileEntryView]:
        """Return the live files below a folder that may be read."""
        return await self._node.files.list(prefix)

    async def stat(self, path: str) -> FileEntryView | None:
        """Return what the verified record says, None when nothing is there."""
        return await self._node.files.stat(path)

    def watch(self, prefixes: Sequence[str] = ()) -> AsyncIterator[Change]:
        """Iterate over what is below `prefixes`, then over every change, for ever."""
        return self._node.files.watch(prefixes)
