"""Messages on a session: order, loss, replay, tampering, limits."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput, MeshError, WrongState
from syftmesh_core.session import peer
from syftmesh_core.session.message import MAX_PLAINTEXT_BYTES, SALT_BYTES, Message
from syftmesh_core.session.ratchet import MAX_SKIP
from syftmesh_core.session.ratchet_primitive import ChainKdf, RootKdf
from syftmesh_core.session.state import SessionState

SMALL_ORDER = (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")


@pytest.fixture
def kdf_steps(monkeypatch) -> list[str]:
    """Names of the KDFs called, one per step."""
    steps: list[str] = []
    for kdf in (RootKdf, ChainKdf):
        original = kdf.derive

        async def counted(key, data, length, original=original, name=kdf.__name__):
            steps.append(name)
            return await original(key, data, length)

        monkeypatch.setattr(kdf, "derive", staticmethod(counted))
    return steps


def refused(endpoint, data: bytes, **kwargs) -> None:
    before, skipped = endpoint.sessions, dict(endpoint.store.skipped)
    with pytest.raises(IntegrityFailure) as caught:
        endpoint.try_receive(data, **kwargs)
    assert caught.value.reason == "SESSION_MESSAGE_INVALID"
    assert caught.value.__cause__ is None
    assert (endpoint.sessions, endpoint.store.skipped) == (before, skipped)


def changed(data: bytes, **fields) -> bytes:
    return replace(Message.from_bytes(data), **fields).to_bytes()


def test_messages_arrive_in_both_directions_over_many_turns(talking):
    alice, bob = talking
    for turn in range(20):
        for sender in talking:
            for number in range(turn % 3 + 1):
                text = f"{turn}/{number}".encode()
                assert sender.other.receive(sender.send(text)) == text
    assert alice.sessions.current.session_id == bob.sessions.current.session_id


def test_messages_arrive_in_any_order_across_ratchet_steps(talking):
    alice, bob = talking
    early = [(text, alice.send(text)) for text in (b"1", b"2", b"3")]
    alice.receive(bob.send(b"turn"))
    late = [(text, alice.send(text)) for text in (b"4", b"5")]
    for text, data in [*reversed(late), *reversed(early)]:
        assert bob.receive(data) == text
    assert bob.store.skipped == {}


def test_a_message_read_before_is_refused(talking):
    alice, bob = talking
    first, second = alice.send(b"1"), alice.send(b"2")
    bob.receive(second)
    bob.receive(first)
    refused(bob, first)
    refused(bob, second)


def test_every_tampered_byte_is_refused_and_the_message_still_opens(talking):
    alice, bob = talking
    data = alice.send(b"pay 10")
    for at in range(len(data)):
        tampered = bytearray(data)
        tampered[at] ^= 1 + at % 255
        with pytest.raises(MeshError) as caught:
            bob.try_receive(bytes(tampered))
        assert caught.value.reason in ("SESSION_MESSAGE_INVALID", "SESSION_MISSING")
    assert bob.receive(data) == b"pay 10"


def test_every_tampered_byte_of_a_first_message_is_refused(pair):
    alice, bob = pair
    data = alice.start(b"hello")
    stride = 7  # all but the KEM ciphertext, byte by byte; of that each seventh
    for at in range(len(data)):
        if 200 < at < 1700 and at % stride:
            continue
        tampered = bytearray(data)
        tampered[at] ^= 0x80
        refused(bob, bytes(tampered))
    assert bob.receive(data) == b"hello"


def test_a_first_header_that_is_repeated_is_checked_on_a_standing_session(pair):
    alice, bob = pair
    bob.receive(alice.start(b"hello"))
    again = alice.send(b"no answer yet")
    first = Message.from_bytes(again).first
    assert first is not None
    for at in range(0, len(first), 13):
        tampered = bytearray(first)
        tampered[at] ^= 1
        refused(bob, changed(again, first=bytes(tampered)))
    assert bob.receive(again) == b"no answer yet"
    assert Message.from_bytes(bob.send(b"answer")).first is None


def test_initiator_stops_to_send_the_first_header_once_it_is_answered(talking):
    alice, _ = talking
    assert Message.from_bytes(alice.send(b"x")).first is None


@settings(max_examples=40, deadline=None)
@given(text=st.binary(max_size=200), other=st.binary(max_size=200), envelope=st.binary(max_size=100))
def test_any_plaintext_arrives_under_its_envelope_header_only(new_pair, text, other, envelope):
    alice, bob = new_pair()
    bob.receive(alice.start(b"hello"))
    data = peer.send(alice.sessions, text, envelope=envelope, random=alice.random).message
    assert bob.try_receive(data, envelope).received.plaintext == text
    if other != envelope:
        refused(bob, data, envelope=other)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(new_pair, data):
    _, bob = new_pair()
    refused(bob, data)


def test_truncated_and_longer_messages_are_refused(talking):
    alice, bob = talking
    data = alice.send(b"x")
    for size in range(len(data)):
        refused(bob, data[:size])
    refused(bob, data + b"\0")
    refused(bob, changed(data, ciphertext=bytes(SALT_BYTES + 15)))


def test_another_envelope_header_is_refused(talking):
    alice, bob = talking
    data = alice.send(b"x")
    refused(bob, data, envelope=b"envelope headez")
    refused(bob, data, envelope=b"")
    assert bob.receive(data) == b"x"


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_ratchet_key_of_small_order_is_refused(talking, key):
    alice, bob = talking
    refused(bob, changed(alice.send(b"x"), ratchet_key=key))


@pytest.mark.parametrize("claimed", [MAX_SKIP + 1, 1_000_000, (1 << 64) - 2])
def test_a_million_skipped_messages_are_refused_before_any_key_is_derived(talking, kdf_steps, claimed):
    alice, bob = talking
    bob.receive(alice.send(b"0"))
    data = alice.send(b"1")
    alice.receive(bob.send(b"turn"))
    after_turn = alice.send(b"2")
    kdf_steps.clear()
    refused(bob, changed(data, number=claimed + 1))
    refused(bob, changed(after_turn, number=claimed))
    refused(bob, changed(after_turn, previous=claimed + 1))
    refused(bob, changed(after_turn, previous=0))
    assert kdf_steps == []


def test_a_first_message_that_claims_a_million_skipped_is_refused_without_a_chain_step(pair, kdf_steps):
    alice, bob = pair
    data = alice.start(b"hello")
    kdf_steps.clear()
    refused(bob, changed(data, number=1_000_000))
    refused(bob, changed(data, previous=1))
    assert kdf_steps == []


def test_a_thousand_skipped_messages_are_bridged_and_one_more_is_not(talking):
    alice, bob = talking
    sent = [alice.send(b"%d" % number) for number in range(MAX_SKIP + 2)]
    refused(bob, sent[-1])
    assert bob.receive(sent[MAX_SKIP]) == b"%d" % MAX_SKIP
    assert len(bob.store.skipped) == MAX_SKIP
    assert bob.receive(sent[500]) == b"500"
    assert bob.receive(sent[-1]) == b"%d" % (MAX_SKIP + 1)


def test_the_library_never_warns_of_skips_that_were_not_checked(talking):
    alice, bob = talking
    for _ in range(MAX_SKIP + 1):
        alice.send(b"lost")
    alice.receive(bob.send(b"turn"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(bob, alice.send(b"x"))


def test_an_initiator_refuses_its_own_first_ratchet_key(pair):
    alice, bob = pair
    bob.receive(alice.start(b"hello"))
    answer = bob.send(b"answer")
    refused(alice, changed(answer, ratchet_key=alice.sessions.current.ratchet.peer_key))
    assert alice.receive(answer) == b"answer"


def test_a_message_sent_back_to_its_sender_is_refused(talking):
    alice, _ = talking
    refused(alice, alice.send(b"x"))


def test_a_state_rolled_back_never_reuses_a_key_stream(talking):
    alice, _ = talking
    first, second = (Message.from_bytes(alice.try_send(bytes(64)).message) for _ in range(2))
    assert (first.ratchet_key, first.number) == (second.ratchet_key, second.number)
    assert first.ciphertext[:SALT_BYTES] != second.ciphertext[:SALT_BYTES]
    assert first.ciphertext[SALT_BYTES:] != second.ciphertext[SALT_BYTES:]


def test_a_result_that_is_dropped_leaves_the_message_readable(talking):
    alice, bob = talking
    data = alice.send(b"x")
    bob.try_receive(data)
    bob.restart()
    assert bob.receive(data) == b"x"


def test_a_longer_plaintext_is_refused(talking):
    alice, _ = talking
    with pytest.raises(InvalidInput) as caught:
        alice.send(bytes(MAX_PLAINTEXT_BYTES + 1))
    assert caught.value.reason == "SESSION_MESSAGE_TOO_LARGE"


def test_the_longest_plaintext_arrives(pair):
    alice, bob = pair
    body = bytes(MAX_PLAINTEXT_BYTES)
    assert bob.receive(alice.start(body)) == body


def test_a_message_of_a_session_not_held_asks_for_a_reset(talking):
    alice, bob = talking
    bob.sessions = peer.PeerSessions()
    with pytest.raises(WrongState) as caught:
        bob.try_receive(alice.send(b"x"))
    assert caught.value.reason == "SESSION_MISSING"


def test_a_fresh_state_has_at_most_two_kib_and_comes_back_as_it_was(pair):
    alice, bob = pair
    bob.receive(alice.start(b"hello"))
    for endpoint in pair:
        state = endpoint.sessions.current
        assert len(state.to_bytes()) <= 2048
        assert SessionState.from_bytes(state.to_bytes()) == state
        assert peer.PeerSessions.from_bytes(endpoint.sessions.to_bytes()) == endpoint.sessions


def test_damaged_states_are_refused(talking):
    for parse, data in (
        (SessionState.from_bytes, talking[0].sessions.current.to_bytes()),
        (peer.PeerSessions.from_bytes, talking[1].sessions.to_bytes()),
    ):
        damaged = [data[:size] for size in range(0, len(data), 5)] + [data + b"\0"]
        damaged += [bytes([*data[:at], data[at] ^ 4, *data[at + 1 :]]) for at in range(len(data))]
        for one in damaged:
            with pytest.raises(IntegrityFailure) as caught:
                parse(one)
            assert caught.value.reason == "SESSION_STATE_INVALID"


def test_no_repr_shows_a_key_or_a_plaintext(talking):
    alice, bob = talking
    found = bob.try_receive(alice.send(b"a marked plaintext"))
    ratchet = found.received.state.ratchet
    shown = repr(found) + repr(bob.signed) + repr(bob.own)
    assert "marked" not in shown
    for secret in (ratchet.own_private, ratchet.root, ratchet.sending.key, bob.signed.secret):
        assert repr(secret)[2:-1] not in shown
