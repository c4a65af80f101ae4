"""The inbox: once each, effects with the reply or not at all, replies until they are accepted."""

from __future__ import annotations

import sqlite3
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.inbox import KEPT_MS, SqliteInbox, open_database
from syftmesh_client.incoming import IncomingCall, OutReply
from syftmesh_core.errors import WrongState

DONE = pb.CALL_STATE_COMPLETED


def incoming(call_id: str, *, sender: str = "alice@x.example", expires_ms: int = 1000) -> IncomingCall:
    return IncomingCall(
        call_id=call_id,
        sender=sender,
        sender_root=b"r" * 32,
        sender_device="dev",
        site="bob@y.example",
        app="chat",
        endpoint="say",
        request=RequestContent(method="POST", body=call_id.encode()),
        expires_ms=expires_ms,
    )


def memory() -> SqliteInbox:
    return SqliteInbox(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))


def reply(call_id: str, body: bytes = b"sealed") -> OutReply:
    return OutReply(call_id, DONE, body)


def test_call_is_accepted_once_and_comes_back_whole():
    inbox = memory()
    call = incoming("1")
    assert inbox.accept(call)
    assert not inbox.accept(call)
    [found] = inbox.unfinished()
    assert found.call == call
    assert not found.was_running
    inbox.start("1")
    assert inbox.unfinished()[0].was_running


def test_effects_commit_with_the_reply():
    inbox = memory()
    inbox.accept(incoming("1"))

    def effect(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")

    assert inbox.finish("1", lambda: reply("1"), [effect]) == reply("1")
    with inbox.lock, inbox.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert inbox.unsettled() == [reply("1")]


@pytest.mark.parametrize("where", ["effect", "end"])
def test_failing_commit_leaves_nothing_behind(where):
    inbox = memory()
    inbox.accept(incoming("1"))
    with inbox.transaction() as connection:
        connection.execute("CREATE TABLE t (x)")

    def effect(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        if where == "effect":
            raise RuntimeError("broken")

    def end() -> OutReply:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        inbox.finish("1", end if where == "end" else lambda: reply("1"), [effect])
    with inbox.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert inbox.unsettled() == []
    assert len(inbox.unfinished()) == 1


def test_second_reply_is_refused_before_any_effect_runs():
    inbox = memory()
    inbox.accept(incoming("1"))
    inbox.finish("1", lambda: reply("1"))
    ran: list[int] = []
    with pytest.raises(WrongState) as caught:
        inbox.finish("1", lambda: reply("1", b"other"), [lambda _: ran.append(1)])
    assert caught.value.reason == "CALL_FINAL"
    assert ran == []
    with pytest.raises(WrongState):
        inbox.finish("unknown", lambda: reply("unknown"))
    assert inbox.unsettled() == [reply("1")]


def test_settled_reply_is_kept_and_not_sent_again_and_the_request_is_forgotten():
    inbox = memory()
    inbox.accept(incoming("1"))
    inbox.settle("1")  # accepted before there is a reply: nothing to settle
    inbox.finish("1", lambda: reply("1"))
    assert inbox.unsettled() == [reply("1")]
    inbox.settle("1")
    assert inbox.unsettled() == []
    known = inbox.find("1")
    assert known is not None
    assert known.reply == reply("1")
    with inbox.transaction() as connection:
        assert connection.execute("SELECT request FROM inbox_call").fetchone() == (b"",)


def test_refused_call_has_its_end_at_once_and_no_request():
    inbox = memory()
    end = OutReply("1", pb.CALL_STATE_FAILED, failure_reason="SEAL_INVALID")
    assert inbox.refuse(incoming("1"), end)
    assert not inbox.refuse(incoming("1"), end)
    assert not inbox.accept(incoming("1"))
    assert inbox.unfinished() == []
    assert inbox.unsettled() == [end]


def test_ids_are_kept_for_a_day_after_expiry():
    inbox = memory()
    inbox.accept(incoming("1", expires_ms=1000))
    assert inbox.purge(1000 + KEPT_MS) == 0
    assert not inbox.accept(incoming("1"))
    assert inbox.purge(1001 + KEPT_MS) == 1
    assert inbox.find("1") is None


def test_epoch_never_goes_back():
    inbox = memory()
    assert inbox.highest_epoch() == 0
    for epoch, highest in ((5, 5), (3, 5), (7, 7)):
        inbox.note_epoch(epoch)
        assert inbox.highest_epoch() == highest


def test_database_is_private_synced_and_outlives_its_process(tmp_path):
    path = tmp_path / "site" / "inbox.sqlite"
    connection = open_database(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    SqliteInbox(connection).accept(incoming("1"))
    connection.close()
    again = open_database(path)
    assert [found.call.call_id for found in SqliteInbox(again).unfinished()] == ["1"]
    again.close()


def test_connection_is_shared_with_its_owner_by_the_lock():
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    lock = threading.RLock()
    inbox = SqliteInbox(connection, lock=lock)
    connection.execute("CREATE TABLE job (id TEXT)")
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for step in range(30):
                call_id = f"{number}/{step}"
                inbox.accept(incoming(call_id))
                inbox.finish(
                    call_id,
                    lambda call_id=call_id: reply(call_id),
                    [lambda c, call_id=call_id: c.execute("INSERT INTO job VALUES (?)", (call_id,))],
                )
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert connection.execute("SELECT count(DISTINCT id) FROM job").fetchone() == (120,)
    connection.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "start", "finish", "break", "settle", "refuse"]), st.integers(0, 3)),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_history_has_one_end_per_call_and_one_effect_per_end(steps):
    """A model of dictionaries beside the database; a step that fails changes neither."""
    inbox = memory()
    with inbox.transaction() as connection:
        connection.execute("CREATE TABLE done (id TEXT)")
    state: dict[str, str] = {}
    effects: list[str] = []
    settled: set[str] = set()
    for step, number in steps:
        call_id = str(number)
        effect = [lambda c, i=call_id: c.execute("INSERT INTO done VALUES (?)", (i,))]
        if step == "accept":
            assert inbox.accept(incoming(call_id)) == (call_id not in state)
            state.setdefault(call_id, "accepted")
        elif step == "refuse":
            assert inbox.refuse(incoming(call_id), reply(call_id)) == (call_id not in state)
            state.setdefault(call_id, "done")
        elif step == "start":
            inbox.start(call_id)
            if state.get(call_id) == "accepted":
                state[call_id] = "running"
        elif step == "finish" and state.get(call_id) in {"accepted", "running"}:
            inbox.finish(call_id, lambda i=call_id: reply(i), effect)
            state[call_id] = "done"
            effects.append(call_id)
        elif step in {"finish", "break"}:
            with pytest.raises((WrongState, ZeroDivisionError)):
                inbox.finish(call_id, lambda: 1 / 0, effect)  # type: ignore[arg-type, return-value]
        elif step == "settle":
            inbox.settle(call_id)
            if state.get(call_id) == "done":
                settled.add(call_id)
    open_calls = {found.call.call_id: found.was_running for found in inbox.unfinished()}
    assert open_calls == {i: s == "running" for i, s in state.items() if s != "done"}
    assert {r.call_id for r in inbox.unsettled()} == {i for i, s in state.items() if s == "done"} - settled
    with inbox.transaction() as connection:
        rows = connection.execute("SELECT id FROM done ORDER BY rowid").fetchall()
    assert [row[0] for row in rows] == effects
