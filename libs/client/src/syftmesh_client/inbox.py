"""The inbox of a site in SQLite: every call once, effects and reply in one commit, an outbox of replies."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_core.errors import WrongState

from syftmesh_client.incoming import Effect, IncomingCall, OutReply

KEPT_MS: Final = 86_400_000
"""Milliseconds that an id outlives its call's expiry, so that a late repetition is still known."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS inbox_call (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  call_id TEXT NOT NULL UNIQUE,
  sender TEXT NOT NULL,
  sender_root BLOB NOT NULL,
  sender_device TEXT NOT NULL,
  site TEXT NOT NULL,
  app TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  request BLOB NOT NULL,
  expires_ms INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('accepted', 'running', 'done')),
  reply_state INTEGER,
  reply_body BLOB,
  failure_reason TEXT,
  settled INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS inbox_call_open ON inbox_call (position) WHERE settled = 0;
CREATE INDEX IF NOT EXISTS inbox_call_expiry ON inbox_call (expires_ms);
CREATE TABLE IF NOT EXISTS inbox_fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""

End = Callable[[], OutReply]
"""Gives the reply of a call, inside the transaction that commits it."""

_CALL: Final = "call_id, sender, sender_root, sender_device, site, app, endpoint, request, expires_ms"
_REPLY: Final = "call_id, reply_state, reply_body, failure_reason"


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """What is known of a call: its sender, and its reply when it has one."""

    sender: str
    reply: OutReply | None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that has no reply yet, and whether a handler had begun with it."""

    call: IncomingCall
    was_running: bool


class Inbox(Protocol):
    """Where a site keeps its calls. Methods block on the disk; what they return from is durable."""

    def find(self, call_id: str) -> InboxEntry | None:
        """Return what is known of a call."""
        ...

    def accept(self, call: IncomingCall) -> bool:
        """Store a call; False when its id is known."""
        ...

    def refuse(self, call: IncomingCall, reply: OutReply) -> bool:
        """Store the end of a call that no handler will see; False when its id is known."""
        ...

    def start(self, call_id: str) -> None:
        """Note that a handler begins."""
        ...

    def finish(self, call_id: str, end: End, effects: Sequence[Effect] = ()) -> OutReply:
        """Run effects, then `end`, and commit all of it with the reply that `end` gives.

        Raises WrongState (CALL_FINAL), and what `effects` and `end` raise.
        """
        ...

    def unfinished(self) -> list[OpenCall]:
        """Return the calls without reply, in the order in which they came."""
        ...

    def unsettled(self) -> list[OutReply]:
        """Return the replies that the router has not accepted, oldest first."""
        ...

    def settle(self, call_id: str) -> None:
        """Note that the router has accepted the reply."""
        ...

    def purge(self, now_ms: int) -> int:
        """Forget calls a day after their expiry; return how many."""
        ...

    def highest_epoch(self) -> int:
        """Return the highest lease epoch seen."""
        ...

    def note_epoch(self, epoch: int) -> None:
        """Remember a lease epoch; a lower one changes nothing."""
        ...


def open_database(path: Path) -> sqlite3.Connection:
    """Return a connection for `SqliteInbox`: WAL, every commit synced, 0600, usable from several threads."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


