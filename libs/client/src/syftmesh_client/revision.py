"""The newest revision that this profile has seen of each path, so that nobody rolls one back unseen."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from syftmesh_core.errors import IntegrityFailure

MEMORY_FILE: Final = "revisions.sqlite"


class RevisionMemory:
    """The highest revision seen per path, with its record's digest; kept where a folder is given.

    Calls block for less than a millisecond. Several processes of one profile may share the file.

    Args:
        folder: The profile's private folder (of mode 0700, as the key store has made it), None for this
            process only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        target = ":memory:"
        if folder is not None:
            path = folder / MEMORY_FILE
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            target = str(path)
        self._db = sqlite3.connect(target, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS revision"
            " (path TEXT PRIMARY KEY, revision INTEGER NOT NULL, digest BLOB NOT NULL, live INTEGER NOT NULL)"
            " WITHOUT ROWID"
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def note(self, path: str, revision: int, digest: bytes, *, live: bool) -> None:
        """Remember a verified record, after checking it against what is known.

        Raises:
            IntegrityFailure: FILE_ROLLBACK when a newer revision was seen before; FILE_FORKED when this
                revision was seen with another content.
        """
        row = self._db.execute("SELECT revision, digest FROM revision WHERE path = ?", (path,)).fetchone()
        if row is not None and revision < row[0]:
            raise IntegrityFailure(
                f"The hub gives revision {revision} of {path}, and {row[0]} was seen before: it is not used.",
                reason="FILE_ROLLBACK",
                metadata={"path": path, "revision": str(revision), "seen": str(row[0])},
            )
        if row is not None and revision == row[0] and digest != row[1]:
            raise IntegrityFailure(
                f"Revision {revision} of {path} was seen with another content: two versions are about.",
                reason="FILE_FORKED",
                metadata={"path": path, "revision": str(revision)},
            )
        self._db.execute(
            "INSERT INTO revision VALUES (?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET"
            " revision = excluded.revision, digest = excluded.digest, live = excluded.live"
            " WHERE excluded.revision >= revision.revision",
            (path, revision, digest, live),
        )

    def was_live(self, path: str) -> bool:
        """Return whether the newest record seen of `path` was a file."""
        row = self._db.execute("SELECT live FROM revision WHERE path = ?", (path,)).fetchone()
        return row is not None and bool(row[0])
