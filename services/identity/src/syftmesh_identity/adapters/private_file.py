"""Files with secrets: 0600 from their first byte, refused when open to others."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from syftmesh_core.errors import WrongState

_MAX_BYTES = 64 * 1024


def read_private(path: Path) -> bytes | None:
    """Return the content of `path`, None when there is no such file.

    Raises:
        WrongState: It is no regular file of this user, or others may open it (FILE_NOT_PRIVATE).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise _refused(path)
        return file.read(_MAX_BYTES)


def write_private(path: Path, data: bytes) -> None:
    """Create `path` with `data`, durably.

    Raises:
        FileExistsError: It is there already; it is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, never replaces
    finally:
        part.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refused(path: Path) -> WrongState:
    return WrongState(
        f"The file {path.name} must be a regular file of the service's user that nobody else can read.",
        reason="FILE_NOT_PRIVATE",
        metadata={"file": path.name},
        hint=f"chmod 600 {path.name}",
    )
