"""The audit chain in SQLite; what is read is believed only after `AuditTrail.verify`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from syftmesh_core.audit_chain import Checkpoint, Entry, FaultReason
from syftmesh_core.enc import canonical_json, parse_json
from syftmesh_core.errors import MeshError

from syftmesh_runner.adapters.database import Database
from syftmesh_runner.domain.audit import broken

_PAGE = 1000
_COLUMNS = "sequence, at_ms, kind, actor, fields, previous_digest"


class SqliteAudit:
    """See `syftmesh_runner.domain.ports.AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self) -> Entry | None:
        """Return the newest entry."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM audit ORDER BY sequence DESC LIMIT 1"  # noqa: S608 - a constant
        )
        return _entry(row) if row else None

    def add(self, entry: Entry) -> None:
        """Store the next entry."""
        self._database.write(
            f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
            (
                entry.sequence,
                entry.at_ms,
                entry.kind,
                entry.actor,
                canonical_json(entry.fields).decode(),
                entry.previous_digest,
            ),
        )

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a signed checkpoint."""
        self._database.write(
            "INSERT INTO audit_checkpoints (sequence, site, digest, at_ms, device_id, signature) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                checkpoint.sequence,
                checkpoint.site,
                checkpoint.digest,
                checkpoint.at_ms,
                checkpoint.device_id,
                checkpoint.signature,
            ),
        )

    def last_checkpoint(self) -> int:
        """Return the sequence of the newest checkpoint, 0 when there is none."""
        row = self._database.row("SELECT MAX(sequence) FROM audit_checkpoints")
        return int(row[0] or 0) if row else 0

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Give the entries in order of sequence.

        Raises:
            IntegrityFailure: AUDIT_BROKEN for one that cannot be read.
        """
        # In pages: a cursor that stays open would keep the write-ahead log from being folded in.
        sql = f"SELECT {_COLUMNS} FROM audit WHERE sequence > ? ORDER BY sequence LIMIT {_PAGE}"  # noqa: S608
        while True:
            try:
                rows = self._database.rows(sql, (after,))
            except sqlite3.Error:  # text of another hand that is not UTF-8
                rows = self._one_by_one(after)
            for row in rows:
                yield _entry(row, after + 1)
                after = row[0]
            if not rows:
                return

    def _one_by_one(self, after: int) -> list[tuple[Any, ...]]:
        """Return the readable rows before the one that cannot be read, or say that it is the next."""
        found: list[tuple[Any, ...]] = []
        try:
            while len(found) < _PAGE:
                at = found[-1][0] if found else after
                sql = f"SELECT {_COLUMNS} FROM audit WHERE sequence > ? ORDER BY sequence LIMIT 1"  # noqa: S608
                row = self._database.row(sql, (at,))
                if row is None:
                    return found
                found.append(row)
        except sqlite3.Error:
            if not found:
                raise broken(after + 1, FaultReason.ENCODING.value) from None
        return found

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Return all checkpoints."""
        rows = self._database.rows(
            "SELECT site, sequence, digest, at_ms, device_id, signature"
            " FROM audit_checkpoints ORDER BY sequence"
        )
        found = []
        for site, sequence, digest, at_ms, device_id, signature in rows:
            if not isinstance(digest, bytes) or not isinstance(signature, bytes):
                raise broken(int(sequence), FaultReason.SIGNATURE.value)
            found.append(Checkpoint(str(site), int(sequence), digest, int(at_ms), str(device_id), signature))
        return found

    def query(self, *, dataset: str, job_id: str, kind: str, after: int, limit: int) -> Sequence[Entry]:
        """Return at most `limit` entries that name all of what is not empty."""
        sql = (
            f"SELECT {_COLUMNS} FROM audit WHERE sequence > ?1 "  # noqa: S608 - a constant
            "AND (?2 = '' OR kind = ?2) "
            "AND (?3 = '' OR json_extract(fields, '$.job_id') = ?3) "
            "AND (?4 = '' OR json_extract(fields, '$.dataset') = ?4 OR EXISTS "
            "(SELECT 1 FROM json_each(fields, '$.datasets') WHERE value = ?4)) "
            "ORDER BY sequence LIMIT ?5"
        )
        try:
            rows = self._database.rows(sql, (after, kind, job_id, dataset, limit))
        except sqlite3.Error:  # fields that are no JSON, text that is not UTF-8: of another hand
            raise broken(after + 1, FaultReason.ENCODING.value) from None
        return [_entry(row) for row in rows]


def _entry(row: tuple[Any, ...], expected: int | None = None) -> Entry:
    sequence, at_ms, kind, actor, fields, previous = row
    try:
        if not isinstance(at_ms, int) or not isinstance(previous, bytes | None):
            raise TypeError
        return Entry(int(sequence), at_ms, str(kind), str(actor), parse_json(str(fields).encode()), previous)
    except (MeshError, TypeError, ValueError):
        raise broken(expected or int(sequence), FaultReason.ENCODING.value) from None
