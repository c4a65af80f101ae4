"""Writing down what comes out of a pod: nothing of it is believed, neither names nor sizes nor order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from syftmesh_executor.output import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_FINDINGS,
    OutputTooLargeError,
    is_plain,
)
from syftmesh_executor.pod.wire import WireError
from syftmesh_executor.port import Finding, OutputFile

_REFUSALS: Final = {"link": "SYMBOLIC_LINK", "other": "SPECIAL_FILE"}


@dataclass(slots=True)
class Collection:
    """The output of one run while it arrives.

    Attributes:
        target: Folder on this side; made with the first entry.
        budget_bytes: What may still come.
        files: Every file that is whole.
        findings: What was refused.
    """

    target: Path
    budget_bytes: int
    files: list[OutputFile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _folders: set[str] = field(default_factory=lambda: {""})
    _entries: int = 0
    _open: BinaryIO | None = None
    _name: str = ""
    _left: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def start(self) -> None:
        """Make the folder."""
        self.target.mkdir(mode=0o700, parents=True, exist_ok=True)

    def entry(self, payload: bytes) -> None:
        """Take an entry; the content of a file follows by `data`.

        Raises:
            OutputTooLargeError: More bytes, entries or levels than a run may leave.
            WireError: It is none, or lies where nothing was announced.
        """
        self._check_whole()
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise OutputTooLargeError(f"the output has more than {MAX_ENTRIES} entries")
        path, sort, links, size = _parse(payload)
        parent, _, name = path.rpartition("/")
        if path.count("/") >= MAX_DEPTH:
            raise OutputTooLargeError(f"the output is nested deeper than {MAX_DEPTH} folders")
        if not is_plain(name):
            self._refuse(ascii(path)[1:-1], "NAME_UNPRINTABLE")
            self._skip(size if sort == "file" and links == 1 else 0)
        elif parent not in self._folders:
            # Below a folder whose name was refused: it stays behind with it.
            self._skip(size if sort == "file" and links == 1 else 0)
        elif sort == "folder":
            (self.target / path).mkdir(mode=0o700)
            self._folders.add(path)
        elif sort in _REFUSALS or links != 1:
            self._refuse(path, _REFUSALS.get(sort, "HARD_LINK"))
        else:
            self._begin(path, size)

    def data(self, block: bytes) -> None:
        """Take content of the file announced last; raises as `entry`."""
        self.budget_bytes -= len(block)
        if self.budget_bytes < 0:
            raise OutputTooLargeError("the output is larger than the run may leave")
        if len(block) > self._left:
            raise WireError("more content than was announced")
        self._left -= len(block)
        if self._open is not None:
            self._digest.update(block)
            self._open.write(block)
            if not self._left:
                self._finish()

    def end(self) -> tuple[tuple[OutputFile, ...], tuple[Finding, ...]]:
        """Return what came, once nothing follows.

        Raises:
            WireError: A file is not whole.
        """
        self._check_whole()
        return tuple(sorted(self.files, key=lambda file: file.path)), tuple(self.findings)

    def drop(self) -> None:
        """Remove all of it."""
        if self._open is not None:
            self._open.close()
        shutil.rmtree(self.target, ignore_errors=True)

    def _begin(self, path: str, size: int) -> None:
        if size > self.budget_bytes:
            raise OutputTooLargeError("the output is larger than the run may leave")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._open = os.fdopen(os.open(self.target / path, flags, 0o600), "wb")
        self._name, self._left, self._digest = path, size, hashlib.sha256()
        if not size:
            self._finish()

    def _finish(self) -> None:
        if self._open is not None:
            size = self._open.tell()
            self._open.close()
            self._open = None
            self.files.append(OutputFile(self._name, size, self._digest.hexdigest()))

    def _skip(self, size: int) -> None:
        self._open, self._left = None, size

    def _check_whole(self) -> None:
        if self._left:
            raise WireError("less content than was announced")

    def _refuse(self, path: str, reason: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(path, reason))


def _parse(payload: bytes) -> tuple[str, str, int, int]:
    try:
        entry = json.loads(payload)
        path = os.fsdecode(bytes.fromhex(entry["path"]))
        sort, links, size = entry["type"], entry["links"], entry["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise WireError("an entry is malformed") from error
    numbers = isinstance(links, int) and isinstance(size, int) and size >= 0
    if not numbers or sort not in ("file", "folder", "link", "other"):
        raise WireError("an entry is malformed")
    if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
        raise WireError("an entry lies outside of the output")
    return path, sort, links, size
