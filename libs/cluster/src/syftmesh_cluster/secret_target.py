"""Where secrets are kept: the port, and a folder as one of its implementations."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from syftmesh_core.errors import Unavailable, WrongState
from syftmesh_kit.private_file import replace_private

_LOCK_FILE: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Stored:
    """A secret as it is now.

    Attributes:
        data: Values by key.
        version: What `SecretTarget.write` compares.
    """

    data: Mapping[str, bytes] = field(repr=False)
    version: str = ""


class SecretTarget(Protocol):
    """Named secrets, each a few keys; changed by compare-and-set."""

    async def read(self, name: str) -> Stored:
        """Return the secret `name`.

        Raises:
            NotFound: There is no place for it (SECRET_MISSING).
            PermissionDenied: We may not (CLUSTER_RIGHTS_MISSING).
            Unavailable: The place does not answer (CLUSTER_UNREACHABLE).
        """
        ...

    async def write(self, name: str, changes: Mapping[str, bytes], version: str) -> None:
        """Set the keys in `changes`, in their order, and leave the others, if the version is still `version`.

        Raises:
            Conflict: Somebody else wrote it (SECRET_CHANGED): read again, then decide.
            NotFound, PermissionDenied, Unavailable: As `read`.
        """
        ...


class FolderTarget:
    """Files ``<folder>/<secret>/<key>``, 0600 in folders of 0700; use it inside `locked`.

    Args:
        folder: Where to; made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out for the block; they wait.

        Raises:
            Unavailable: The folder cannot be written (FOLDER_UNUSABLE).
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    async def read(self, name: str) -> Stored:
        """Return the secret, empty when there is none."""
        folder = self._folder / name
        try:
            found = [path for path in folder.iterdir() if not path.name.startswith(".")]
            return Stored({path.name: _read(path) for path in found})
        except FileNotFoundError:
            return Stored({})
        except OSError as error:
            raise _unusable(error) from error

    async def write(self, name: str, changes: Mapping[str, bytes], version: str) -> None:
        """Write the files, each whole or not at all; see `SecretTarget.write`."""
        del version  # the lock keeps others out
        folder = self._folder / name
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
            for key, value in changes.items():
                replace_private(folder / key, value)
        except OSError as error:
            raise _unusable(error) from error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise WrongState(
                f"The file {path.parent.name}/{path.name} is open to others or not ours.",
                reason="FILE_NOT_PRIVATE",
                metadata={"file": f"{path.parent.name}/{path.name}"},
                hint=f"chmod 600 {path.parent.name}/{path.name}",
            )
        return file.read()


def _unusable(error: OSError) -> Unavailable:
    return Unavailable(
        f"The folder of the secrets cannot be used ({error.strerror}).",
        reason="FOLDER_UNUSABLE",
        hint="Check that it is a folder that this user may write.",
    )
