"""The audit's hash chain and its checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.audit_chain import (
    Entry,
    Fault,
    FaultReason,
    append,
    entry_digest,
    is_checkpoint_signed,
    sign_checkpoint,
    verify_chain,
)
from syftmesh_core.errors import InvalidInput

SITE = "alice@x.example"


def chain_of(count: int, *, salt: str = "") -> list[Entry]:
    entries: list[Entry] = []
    for number in range(count):
        last = entries[-1] if entries else None
        entries.append(
            append(last, at_ms=number, kind="job.approved", actor=SITE, fields={"n": number, "s": salt})
        )
    return entries


def rechained(entries: list[Entry]) -> list[Entry]:
    """What somebody who can write the store makes of changed entries."""
    out: list[Entry] = []
    for place, entry in enumerate(entries, start=1):
        previous = entry_digest(out[-1]) if out else None
        out.append(replace(entry, sequence=place, previous_digest=previous))
    return out


@pytest.fixture(scope="module")
def devices(alice):
    return {"alice-1": alice.public}


def test_chain_with_checkpoints_holds(alice, devices):
    entries = chain_of(5)
    points = [sign_checkpoint(SITE, entry, 99, alice.secret) for entry in (entries[4], entries[1])]
    assert verify_chain(entries, points, site=SITE, devices=devices) is None
    assert verify_chain(iter(entries), iter(points), site=SITE, devices=devices) is None
    assert verify_chain([], site=SITE, devices=devices) is None


@given(st.integers(0, 4), st.sampled_from(["at_ms", "kind", "actor", "fields"]))
def test_changed_entry_breaks_the_link_after_it_or_its_checkpoint(alice, devices, place, name):
    entries = chain_of(5)
    point = sign_checkpoint(SITE, entries[4], 0, alice.secret)
    values = {"at_ms": 77, "kind": "job.denied", "actor": "m@x", "fields": {}}
    entries[place] = replace(entries[place], **{name: values[name]})
    found = verify_chain(entries, [point], site=SITE, devices=devices)
    expected = Fault(5, FaultReason.CHECKPOINT) if place == 4 else Fault(place + 2, FaultReason.LINK)
    assert found == expected


def test_recomputed_chain_fails_at_the_checkpoint(alice, devices):
    entries = chain_of(5)
    point = sign_checkpoint(SITE, entries[3], 0, alice.secret)
    entries[1] = replace(entries[1], fields={})
    found = verify_chain(rechained(entries), [point], site=SITE, devices=devices)
    assert found == Fault(4, FaultReason.CHECKPOINT)


@given(st.integers(0, 3))
def test_removed_entry_is_named(alice, devices, place):
    entries = chain_of(5)
    del entries[place]
    assert verify_chain(entries, site=SITE, devices=devices) == Fault(place + 1, FaultReason.SEQUENCE)


def test_swapped_entries_and_a_foreign_start_are_named(devices):
    entries = chain_of(3)
    swapped = [entries[1], entries[0], entries[2]]
    assert verify_chain(swapped, site=SITE, devices=devices) == Fault(1, FaultReason.SEQUENCE)
    spliced = [*chain_of(1, salt="other"), *entries[1:]]
    assert verify_chain(spliced, site=SITE, devices=devices) == Fault(2, FaultReason.LINK)
    rooted = [replace(entries[0], previous_digest=bytes(32))]
    assert verify_chain(rooted, site=SITE, devices=devices) == Fault(1, FaultReason.LINK)


def test_cut_chain_is_named_by_the_checkpoint_beyond_its_end(alice, devices):
    entries = chain_of(5)
    point = sign_checkpoint(SITE, entries[4], 0, alice.secret)
    assert verify_chain(entries[:3], [point], site=SITE, devices=devices) == Fault(4, FaultReason.TRUNCATED)
    assert verify_chain([], [point], site=SITE, devices=devices) == Fault(1, FaultReason.TRUNCATED)


def test_checkpoint_that_is_forged_or_of_another_site_is_named(alice, bob, devices):
    entries = chain_of(3)
    good = sign_checkpoint(SITE, entries[1], 0, alice.secret)
    forged = [
        replace(good, digest=bytes(32)),
        replace(good, at_ms=1),
        replace(good, signature=bytes(64)),
        replace(good, device_id="unknown"),
        replace(good, site="bob@x.example"),
        sign_checkpoint("bob@x.example", entries[1], 0, bob.secret),
    ]
    known = {**devices, "bob-1": bob.public}
    for point in forged:
        found = verify_chain(entries, [good, point], site=SITE, devices=known)
        assert found == Fault(2, FaultReason.SIGNATURE)
    beyond = replace(good, sequence=9)
    assert verify_chain(entries, [beyond], site=SITE, devices=devices) == Fault(9, FaultReason.SIGNATURE)
    assert is_checkpoint_signed(good, alice.public)
    assert not is_checkpoint_signed(good, bob.public)


def test_two_checkpoints_that_differ_show_a_fork(alice, devices):
    mine, other = chain_of(3), chain_of(3, salt="fork")
    points = [sign_checkpoint(SITE, chain[2], 0, alice.secret) for chain in (mine, other)]
    for chain in (mine, other):
        assert verify_chain(chain, points, site=SITE, devices=devices) == Fault(3, FaultReason.CHECKPOINT)


def test_checkpoint_is_signed_by_a_device_of_the_owner_only(bob):
    with pytest.raises(InvalidInput) as caught:
        sign_checkpoint(SITE, chain_of(1)[0], 0, bob.secret)
    assert caught.value.reason == "AUDIT_CHECKPOINT_INVALID"


def test_entry_that_cannot_be_encoded_is_refused_and_named(devices):
    with pytest.raises(InvalidInput):
        append(None, at_ms=0, kind="k", actor="a@x", fields={"x": float("nan")})
    bad = [replace(chain_of(1)[0], fields={"x": 1 << 60})]
    assert verify_chain(bad, site=SITE, devices=devices) == Fault(1, FaultReason.ENCODING)
