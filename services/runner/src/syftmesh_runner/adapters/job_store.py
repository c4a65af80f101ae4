"""Jobs, releases and seals in SQLite."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import TypeAdapter
from syftmesh_core.job import JobState

from syftmesh_runner.adapters.database import Database
from syftmesh_runner.domain.job import Job

_JOB = TypeAdapter(Job)
_LAST = "~"
"""Greater than every job id."""


class SqliteJobs:
    """See `syftmesh_runner.domain.ports.JobStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, job_id: str) -> Job | None:
        """Return a job, None when there is none."""
        row = self._database.row("SELECT document FROM jobs WHERE job_id = ?", (job_id,))
        return _JOB.validate_json(row[0]) if row else None

    def save(self, job: Job) -> None:
        """Store a new or changed job; its status then waits to be published."""
        document = _JOB.dump_json(job).decode()
        self._database.write(
            "INSERT INTO jobs (job_id, state, document, revision) VALUES (?, ?, ?, 1) "
            "ON CONFLICT (job_id) DO UPDATE SET "
            "state = excluded.state, document = excluded.document, revision = revision + 1",
            (job.job_id, job.state.value, document),
        )

    def page(self, states: Collection[JobState], limit: int, before: str) -> Sequence[Job]:
        """Return at most `limit` jobs, newest first, of any state when none is given, before a job id."""
        wanted = [state.value for state in states or JobState]
        marks = ",".join("?" * len(wanted))
        rows = self._database.rows(
            f"SELECT document FROM jobs WHERE job_id < ? AND state IN ({marks}) "  # noqa: S608 - only marks
            "ORDER BY job_id DESC LIMIT ?",
            (before or _LAST, *wanted, limit),
        )
        return [_JOB.validate_json(row[0]) for row in rows]

    def in_state(self, *states: JobState) -> Sequence[Job]:
        """Return the jobs in these states, oldest first."""
        marks = ",".join("?" * len(states))
        rows = self._database.rows(
            f"SELECT document FROM jobs WHERE state IN ({marks}) ORDER BY job_id",  # noqa: S608 - only marks
            [state.value for state in states],
        )
        return [_JOB.validate_json(row[0]) for row in rows]

    def unpublished(self) -> Sequence[tuple[Job, int]]:
        """Return the jobs whose newest status is not published, each with the revision of that status."""
        rows = self._database.rows(
            "SELECT document, revision FROM jobs WHERE published < revision ORDER BY job_id LIMIT 100"
        )
        return [(_JOB.validate_json(document), revision) for document, revision in rows]

    def mark_published(self, job_id: str, revision: int) -> None:
        """Remember that this revision of the status is published."""
        self._database.write(
            "UPDATE jobs SET published = ? WHERE job_id = ? AND published < ?",
            (revision, job_id, revision),
        )


class SqliteReleases:
    """See `syftmesh_runner.domain.ports.ReleaseStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, job_id: str, statement: bytes) -> None:
        """Store a granted release."""
        self._database.write("INSERT INTO releases (job_id, statement) VALUES (?, ?)", (job_id, statement))

    def get(self, job_id: str) -> tuple[bytes, bool, int] | None:
        """Return statement, whether it is done, and the bytes that left; None when there is none."""
        row = self._database.row(
            "SELECT statement, done, bytes_out FROM releases WHERE job_id = ?", (job_id,)
        )
        return (bytes(row[0]), bool(row[1]), int(row[2])) if row else None

    def finish(self, job_id: str, bytes_out: int) -> None:
        """Remember that everything has left."""
        with self._database.transaction():
            self._database.row(
                "UPDATE releases SET done = 1, bytes_out = ? WHERE job_id = ?", (bytes_out, job_id)
            )

    def pending(self) -> Sequence[str]:
        """Return the jobs whose release was begun and not done."""
        return [row[0] for row in self._database.rows("SELECT job_id FROM releases WHERE done = 0")]

    def total_bytes(self) -> int:
        """Return the bytes that left by all releases."""
        row = self._database.row("SELECT SUM(bytes_out) FROM releases")
        return int(row[0] or 0) if row else 0


class SqliteSeals:
    """See `syftmesh_runner.domain.ports.SealStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, path: str, versions: Mapping[str, int]) -> None:
        """Remember that `path` is sealed for these principals' device lists."""
        with self._database.transaction():
            self._database.connection.executemany(
                "INSERT INTO seals (path, principal, version) VALUES (?, ?, ?) "
                "ON CONFLICT (path, principal) DO UPDATE SET version = excluded.version",
                [(path, principal, version) for principal, version in versions.items()],
            )

    def forget(self, prefix: str) -> None:
        """Forget the files below `prefix`."""
        self._database.write("DELETE FROM seals WHERE substr(path, 1, ?) = ?", (len(prefix), prefix))

    def principals(self) -> Sequence[str]:
        """Return everybody for whom a file is sealed."""
        return [row[0] for row in self._database.rows("SELECT DISTINCT principal FROM seals")]

    def outdated(self, principal: str, version: int) -> Sequence[str]:
        """Return the files sealed for an older device list of `principal`."""
        rows = self._database.rows(
            "SELECT path FROM seals WHERE principal = ? AND version < ? ORDER BY path", (principal, version)
        )
        return [row[0] for row in rows]
