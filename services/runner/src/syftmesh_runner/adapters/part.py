"""Copying and hashing files of a folder without ever going through a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_FILES: Final = 10_000
MAX_DEPTH: Final = 16
_BLOCK: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class PartInvalid(Exception):
    """A file or folder cannot be taken: the message says why, and `args[1]` which name inside it."""


def walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Give name (with ``/``) and open descriptor of every regular file below `folder`, in name order.

    The descriptor is closed when the next is asked for.

    Raises:
        PartInvalid: `folder` is no folder, or a link, device, pipe or unprintable name lies in it.
    """
    try:
        root = os.open(folder, _READ | os.O_DIRECTORY)
    except OSError as error:
        raise PartInvalid("is no folder that can be read", "") from error
    try:
        for count, (name, descriptor) in enumerate(_below(root, "", 1), start=1):
            if count > MAX_FILES:
                raise PartInvalid(f"holds more than {MAX_FILES} files", "")
            yield name, descriptor
    finally:
        os.close(root)


def _below(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    if depth > MAX_DEPTH:
        raise PartInvalid(f"is nested deeper than {MAX_DEPTH} folders", prefix)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        path = prefix + name
        if not name.isprintable():
            raise PartInvalid("has a name with unprintable characters", ascii(path))
        try:
            descriptor = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            raise PartInvalid("is a link or cannot be read", path) from error
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                yield from _below(descriptor, path + "/", depth + 1)
            elif stat.S_ISREG(mode):
                yield path, descriptor
            else:
                raise PartInvalid("is no regular file", path)
        finally:
            os.close(descriptor)


def open_file(path: Path) -> int:
    """Return a descriptor of a regular file.

    Raises:
        PartInvalid: It is a link, no regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError as error:
        raise PartInvalid("is not there", path.name) from error
    except OSError as error:
        raise PartInvalid("is a link or cannot be read", path.name) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PartInvalid("is no regular file", path.name)
    return descriptor


def make_folders(path: Path) -> None:
    """Make `path` and missing folders above it, each 0700, as `Path.mkdir` does not for parents."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def copy(descriptor: int, target: Path) -> tuple[int, str]:
    """Copy an open file to a new file (0600) in new folders (0700); return its size in bytes and SHA-256."""
    make_folders(target.parent)
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as sink:
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
            sink.write(block)
            size += len(block)
        sink.flush()
        os.fsync(sink.fileno())
    return size, digest.hexdigest()


def sha256(descriptor: int) -> str:
    """Return the SHA-256 of an open file, hex."""
    digest = hashlib.sha256()
    while block := os.read(descriptor, _BLOCK):
        digest.update(block)
    return digest.hexdigest()
