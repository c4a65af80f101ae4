"""The folder of a key store: modes, atomic replacement, and the lock between its writers."""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from syftmesh_core.clock import Random, system_random
from syftmesh_core.errors import IntegrityFailure, NotFound, Unavailable, WrongState

MAX_FILE_BYTES = 16 * 1024 * 1024
"""No file of a key store is longer, in bytes."""

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


class PrivateFolder:
    """A folder of mode 0700 whose files have mode 0600; looser modes are refused.

    Args:
        path: The folder.
        random: Source of temporary names.
    """

    def __init__(self, path: Path, random: Random = system_random) -> None:
        self._path = path
        self._random = random

    def create(self) -> None:
        """Make the folder, and check its mode where it is there already.

        Raises:
            WrongState: KEYSTORE_MODE when others may enter it.
            Unavailable: KEYSTORE_UNWRITABLE.
        """
        try:
            self._path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        except FileExistsError:
            pass  # no folder: the check below says so
        except OSError:
            raise _unwritable() from None
        self.check()

    def check(self) -> None:
        """Check that the folder is there and nobody else may enter it.

        Raises:
            NotFound: KEYSTORE_MISSING.
            WrongState: KEYSTORE_MODE.
        """
        try:
            found = self._path.lstat()
        except OSError:
            raise _missing() from None
        if not stat.S_ISDIR(found.st_mode):
            raise WrongState(
                "The place of the key store is no folder: name another one.", reason="KEYSTORE_MODE"
            )
        _check_private(found, self._path, "folder", "700")

    def has(self, name: str) -> bool:
        """Return whether a file or link of that name is there."""
        return os.path.lexists(self._path / name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            NotFound: KEYSTORE_MISSING.
            WrongState: KEYSTORE_MODE when others may read or write it, or it is no plain file.
            IntegrityFailure: KEYSTORE_DAMAGED when it cannot be read, or is absurdly long.
        """
        path = self._path / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing() from None
        except OSError:
            raise _no_file() from None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _no_file()
            _check_private(found, path, "file", "600")
            try:
                data = file.read(MAX_FILE_BYTES + 1)
            except OSError:
                data = None
        if data is None or len(data) > MAX_FILE_BYTES:
            raise IntegrityFailure(
                "A file of the key store cannot be read: restore it from a backup, or recover with the "
                "phrase.",
                reason="KEYSTORE_DAMAGED",
            )
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Write a file so that a crash leaves the old or the new one, whole, on disk.

        Raises:
            Unavailable: KEYSTORE_UNWRITABLE.
        """
        try:
            self._replace(name, data)
        except OSError:
            raise _unwritable() from None

    def _replace(self, name: str, data: bytes) -> None:
        temporary = self._path / f".{name}.{self._random(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, _FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(self._path / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._sync()

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the exclusive lock of that name; another process or thread that wants it waits."""
        path = self._path / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
        except FileNotFoundError:
            raise _missing() from None
        except OSError:
            raise _no_file() from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sync(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_private(found: os.stat_result, path: Path, what: str, mode: str) -> None:
    if found.st_uid != os.geteuid():
        raise WrongState(
            f"The key store's {what} belongs to another user of this machine.",
            reason="KEYSTORE_MODE",
            hint=f"sudo chown {os.geteuid()} {shlex.quote(str(path))}",
        )
    if found.st_mode & 0o077:
        raise WrongState(
            f"Others on this machine may use the key store's {what} (mode {found.st_mode & 0o777:04o}, it "
            f"must be 0{mode}): run the command in the hint.",
            reason="KEYSTORE_MODE",
            metadata={"mode": f"{found.st_mode & 0o777:04o}"},
            hint=f"chmod {mode} {shlex.quote(str(path))}",
        )


def _missing() -> NotFound:
    return NotFound(
        "There is no key store for this profile on this machine.",
        reason="KEYSTORE_MISSING",
        hint="syftmesh login makes a new device; syftmesh keys recover restores the account from its phrase.",
    )


def _unwritable() -> Unavailable:
    return Unavailable(
        "The key store cannot be written: check the disk's free space and the rights of its folder.",
        reason="KEYSTORE_UNWRITABLE",
    )


def _no_file() -> WrongState:
    return WrongState(
        "A file of the key store is no plain file, or may not be opened: links are not followed.",
        reason="KEYSTORE_MODE",
    )
