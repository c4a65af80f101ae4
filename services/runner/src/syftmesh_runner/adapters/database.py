"""The site's one SQLite database: inbox, jobs, datasets, releases, proposals and audit share its transactions.

Write-ahead log and ``synchronous=FULL``: what was acknowledged is on disk (https://sqlite.org/pragma.html).
The schema is brought up to date by `user_version`, one step at a time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import Unavailable

_MIGRATIONS: Final = (
    """
    CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        document TEXT NOT NULL,
        revision INTEGER NOT NULL,
        published INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX jobs_by_state ON jobs (state, job_id);
    CREATE INDEX jobs_unpublished ON jobs (job_id) WHERE published < revision;
    CREATE TABLE datasets (
        name TEXT PRIMARY KEY,
        document TEXT NOT NULL,
        published INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE releases (
        job_id TEXT PRIMARY KEY REFERENCES jobs (job_id),
        statement BLOB NOT NULL,
        done INTEGER NOT NULL DEFAULT 0,
        bytes_out INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE seals (
        path TEXT NOT NULL,
        principal TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (path, principal)
    ) WITHOUT ROWID;
    CREATE INDEX seals_by_principal ON seals (principal, version);
    CREATE TABLE audit (
        sequence INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        actor TEXT NOT NULL,
        fields TEXT NOT NULL,
        previous_digest BLOB
    );
    CREATE TABLE audit_checkpoints (
        sequence INTEGER NOT NULL,
        site TEXT NOT NULL,
        digest BLOB NOT NULL,
        at_ms INTEGER NOT NULL,
        device_id TEXT NOT NULL,
        signature BLOB NOT NULL
    );
    """,
    """
    CREATE TABLE proposals (
        run_id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        document TEXT NOT NULL,
        run_key BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX proposals_by_state ON proposals (state, created_ms, run_id);
    CREATE INDEX proposals_by_age ON proposals (created_ms, run_id);
    CREATE TABLE hub_reports (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL REFERENCES proposals (run_id),
        part TEXT NOT NULL,
        end_reason TEXT NOT NULL
    );
    """,
)


class Database:
    """An open database; made by `open`.

    Threads take turns by `lock`, which the inbox shares; nothing waits for anything else inside a transaction.

    Attributes:
        connection: In autocommit mode.
        lock: Held while the connection is used.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open or make the database at `path`, mode 0600, in its newest form.

        Raises:
            Unavailable: DATABASE_UNUSABLE: it cannot be opened, or a newer program wrote it.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(
                "The site's database cannot be opened; look at the state folder's disk and its owner.",
                reason="DATABASE_UNUSABLE",
            ) from error
        database = cls(connection)
        database._migrate()
        return database

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin, or join the transaction that is open: then its owner commits."""
        with self.lock:
            if self.connection.in_transaction:  # ours: no other thread leaves one open without the lock
                yield
                return
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self.lock:
            return self.connection.execute(sql, tuple(parameters)).fetchall()

    def row(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, None when there is none."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def write(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Execute a statement, in the transaction that is open or in one of its own."""
        with self.transaction():
            self.connection.execute(sql, tuple(parameters))

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def _migrate(self) -> None:
        version = int(self.connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(_MIGRATIONS):
            raise Unavailable(
                "The site's database was written by a newer version of SyftMesh: install that one.",
                reason="DATABASE_UNUSABLE",
            )
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            with self.transaction():
                for statement in filter(str.strip, script.split(";")):
                    self.connection.execute(statement)
                self.connection.execute(f"PRAGMA user_version = {number}")
