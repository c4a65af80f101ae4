"""The local token of the embedded mesh: a 0600 file, read anew at each login so that it can be replaced."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from syftmesh_core.clock import Random
from syftmesh_kit.private_file import read_private, write_private

from syftmesh_identity.domain.ports import LocalSecret
from syftmesh_identity.domain.secret import new_secret

_MIN_CHARACTERS = 32


class LocalTokenFile(LocalSecret):
    """Reads the local token.

    Args:
        path: The file; None for a mesh without local login.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    async def read(self) -> str | None:
        """Return the token; None without a file, or when it is too short to be a secret.

        Raises:
            WrongState: The file is open to others (FILE_NOT_PRIVATE).
        """
        if self._path is None:
            return None
        data = await asyncio.to_thread(read_private, self._path)
        text = (data or b"").decode("ascii", "replace").strip()
        return text if len(text) >= _MIN_CHARACTERS else None

    def create(self, random: Random) -> None:
        """Make the file when it is missing."""
        if self._path is not None:
            with suppress(FileExistsError):
                write_private(self._path, f"{new_secret(random)}\n".encode())
