"""Locks as the packages they name for the Python of images."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

_ENVIRONMENT = {
    "python_version": "3.11", "python_full_version": "3.11.2", "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "sys_platform": "linux", "os_name": "posix",
    "platform_system": "Linux",
}  # fmt: skip


def locked(path: Path) -> set[tuple[str, str]]:
    """Return name and version of each package that the lock in `path` installs in an image."""
    lines = [line.removesuffix("\\").strip() for line in path.read_text().splitlines() if line[:1].isalnum()]
    wanted = [Requirement(line) for line in lines]
    return {
        (one.name.lower().replace("_", "-"), str(one.specifier).removeprefix("=="))
        for one in wanted
        if one.marker is None or one.marker.evaluate(_ENVIRONMENT)
    }
