"""A profile's tokens on disk: 0600, replaced atomically, one writer at a time across processes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from syftmesh_core.clock import Random, system_random
from syftmesh_core.errors import NotFound, Unavailable

from syftmesh_client.keystore_folder import PrivateFolder

FILE: Final = "tokens.json"
LOCK: Final = "tokens.lock"
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """The tokens of one device.

    Attributes:
        principal: Whom they stand for.
        device_id: Which device.
        access_token: Shown at each call.
        access_expires_ms: Its end, Unix milliseconds.
        refresh_token: Exchanged once for the next pair.
        refresh_expires_ms: Its end, Unix milliseconds.
    """

    principal: str
    device_id: str
    access_token: str = field(repr=False)
    access_expires_ms: int
    refresh_token: str = field(repr=False)
    refresh_expires_ms: int


class TokenFile:
    """The file ``tokens.json`` of a profile's or site's folder.

    Args:
        folder: The folder; made with mode 0700 when it is missing.
        random: Source of temporary names.
    """

    def __init__(self, folder: Path, random: Random = system_random) -> None:
        self._path = folder
        self._folder = PrivateFolder(folder, random)

    async def read(self) -> StoredTokens | None:
        """Return the tokens, None when there are none that can be used: then one logs in again.

        Raises:
            WrongState: Others may read folder or file (KEYSTORE_MODE); the hint mends it.
        """
        return await asyncio.to_thread(self._read)

    async def write(self, tokens: StoredTokens) -> None:
        """Replace the tokens, durably.

        Raises:
            WrongState: KEYSTORE_MODE.
            Unavailable: KEYSTORE_UNWRITABLE.
        """
        await asyncio.to_thread(self._write, tokens)

    async def remove(self) -> None:
        """Forget the tokens."""
        await asyncio.to_thread((self._path / FILE).unlink, missing_ok=True)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the lock between all processes that use this file; waits for it.

        Raises:
            Unavailable: The lock file cannot be made (KEYSTORE_UNWRITABLE).
        """
        self._folder.create()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path / LOCK, flags, 0o600)
        except OSError as error:
            raise Unavailable(
                "The tokens cannot be locked: check the disk's free space and the rights of the folder.",
                reason="KEYSTORE_UNWRITABLE",
            ) from error
        try:
            # Asked for again and again rather than waited for in a thread, which a cancelled task would leave
            # behind holding it.
            while not _try_lock(descriptor):  # noqa: ASYNC110 - no event crosses processes
                await asyncio.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> StoredTokens | None:
        try:
            self._folder.check()
            found = json.loads(self._folder.read(FILE))
            tokens = StoredTokens(**found)
        except NotFound:
            return None
        except (ValueError, TypeError):  # damaged: tokens can always be had anew
            return None
        texts = (tokens.principal, tokens.device_id, tokens.access_token, tokens.refresh_token)
        times = (tokens.access_expires_ms, tokens.refresh_expires_ms)
        sound = all(isinstance(text, str) for text in texts) and all(type(at) is int for at in times)
        return tokens if sound else None

    def _write(self, tokens: StoredTokens) -> None:
        self._folder.create()
        self._folder.replace(FILE, json.dumps(asdict(tokens)).encode())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
