"""Files of others on the own disk: never outside of the folder that was named, never through a link."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from syftmesh_core.errors import AlreadyExists, InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.quote import quoted

_ANCHOR = "x@x.example"


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below `folder`, which is made; return it.

    Args:
        folder: Where.
        files: Content by relative name; names of others are checked as paths of the mesh are.

    Raises:
        InvalidInput: A name leads outside or is none (PATH_INVALID).
        AlreadyExists: A link or a file is in the way (FILE_IN_THE_WAY).
    """
    plan = {_inside(folder, name): data for name, data in files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in plan.items():
        _make_parents(folder, path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise _in_the_way(path.name) from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    return folder


def _inside(folder: Path, name: str) -> Path:
    parsed = parse_path(f"{_ANCHOR}/{name}")
    relative = str(parsed).removeprefix(f"{_ANCHOR}/")
    if not relative or relative == str(parsed):
        raise InvalidInput(
            f"{quoted(name)} is no name of a file.", reason="PATH_INVALID", metadata={"path": quoted(name)}
        )
    return folder / relative


def _make_parents(folder: Path, path: Path) -> None:
    place = folder
    for part in path.relative_to(folder).parts[:-1]:
        place = place / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise _in_the_way(part)
        place.mkdir(exist_ok=True)


def _in_the_way(name: str) -> AlreadyExists:
    return AlreadyExists(
        f"A link or something else is in the way of {quoted(name)}: choose another folder.",
        reason="FILE_IN_THE_WAY",
        metadata={"file": quoted(name)},
    )
