"""The Python environment a job runs in, and how it appears inside the sandbox."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
"""What the loader, Debian's alternative links (BLAS) and local time need; nothing else of /etc is there."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An interpreter and the folders it needs beside the system's own.

    Attributes:
        python: The interpreter, at the same path inside the sandbox as outside.
        bind: Folders bound read-only at their own paths.
    """

    python: Path
    bind: tuple[Path, ...] = ()


def running_runtime() -> Runtime:
    """Return the environment that runs this process: its prefix and, for a virtual one, the base below it."""
    prefixes = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent)
    return Runtime(python=Path(sys.executable), bind=outermost(prefixes))


def outermost(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the folders without repeats, without those the system folders or each other already hold."""
    kept: list[Path] = []
    for folder in sorted(set(folders), key=lambda path: len(path.parts)):
        held = [*kept, *(Path(name) for name in SYSTEM_FOLDERS)]
        if folder != Path("/") and not any(folder.is_relative_to(other) for other in held):
            kept.append(folder)
    return tuple(kept)
