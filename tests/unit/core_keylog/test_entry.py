"""Entries, and the chain of one principal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.checkpoint import LogKey, sign_checkpoint
from syftmesh_core.keylog.entry import (
    LogEntry,
    PayloadKind,
    follow,
    next_entry,
    payload_digest,
    principal_digest,
    tip_of,
    verify_chain,
)
from syftmesh_core.keylog.merkle import CompactRange

ALICE, BOB = "alice@x.example", "bob@x.example"
VECTORS = Path(__file__).parents[2] / "assets" / "keylog_vectors.json"


def chain_of(principal, count):
    entries, tip = [], None
    for number in range(count):
        entries.append(next_entry(tip, principal, PayloadKind.DEVICE_LIST, f"{number}".encode()))
        tip = tip_of(entries[-1])
    return entries


def test_leaf_is_built_as_the_protocol_says():
    first, second = chain_of(ALICE, 2)
    digest = hashlib.sha256(ALICE.encode()).digest()
    payload = hashlib.sha256(encode("log-payload", ["device-list", b"1"])).digest()
    leaf = hashlib.sha256(encode("log-entry", [digest, 2, first.leaf(), payload])).digest()
    assert second.leaf() == leaf
    assert merkle.leaf_hash(leaf) == hashlib.sha256(b"\x00" + leaf).digest()


def test_vectors_hold(held_key):
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    tree, tips = CompactRange(), {}
    for vector in vectors["entries"]:
        payload = bytes.fromhex(vector["payload"])
        kind = PayloadKind(vector["kind"])
        entry = next_entry(tips.get(vector["principal"]), vector["principal"], kind, payload)
        tips[vector["principal"]] = tip_of(entry)
        assert entry.to_bytes().hex() == vector["entry"]
        assert entry.leaf().hex() == vector["leaf"]
        assert merkle.leaf_hash(entry.leaf()).hex() == vector["leaf_hash"]
        tree = tree.extend([merkle.leaf_hash(entry.leaf())])
        assert tree.head().root.hex() == vector["root"]
    key = held_key(vectors["origin"], bytes.fromhex(vectors["seed"]))
    assert key.note_key.key.hex() == vectors["key"]
    note = sign_checkpoint(tree.head(), LogKey(vectors["origin"], key.note_key), key)
    assert note.decode() == vectors["checkpoint"]


@given(st.integers(1, 6))
def test_entry_is_read_back(count):
    for entry in chain_of(ALICE, count):
        data = entry.to_bytes()
        assert LogEntry.from_bytes(data) == entry
        assert len(data) <= 256


@given(st.data())
def test_truncated_longer_or_other_bytes_are_no_entry(data):
    encoded = chain_of(ALICE, 2)[1].to_bytes()
    for wrong in (
        encoded[: data.draw(st.integers(0, len(encoded) - 1))],
        encoded + data.draw(st.binary(min_size=1, max_size=300)),
        data.draw(st.binary(max_size=200)),
    ):
        with pytest.raises(IntegrityFailure) as caught:
            LogEntry.from_bytes(wrong)
        assert caught.value.reason == "LOG_ENTRY_INVALID"


@given(st.data())
def test_any_changed_bit_makes_another_leaf_or_no_entry(data):
    entry = chain_of(ALICE, 2)[1]
    encoded = bytearray(entry.to_bytes())
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    leaf, reason = entry.leaf(), ""
    try:
        leaf = LogEntry.from_bytes(bytes(encoded)).leaf()
    except IntegrityFailure as failure:
        reason = failure.reason
    assert (leaf != entry.leaf()) != (reason == "LOG_ENTRY_INVALID")


def test_encoding_of_an_entry_that_cannot_be_is_refused():
    digest = bytes(32)
    for fields in (
        [digest, 0, None, digest],
        [digest, 1, digest, digest],
        [digest, 2, None, digest],
        [bytes(31), 1, None, digest],
        [digest, 1, None, b""],
        [digest, 1, None, None],
        [digest, 1, None],
        [digest, 1, None, digest, b""],
    ):
        with pytest.raises(IntegrityFailure) as caught:
            LogEntry.from_bytes(encode("log-entry", fields))
        assert caught.value.reason == "LOG_ENTRY_INVALID"


def test_payloads_of_two_kinds_have_two_digests():
    digests = {payload_digest(kind, b"the same") for kind in PayloadKind}
    assert len(digests) == len(PayloadKind) == 5


@pytest.mark.parametrize("principal", ["", "alice", "a@x\n", "a" * 320 + "@x", "\ud800@x"])
def test_unusable_principal_is_refused(principal):
    with pytest.raises(InvalidInput) as caught:
        principal_digest(principal)
    assert caught.value.reason == "LOG_ENTRY_INVALID"


def test_entry_after_somebody_elses_is_refused():
    with pytest.raises(InvalidInput) as caught:
        next_entry(tip_of(chain_of(BOB, 1)[0]), ALICE, PayloadKind.RESET, b"")
    assert caught.value.reason == "LOG_ENTRY_INVALID"


@given(st.integers(0, 6))
def test_whole_chain_holds(count):
    entries = chain_of(ALICE, count)
    assert verify_chain(ALICE, iter(entries)) == (tip_of(entries[-1]) if entries else None)


@given(st.integers(2, 6), st.data())
def test_missing_repeated_swapped_or_changed_entry_breaks_the_chain(count, data):
    entries = chain_of(ALICE, count)
    place = data.draw(st.integers(0, count - 2))
    wrong = list(entries)
    change = data.draw(st.sampled_from(["missing", "repeated", "swapped", "changed", "foreign"]))
    if change == "missing":
        del wrong[place]
    elif change == "repeated":
        wrong.insert(place, wrong[place])
    elif change == "swapped":
        wrong[place], wrong[place + 1] = wrong[place + 1], wrong[place]
    elif change == "changed":
        wrong[place] = replace(wrong[place], payload_digest=bytes(32))
    else:
        wrong[place] = chain_of(BOB, count)[place]
    with pytest.raises(IntegrityFailure) as caught:
        verify_chain(ALICE, wrong)
    assert caught.value.reason == "LOG_CHAIN_BROKEN"


def test_chain_of_somebody_else_is_refused():
    with pytest.raises(IntegrityFailure) as caught:
        verify_chain(ALICE, chain_of(BOB, 2))
    assert caught.value.reason == "LOG_CHAIN_BROKEN"


def test_entry_follows_only_its_own_principals_tip():
    ours, theirs = chain_of(ALICE, 2), chain_of(BOB, 2)
    assert follow(follow(None, ours[0]), ours[1]) == tip_of(ours[1])
    for tip, entry in (
        (None, ours[1]),
        (tip_of(ours[0]), ours[0]),
        (tip_of(ours[0]), replace(ours[1], version=3)),
        (tip_of(theirs[0]), replace(ours[1], previous_leaf=theirs[0].leaf())),
    ):
        with pytest.raises(IntegrityFailure) as caught:
            follow(tip, entry)
        assert caught.value.reason == "LOG_CHAIN_BROKEN"
