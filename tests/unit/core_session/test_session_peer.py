"""Several sessions with one device: both start at once, reset, renewal, old ones."""

from __future__ import annotations

from itertools import pairwise

import pytest
from syftmesh_core.errors import IntegrityFailure, WrongState
from syftmesh_core.session.peer import AT_ONCE_MS, MAX_OLD_SESSIONS, OLD_KEPT_MS
from syftmesh_core.session.prekey import DAY_MS
from syftmesh_core.session.prekey_secret import PrekeyKind


def current_ids(*endpoints) -> set[bytes]:
    return {endpoint.sessions.current.session_id for endpoint in endpoints}


def test_nothing_is_sent_without_a_session(pair):
    with pytest.raises(WrongState) as caught:
        pair[0].send(b"x")
    assert caught.value.reason == "SESSION_MISSING"


def started_at_once(new_pair, winner: int):
    """Two devices that both started, with the lower EKa at `winner`, and their first messages."""
    for attempt in range(64):
        pair = new_pair()
        for _ in range(attempt):  # other keys at each attempt
            pair[0].random(1)
        firsts = [endpoint.start(b"from %d" % side) for side, endpoint in enumerate(pair)]
        keys = [endpoint.sessions.current.ephemeral for endpoint in pair]
        if keys[winner] < keys[1 - winner]:
            return pair, firsts
    raise AssertionError("one side has the lower key 64 times in a row")


@pytest.mark.parametrize("winner", [0, 1])
def test_of_two_sessions_started_at_once_both_go_on_with_the_lower_key(new_pair, winner):
    (alice, bob), (from_alice, from_bob) = started_at_once(new_pair, winner)
    lower = (alice, bob)[winner].sessions.current.session_id
    assert bob.receive(from_alice) == b"from 0"
    assert alice.receive(from_bob) == b"from 1"
    assert current_ids(alice, bob) == {lower}
    assert bob.receive(alice.send(b"1")) == b"1"
    assert alice.receive(bob.send(b"2")) == b"2"
    assert current_ids(alice, bob) == {lower}


@pytest.mark.parametrize("winner", [0, 1])
@pytest.mark.parametrize("late", [0, 1])
def test_sessions_started_at_once_agree_when_one_first_message_is_late(new_pair, winner, late):
    pair, firsts = started_at_once(new_pair, winner)
    slow, fast = pair[late], pair[1 - late]
    lower = pair[winner].sessions.current.session_id
    slow.receive(firsts[1 - late])
    assert fast.receive(slow.send(b"answer")) == b"answer"
    assert fast.receive(firsts[late]) == b"from %d" % late
    assert slow.receive(fast.send(b"again")) == b"again"
    assert current_ids(slow, fast) == {lower}


def test_messages_of_the_losing_session_still_arrive(pair):
    alice, bob = pair
    firsts = [(bob, alice.start(b"a1")), (alice, bob.start(b"b1"))]
    seconds = [(bob, alice.send(b"a2"), b"a2"), (alice, bob.send(b"b2"), b"b2")]
    for receiver, data in firsts:
        receiver.receive(data)
    for receiver, data, text in seconds:
        assert receiver.receive(data) == text


def test_after_a_lost_store_a_reset_brings_both_together(talking):
    alice, bob = talking
    late = bob.send(b"sent before")
    alice.sessions = type(alice.sessions)()
    with pytest.raises(WrongState):
        alice.try_receive(late)
    assert bob.receive(alice.start(b"reset", reset=True)) == b"reset"
    assert len(current_ids(alice, bob)) == 1
    assert alice.receive(bob.send(b"again")) == b"again"


def test_a_reset_wins_over_an_own_session_whatever_its_key(pair):
    alice, bob = pair
    for _ in range(4):
        alice.start(b"lost")
        assert alice.receive(bob.start(b"reset", reset=True)) == b"reset"
        assert len(current_ids(alice, bob)) == 1


def test_a_newer_session_of_the_peer_becomes_current_in_whatever_order_they_come(talking):
    alice, bob = talking
    alice.now_ms += 1
    older = alice.start(b"older")
    alice.now_ms += 1
    newer = alice.start(b"newer")
    assert bob.receive(newer) == b"newer"
    assert bob.receive(older) == b"older"
    assert len(current_ids(alice, bob)) == 1


def test_a_session_of_the_peer_replaces_an_own_one_that_is_long_answered(talking):
    alice, bob = talking
    for endpoint in talking:
        endpoint.now_ms += AT_ONCE_MS
    for _ in range(4):
        bob.sessions = type(bob.sessions)()
        assert alice.receive(bob.start(b"new")) == b"new"
        assert len(current_ids(alice, bob)) == 1
        alice.now_ms += 1
        bob.now_ms += 1


def test_five_old_sessions_still_receive_and_a_sixth_does_not(talking):
    alice, bob = talking
    late = [alice.send(b"0")]
    skipped = alice.send(b"skips one")
    bob.receive(skipped)
    assert len(bob.store.skipped) == 1
    for number in range(1, MAX_OLD_SESSIONS + 2):
        for endpoint in talking:
            endpoint.now_ms += 1
        bob.receive(alice.start(b"start"))
        late.append(alice.send(b"%d" % number))
    assert len(bob.sessions.old) == MAX_OLD_SESSIONS
    assert bob.store.skipped == {}
    with pytest.raises(WrongState):
        bob.try_receive(late[0])
    for number, data in list(enumerate(late))[1:]:
        assert bob.receive(data) == b"%d" % number


def test_old_sessions_are_dropped_after_45_days(talking):
    alice, bob = talking
    late = alice.send(b"late")
    bob.receive(alice.start(b"second"))
    for endpoint in talking:
        endpoint.now_ms += OLD_KEPT_MS
        endpoint.signed = endpoint.new_prekey(PrekeyKind.SIGNED)
    bob.receive(alice.start(b"third"))
    assert [len(endpoint.sessions.old) for endpoint in talking] == [1, 1]
    with pytest.raises(WrongState):
        bob.try_receive(late)


def test_a_first_message_seen_before_is_refused_while_its_session_stands(talking):
    alice, bob = talking
    data = alice.start(b"pay 10", one_time=False, kem=False)
    bob.receive(data)
    with pytest.raises(IntegrityFailure):
        bob.try_receive(data)


def test_new_key_material_is_due_after_a_day_or_a_thousand_messages(talking):
    alice, bob = talking
    state = alice.sessions.current
    assert not state.is_due_for_renewal(alice.now_ms + DAY_MS - 1)
    assert state.is_due_for_renewal(alice.now_ms + DAY_MS)
    while alice.sessions.current.messages < 1000:
        assert not alice.sessions.current.is_due_for_renewal(alice.now_ms)
        bob.receive(alice.send(b"x"))
    assert alice.sessions.current.is_due_for_renewal(alice.now_ms)


def test_sessions_differ_in_all_their_secrets(pair):
    alice, bob = pair
    states = []
    for _ in range(3):
        bob.receive(alice.start(b"x"))
        states.append(alice.sessions.current)
    for one, other in pairwise(states):
        assert one.binding != other.binding
        assert one.ratchet.root != other.ratchet.root
