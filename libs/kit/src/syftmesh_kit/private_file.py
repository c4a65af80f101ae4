"""Files with secrets: 0600 from their first byte, refused when open to others.

A pod's Secrets are the one exception: kubelet writes them as root, and readable by the group that the pod
runs in (``fsGroup``). That is as private as a file of one's own, since only root could change it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from syftmesh_core.errors import WrongState

_MAX_BYTES: Final = 64 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_MOUNTED_MODE: Final = 0o440
_ROOT: Final = 0


def read_private(path: Path) -> bytes | None:
    """Return the content of `path`, None when there is no such file.

    Raises:
        WrongState: It is no regular file of this user, or others may open it (FILE_NOT_PRIVATE).
    """
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path) from error
    with os.fdopen(descriptor, "rb") as file:
        if not is_private(os.fstat(file.fileno())):
            raise _refused(path)
        return file.read(_MAX_BYTES)


def is_private(found: os.stat_result) -> bool:
    """Return whether an open file is a secret of this process alone.

    That is a regular file of this user that nobody else may open, or one mounted by kubelet: root's, mode 0440,
    its group one of ours.
    """
    if not stat.S_ISREG(found.st_mode):
        return False
    if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return True
    return (
        found.st_uid == _ROOT
        and stat.S_IMODE(found.st_mode) == _MOUNTED_MODE
        and found.st_gid in {os.getegid(), *os.getgroups()}
    )


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


def replace_private(path: Path, data: bytes) -> None:
    """Replace the file `path` in one step, readable by this user alone, on disk when it returns."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _open(path: Path) -> int:
    try:
        return os.open(path, _FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        # kubelet's files are links of root's into the folder of the newest version; nobody else's are followed.
        if error.errno != errno.ELOOP or os.geteuid() == _ROOT or path.lstat().st_uid != _ROOT:
            raise
    return os.open(path, _FLAGS)


def _refused(path: Path) -> WrongState:
    return WrongState(
        f"The file {path.name} must be a regular file of the service's user that nobody else can read.",
        reason="FILE_NOT_PRIVATE",
        metadata={"file": path.name},
        hint=f"chmod 600 {path.name}",
    )
