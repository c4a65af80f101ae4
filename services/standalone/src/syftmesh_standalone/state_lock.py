"""One mesh on one state: an advisory lock that ends with the process, and says who holds it."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from syftmesh_core.errors import WrongState

LOCK_FILE: Final = "lock"
_TRIES: Final = 6
_PAUSE_S: Final = 0.05


class StateLock:
    """The lock of a hub's folder, held. `release` it, or end the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, hub: Path) -> Self:
        """Take the lock of the hub's folder and write our process id into it.

        Raises:
            WrongState: Another process has it (STATE_LOCKED, metadata ``pid``).
            OSError: The file cannot be opened.
        """
        descriptor = os.open(hub / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _lock(descriptor, fcntl.LOCK_EX):
            pid = _pid(descriptor)
            os.close(descriptor)
            raise WrongState(
                f"A mesh runs on this state already, as process {pid or 'unknown'}.",
                reason="STATE_LOCKED",
                metadata={"pid": str(pid)},
                hint="syftmesh status shows it, syftmesh down ends it; --state DIR runs another beside it.",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(hub: Path) -> int | None:
    """Return the process id of the mesh that holds the lock, None when none does."""
    try:
        descriptor = os.open(hub / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        for _ in range(_TRIES):
            if _try(descriptor, fcntl.LOCK_SH):
                return None
            if pid := _pid(descriptor):
                return pid
            time.sleep(_PAUSE_S)  # it took the lock this moment
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    # Somebody who only asks who holds the lock has it for an instant.
    for _ in range(_TRIES):
        if _try(descriptor, kind):
            return True
        time.sleep(_PAUSE_S)
    return False


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else 0
