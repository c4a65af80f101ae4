"""Bytes sent by earlier runs of the agent, in its database."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping

_SCHEMA = "CREATE TABLE IF NOT EXISTS agent_traffic (kind TEXT PRIMARY KEY, sent_bytes INTEGER NOT NULL)"


class TrafficLedger:
    """Keeps counters over restarts.

    Args:
        connection: The agent's database, in autocommit mode.
        lock: Held while the connection is used.
    """

    def __init__(self, connection: sqlite3.Connection, lock: threading.RLock) -> None:
        self._connection = connection
        self._lock = lock
        with lock:
            connection.execute(_SCHEMA)

    def read(self) -> dict[str, int]:
        """Return the bytes sent, by kind."""
        with self._lock:
            rows = self._connection.execute("SELECT kind, sent_bytes FROM agent_traffic").fetchall()
        return {str(kind): int(size) for kind, size in rows}

    def write(self, totals: Mapping[str, int]) -> None:
        """Replace the counters; a lower one is not taken."""
        with self._lock:
            self._connection.executemany(
                "INSERT INTO agent_traffic (kind, sent_bytes) VALUES (?, ?) ON CONFLICT (kind) "
                "DO UPDATE SET sent_bytes = max(sent_bytes, excluded.sent_bytes)",
                sorted(totals.items()),
            )
