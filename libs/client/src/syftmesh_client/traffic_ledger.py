"""Bytes sent by a program of a site since the site was made, kept in its database over restarts."""

from __future__ import annotations

import sqlite3
import threading

from syftmesh_client.traffic import Traffic

_SCHEMA = "CREATE TABLE IF NOT EXISTS traffic (kind TEXT PRIMARY KEY, sent_bytes INTEGER NOT NULL)"


class TrafficLedger:
    """Adds what one run sends to what earlier runs have sent.

    Args:
        connection: The program's database, in autocommit mode.
        lock: Held while the connection is used.
        traffic: Counters of this run.
    """

    def __init__(self, connection: sqlite3.Connection, lock: threading.RLock, traffic: Traffic) -> None:
        self._connection = connection
        self._lock = lock
        self._traffic = traffic
        with lock:
            connection.execute(_SCHEMA)
            rows = connection.execute("SELECT kind, sent_bytes FROM traffic").fetchall()
        self._before = {str(kind): int(size) for kind, size in rows}

    def totals(self) -> dict[str, int]:
        """Return the bytes sent by all runs, by kind, sorted."""
        now = {kind.value: size for kind, size in self._traffic.sent.items()}
        kinds = sorted({*self._before, *now})
        return {kind: self._before.get(kind, 0) + now.get(kind, 0) for kind in kinds}

    def save(self) -> None:
        """Write the totals; a lower one is not taken."""
        with self._lock:
            self._connection.executemany(
                "INSERT INTO traffic (kind, sent_bytes) VALUES (?, ?) ON CONFLICT (kind) "
                "DO UPDATE SET sent_bytes = max(sent_bytes, excluded.sent_bytes)",
                list(self.totals().items()),
            )
