"""Files of this machine that verbs read and write: in one step, and with typed errors."""

from __future__ import annotations

import os
import secrets
from pathlib import Path, PurePosixPath

from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound, WrongState
from syftmesh_core.quote import quoted


def read_file(path: Path) -> bytes:
    """Return the bytes of a file of this machine.

    Raises:
        NotFound: LOCAL_FILE_MISSING.
        InvalidInput: LOCAL_FILE_UNREADABLE: a folder, or not readable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no file {quoted(str(path))} on this machine.",
            reason="LOCAL_FILE_MISSING",
            metadata={"file": quoted(str(path))},
        ) from error
    except OSError as error:
        raise InvalidInput(
            f"The file {quoted(str(path))} cannot be read ({_why(error)}).",
            reason="LOCAL_FILE_UNREADABLE",
            metadata={"file": quoted(str(path))},
        ) from error


def write_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace the file `path` in one step: whoever looks sees the old bytes or the new ones, never a part.

    Raises:
        WrongState: LOCAL_FILE_UNWRITABLE.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        raise WrongState(
            f"The file {quoted(str(path))} cannot be written ({_why(error)}).",
            reason="LOCAL_FILE_UNWRITABLE",
            metadata={"file": quoted(str(path))},
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def inside(folder: Path, name: str) -> Path:
    """Return the place of `name`, which somebody else chose, inside `folder`.

    Raises:
        IntegrityFailure: FILE_NAME_UNSAFE: it would lie elsewhere, or go through a link.
    """
    parts = PurePosixPath(name).parts
    place = folder.joinpath(*parts)
    steps = [folder.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
    unsafe = not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name
    if unsafe or any(step.is_symlink() for step in steps):
        raise IntegrityFailure(
            f"The file name {quoted(name)} leads out of the folder; nothing more was written.",
            reason="FILE_NAME_UNSAFE",
            metadata={"file": quoted(name)},
        )
    return place


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
