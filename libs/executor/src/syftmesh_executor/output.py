"""Bringing output out of a dead run: nothing in it is followed, executed or believed.

The folder is given as a descriptor opened before the code started. The run's mount lives on behind it after
its last process is gone, so nobody can change what is being read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from syftmesh_executor.port import Finding, OutputFile

MAX_ENTRIES = 10_000
MAX_DEPTH = 32
MAX_FINDINGS = 100
_BLOCK = 1 << 20
_NOFOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class OutputTooLargeError(Exception):
    """More bytes, entries or levels than a run may leave; the message says which."""


@dataclass(slots=True)
class _Collection:
    target: Path
    budget_bytes: int
    files: list[OutputFile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    entries: int = 0

    def refuse(self, path: str, reason: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(path, reason))


def collect_output(
    source_fd: int, target: Path, limit_bytes: int
) -> tuple[tuple[OutputFile, ...], tuple[Finding, ...]]:
    """Copy the regular files below an open folder into `target` and return them with what was refused.

    Links, devices, pipes, sockets, files with a second name and unprintable names stay behind as findings.

    Args:
        source_fd: Descriptor of the folder the code wrote.
        target: Folder on the host; made when it is not there.
        limit_bytes: Size of all files together.

    Raises:
        OutputTooLargeError: More than `limit_bytes`, `MAX_ENTRIES` or `MAX_DEPTH`; `target` may hold a part.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    collection = _Collection(target, limit_bytes)
    _collect_folder(collection, source_fd, "", 1)
    return tuple(sorted(collection.files, key=lambda file: file.path)), tuple(collection.findings)


def _collect_folder(collection: _Collection, folder_fd: int, prefix: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise OutputTooLargeError(f"the output is nested deeper than {MAX_DEPTH} folders")
    for name in _names(collection, folder_fd):
        path = prefix + name
        if not is_plain(name):
            collection.refuse(ascii(path)[1:-1], "NAME_UNPRINTABLE")
            continue
        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, _NOFOLLOW | os.O_DIRECTORY, dir_fd=folder_fd)
            try:
                (collection.target / path).mkdir(mode=0o700)
                _collect_folder(collection, inner, path + "/", depth + 1)
            finally:
                os.close(inner)
        elif (reason := _refusal(status)) is not None:
            collection.refuse(path, reason)
        else:
            _copy(collection, folder_fd, name, path)


def _names(collection: _Collection, folder_fd: int) -> Iterator[str]:
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            collection.entries += 1
            if collection.entries > MAX_ENTRIES:
                raise OutputTooLargeError(f"the output has more than {MAX_ENTRIES} entries")
            yield entry.name


def is_plain(name: str) -> bool:
    """Whether the name of a file can be shown."""
    # A name that is not UTF-8 arrives with surrogates, which are not printable either.
    return name.isprintable()


def _refusal(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "SYMBOLIC_LINK"
    if not stat.S_ISREG(status.st_mode):
        return "SPECIAL_FILE"
    return "HARD_LINK" if status.st_nlink > 1 else None


def _copy(collection: _Collection, folder_fd: int, name: str, path: str) -> None:
    digest = hashlib.sha256()
    size = 0
    source = os.open(name, _NOFOLLOW, dir_fd=folder_fd)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(collection.target / path, flags, 0o600), "wb") as sink:
            while block := os.read(source, min(_BLOCK, collection.budget_bytes + 1)):
                collection.budget_bytes -= len(block)
                if collection.budget_bytes < 0:
                    raise OutputTooLargeError("the output is larger than the run may leave")
                digest.update(block)
                sink.write(block)
                size += len(block)
    finally:
        os.close(source)
    collection.files.append(OutputFile(path, size, digest.hexdigest()))