class SqliteInbox:
    """An `Inbox` in tables of its own (``inbox_*``) of a database that others may share.

    Args:
        connection: In autocommit mode (``isolation_level=None``) and usable from several threads, as
            `open_database` makes it.
        lock: Held during each transaction; whoever else uses the connection holds it too.
    """

    def __init__(self, connection: sqlite3.Connection, *, lock: threading.RLock | None = None) -> None:
        self._connection = connection
        self._lock = lock or threading.RLock()
        with self._lock:
            connection.executescript(_SCHEMA)

    @property
    def lock(self) -> threading.RLock:
        """The lock to hold while using the connection."""
        return self._lock

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction, committed at the end, undone by an exception."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def find(self, call_id: str) -> InboxEntry | None:
        """Return what is known of a call."""
        sql = f"SELECT sender, state, {_REPLY} FROM inbox_call WHERE call_id = ?"  # noqa: S608 - constants
        with self._lock:
            row = self._connection.execute(sql, (call_id,)).fetchone()
        if row is None:
            return None
        return InboxEntry(row[0], _reply(row[2:]) if row[1] == "done" else None)

    def accept(self, call: IncomingCall) -> bool:
        """Store a call; False when its id is known."""
        with self.transaction() as connection:
            return self._insert(connection, call, "accepted", call.request.SerializeToString())

    def refuse(self, call: IncomingCall, reply: OutReply) -> bool:
        """Store the end of a call that no handler will see; False when its id is known."""
        with self.transaction() as connection:
            fresh = self._insert(connection, call, "accepted", b"")
            if fresh:
                self._end(connection, reply)
            return fresh

    def start(self, call_id: str) -> None:
        """Note that a handler begins."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE inbox_call SET state = 'running' WHERE call_id = ? AND state = 'accepted'", (call_id,)
            )

    def finish(self, call_id: str, end: End, effects: Sequence[Effect] = ()) -> OutReply:
        """Run effects, then `end`, and commit all of it with the reply that `end` gives.

        Raises:
            WrongState: The call has a reply already, or is not known (CALL_FINAL); nothing is written.
        """
        with self.transaction() as connection:
            open_call = "SELECT 1 FROM inbox_call WHERE call_id = ? AND state <> 'done'"
            if connection.execute(open_call, (call_id,)).fetchone() is None:
                raise _final()
            for effect in effects:
                effect(connection)
            reply = end()
            self._end(connection, reply)
            return reply

    def unfinished(self) -> list[OpenCall]:
        """Return the calls without reply, in the order in which they came."""
        sql = f"SELECT {_CALL}, state FROM inbox_call WHERE state <> 'done' ORDER BY position"  # noqa: S608
        with self._lock:
            rows = self._connection.execute(sql).fetchall()
        return [OpenCall(_call(row), row[-1] == "running") for row in rows]

    def unsettled(self) -> list[OutReply]:
        """Return the replies that the router has not accepted, oldest first."""
        sql = (
            f"SELECT {_REPLY} FROM inbox_call WHERE settled = 0 AND state = 'done' "  # noqa: S608
            "ORDER BY position"
        )
        with self._lock:
            return [_reply(row) for row in self._connection.execute(sql).fetchall()]

    def settle(self, call_id: str) -> None:
        """Note that the router has accepted the reply; what was asked is forgotten then, the id is not."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE inbox_call SET settled = 1, request = x'' WHERE call_id = ? AND state = 'done'",
                (call_id,),
            )

    def purge(self, now_ms: int) -> int:
        """Forget calls a day after their expiry; return how many."""
        with self.transaction() as connection:
            done = connection.execute("DELETE FROM inbox_call WHERE expires_ms < ?", (now_ms - KEPT_MS,))
            return done.rowcount

    def highest_epoch(self) -> int:
        """Return the highest lease epoch seen."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM inbox_fact WHERE name = 'epoch'").fetchone()
        return int(row[0]) if row else 0

    def note_epoch(self, epoch: int) -> None:
        """Remember a lease epoch; a lower one changes nothing."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO inbox_fact (name, value) VALUES ('epoch', ?) "
                "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
                (epoch,),
            )

    @staticmethod
    def _insert(connection: sqlite3.Connection, call: IncomingCall, state: str, request: bytes) -> bool:
        marks = ", ".join("?" * 10)
        done = connection.execute(
            f"INSERT OR IGNORE INTO inbox_call ({_CALL}, state) VALUES ({marks})",  # noqa: S608 - constants
            (
                call.call_id,
                call.sender,
                call.sender_root,
                call.sender_device,
                call.site,
                call.app,
                call.endpoint,
                request,
                call.expires_ms,
                state,
            ),
        )
        return done.rowcount == 1

    @staticmethod
    def _end(connection: sqlite3.Connection, reply: OutReply) -> None:
        done = connection.execute(
            "UPDATE inbox_call SET state = 'done', reply_state = ?, reply_body = ?, failure_reason = ? "
            "WHERE call_id = ? AND state <> 'done'",
            (int(reply.state), reply.body, reply.failure_reason, reply.call_id),
        )
        if done.rowcount != 1:
            raise _final()


def _final() -> WrongState:
    return WrongState("The call has its reply already.", reason="CALL_FINAL")


def _call(row: Sequence[object]) -> IncomingCall:
    call_id, sender, root, device, site, app, endpoint, request, expires_ms = row[:9]
    return IncomingCall(
        call_id=str(call_id),
        sender=str(sender),
        sender_root=cast("bytes", root),
        sender_device=str(device),
        site=str(site),
        app=str(app),
        endpoint=str(endpoint),
        request=RequestContent.FromString(cast("bytes", request)),
        expires_ms=cast("int", expires_ms),
    )


def _reply(row: Sequence[object]) -> OutReply:
    call_id, state, body, reason = row
    return OutReply(
        str(call_id), cast("pb.CallState.ValueType", state), cast("bytes", body) or b"", str(reason or "")
    )
