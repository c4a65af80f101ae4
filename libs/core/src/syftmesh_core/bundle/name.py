"""Names of files in a bundle: plain, relative, and one file each on every file system."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Final

from syftmesh_core.bundle.refusal import shown

MAX_DEPTH: Final = 32
MAX_PART_BYTES: Final = 255
RESERVED_PREFIX: Final = ".syftmesh"

_UNPORTABLE: Final = frozenset('\\:*?"<>|,')
"""Backslash and colon lead elsewhere on Windows; Flower splits the lines of its list at commas."""


class Names:
    """The names seen so far, and the rules for the next one."""

    def __init__(self) -> None:
        self._spelling: dict[str, str] = {}
        self._is_file: dict[str, bool] = {}

    def claim(self, name: str) -> str:
        """Take `name` as that of a file; return what is wrong with it, empty when nothing is."""
        path = PurePosixPath(name)
        if not name or str(path) != name or path.is_absolute() or ".." in path.parts or name == ".":
            return "is not a plain relative path of a file"
        if not name.isprintable() or _UNPORTABLE & set(name):
            return "has characters that do not travel between machines"
        if len(path.parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART_BYTES for part in path.parts):
            return f"is longer than {MAX_PART_BYTES} bytes a part or {MAX_DEPTH} parts"
        if any(part.casefold().startswith(RESERVED_PREFIX) for part in path.parts):
            return f"begins with {RESERVED_PREFIX}, which is kept for files of the mesh"
        if name in self._is_file:
            return "is there twice"
        folders = ["/".join(path.parts[:length]) for length in range(1, len(path.parts))]
        problems = [self._claim(folder, is_file=False) for folder in folders]
        return next(filter(None, [*problems, self._claim(name, is_file=True)]), "")

    def _claim(self, name: str, *, is_file: bool) -> str:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = self._spelling.setdefault(folded, name)
        if other != name:
            return f"differs from {shown(other)} only in case or Unicode form"
        if self._is_file.setdefault(name, is_file) != is_file:
            return "is a file and a folder at once"
        return ""
