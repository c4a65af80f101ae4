"""Signed heads: strict in form, and of one log and key."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput, MeshError
from syftmesh_core.keylog.checkpoint import LogKey, open_checkpoint, sign_checkpoint
from syftmesh_core.keylog.merkle import EMPTY_HEAD, MAX_SIZE, TreeHead
from syftmesh_core.keylog.note import MAX_NOTE_BYTES, NoteKey, open_note, sign_note

HEAD = TreeHead(20_852_163, bytes(range(32)))
ROOT = base64.b64encode(HEAD.root).decode()
ORIGIN = "hub.example/keys"


@given(st.integers(1, MAX_SIZE), st.binary(min_size=32, max_size=32))
def test_signed_head_opens(held, log, size, root):
    head = TreeHead(size, root)
    data = sign_checkpoint(head, log, held)
    assert open_checkpoint(data, log) == head
    assert sign_checkpoint(head, log, held) == data


def test_empty_log_has_a_head(held, log):
    assert open_checkpoint(sign_checkpoint(EMPTY_HEAD, log, held), log) == EMPTY_HEAD


@given(st.data())
def test_any_changed_bit_refuses_a_head(checkpoint_of, log, data):
    note = bytearray(checkpoint_of(HEAD))
    bit = data.draw(st.integers(0, 8 * len(note) - 1))
    note[bit // 8] ^= 1 << bit % 8
    refused(bytes(note), log)


@given(st.data())
def test_truncated_or_longer_head_is_refused(checkpoint_of, log, data):
    note = checkpoint_of(HEAD)
    refused(note[: data.draw(st.integers(0, len(note) - 1))], log)
    refused(note + data.draw(st.binary(min_size=1, max_size=40)), log)
    refused(data.draw(st.binary(min_size=1, max_size=40)) + note, log)


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(log, data):
    refused(data, log)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n{HEAD.size}\n{ROOT}\nextension\n",
        f"{ORIGIN}\n{HEAD.size}\n",
        f"{ORIGIN}\n\n{HEAD.size}\n{ROOT}\n",
        f"{ORIGIN}\n{HEAD.size}\n{ROOT}\n\n",
        f"other.example\n{HEAD.size}\n{ROOT}\n",
        f"{ORIGIN} \n{HEAD.size}\n{ROOT}\n",
        f"{ORIGIN}\n0{HEAD.size}\n{ROOT}\n",
        f"{ORIGIN}\n+{HEAD.size}\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n0x1f\n{ROOT}\n",
        f"{ORIGIN}\n1_000\n{ROOT}\n",
        f"{ORIGIN}\n\u0661\n{ROOT}\n",
        f"{ORIGIN}\n{MAX_SIZE + 1}\n{ROOT}\n",
        f"{ORIGIN}\n{10**30}\n{ROOT}\n",
        f"{ORIGIN}\n0\n{ROOT}\n",
        f"{ORIGIN}\n{HEAD.size}\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n{HEAD.size}\n{ROOT[:-2]}9=\n",
        f"{ORIGIN}\n{HEAD.size}\n {ROOT}\n",
        f"{ORIGIN}\n{HEAD.size}\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n{HEAD.size}\n{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}\n",
    ],
)
def test_head_of_another_form_is_refused_though_signed(held, log, text):
    refused(sign_note(text, held.note_key, held), log)


def test_head_by_another_key_or_name_is_refused(held, log, held_key, checkpoint_of):
    for other in (held_key(ORIGIN, bytes(32)), held_key("hub.example/other", bytes(range(32)))):
        refused(sign_checkpoint(HEAD, LogKey(ORIGIN, other.note_key), other), log)
    refused(checkpoint_of(HEAD), LogKey("hub.example/other", held.note_key))


def test_signatures_of_others_count_for_nothing(held, log, held_key, checkpoint_of):
    note = checkpoint_of(HEAD)
    witness = held_key("witness.example", bytes([7]) * 32)
    text = note.decode().partition("\n\n")[0] + "\n"
    line = sign_note(text, witness.note_key, witness).decode().partition("\n\n")[2]
    assert open_checkpoint(note + line.encode(), log) == HEAD
    assert open_checkpoint(note + line.encode() * 15, log) == HEAD
    refused(note + line.encode() * 16, log)
    refused(f"{text}\n{line}".encode(), log)


def test_wrong_signature_under_the_logs_name_and_id_is_refused_beside_a_good_one(held, log, checkpoint_of):
    note = checkpoint_of(HEAD).decode()
    wrong = base64.b64encode(held.note_key.key_id + bytes(64)).decode()
    refused(f"{note}\u2014 {ORIGIN} {wrong}\n".encode(), log)
    short = base64.b64encode(held.note_key.key_id + b"x").decode()
    refused(f"{note}\u2014 {ORIGIN} {short}\n".encode(), log)


@pytest.mark.parametrize(("name", "key_id"), [(ORIGIN, b"else"), ("hub.example/other", None)])
def test_signature_that_shares_only_name_or_id_with_the_key_is_anothers(
    held, log, checkpoint_of, name, key_id
):
    other = base64.b64encode((key_id or held.note_key.key_id) + bytes(64)).decode()
    line = f"\u2014 {name} {other}\n"
    assert open_checkpoint(checkpoint_of(HEAD) + line.encode(), log) == HEAD
    refused(checkpoint_of(HEAD).partition(b"\n\n")[0] + f"\n\n{line}".encode(), log)


def test_too_long_note_is_refused_though_signed(log, checkpoint_of):
    line = f"\u2014 witness {base64.b64encode(bytes(9000)).decode()}\n".encode()
    note = checkpoint_of(HEAD)
    assert open_checkpoint(note + line * 10, log) == HEAD
    assert len(note + line * 15) > MAX_NOTE_BYTES
    refused(note + line * 15, log)


def test_control_characters_are_refused_though_signed(held):
    text = "a\x01b\n"
    line = base64.b64encode(held.note_key.key_id + held.sign(text.encode())).decode()
    with pytest.raises(IntegrityFailure) as caught:
        open_note(f"{text}\n\u2014 {ORIGIN} {line}\n".encode(), held.note_key)
    assert caught.value.reason == "LOG_HEAD_INVALID"


def test_signer_with_another_key_signs_nothing(log, held_key):
    with pytest.raises(IntegrityFailure) as caught:
        sign_checkpoint(HEAD, log, held_key(ORIGIN, bytes(32)))
    assert caught.value.reason == "SIGNATURE_INVALID"


@pytest.mark.parametrize("text", ["no newline", "a\x00b\n", "a\tb\n", "\ud800\n"])
def test_text_that_no_note_can_carry_is_refused(held, text):
    with pytest.raises(InvalidInput):
        sign_note(text, held.note_key, held)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "a\x01", "\ud800"])
def test_name_that_no_signature_can_carry_is_refused(held, name):
    with pytest.raises(InvalidInput) as caught:
        NoteKey(name, held.note_key.key)
    assert caught.value.reason == "LOG_KEY_INVALID"


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), bytes([1]) + bytes(31)])
def test_unusable_key_is_refused(key):
    with pytest.raises(InvalidInput) as caught:
        NoteKey(ORIGIN, key)
    assert caught.value.reason == "LOG_KEY_INVALID"


@pytest.mark.parametrize("origin", ["", "a\nb", "\x00"])
def test_origin_that_is_no_line_is_refused(held, origin):
    with pytest.raises(InvalidInput):
        LogKey(origin, held.note_key)


def refused(data, log):
    with pytest.raises(MeshError) as caught:
        open_checkpoint(data, log)
    assert isinstance(caught.value, IntegrityFailure)
    assert caught.value.reason == "LOG_HEAD_INVALID"
