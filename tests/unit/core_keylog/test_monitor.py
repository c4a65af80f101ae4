"""A device's watch over its principal's entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.entry import PayloadKind, next_entry, payload_digest, tip_of
from syftmesh_core.keylog.merkle import CompactRange
from syftmesh_core.keylog.monitor import Alarm, AlarmReason, Monitor

ALICE, BOB, CAROL = "alice@x.example", "bob@x.example", "carol@x.example"
KIND = PayloadKind.DEVICE_LIST
FORGED = b"forged"


def log_of(names):
    """Return entries of these principals in order, each with its place as payload."""
    tips, entries = {}, []
    for place, name in enumerate(names):
        entries.append(next_entry(tips.get(name), name, KIND, f"{place}".encode()))
        tips[name] = tip_of(entries[-1])
    return entries


def head_of(entries):
    return CompactRange().extend(merkle.leaf_hash(entry.leaf()) for entry in entries).head()


def ours(entry):
    return entry.payload_digest != payload_digest(KIND, FORGED)


names = st.lists(st.sampled_from([ALICE, BOB, CAROL]), max_size=40)


@given(names, st.data())
def test_clean_log_raises_no_alarm_in_any_batches(log_names, data):
    entries = log_of(log_names)
    cut = data.draw(st.integers(0, len(entries)))
    watch, first = Monitor.of(ALICE).scan(entries[:cut], ours)
    watch, second = watch.scan(iter(entries[cut:]), ours)
    assert first == second == ()
    watch.confirm(head_of(entries))
    assert watch.next_index == len(entries)
    mine = [entry for entry, name in zip(entries, log_names, strict=True) if name == ALICE]
    assert watch.tip == (tip_of(mine[-1]) if mine else None)


def test_forged_entry_alarms_at_its_place_and_only_its_principal():
    entries = log_of([ALICE, BOB, ALICE])
    forged = next_entry(tip_of(entries[2]), ALICE, KIND, FORGED)
    entries += [log_of([BOB, BOB])[1], forged]
    _, alarms = Monitor.of(ALICE).scan(entries, ours)
    assert alarms == (Alarm(4, forged, AlarmReason.FOREIGN),)
    _, alarms = Monitor.of(CAROL).scan(entries, ours)
    assert alarms == ()


def test_forged_entry_of_a_later_batch_carries_its_place_in_the_log():
    entries = log_of([BOB, ALICE, BOB])
    forged = next_entry(tip_of(entries[1]), ALICE, KIND, FORGED)
    watch, _ = Monitor.of(ALICE).scan(entries, ours)
    _, alarms = watch.scan([forged], ours)
    assert alarms == (Alarm(3, forged, AlarmReason.FOREIGN),)


def test_second_chain_beside_the_own_alarms():
    entries = log_of([ALICE, ALICE])
    again = next_entry(None, ALICE, KIND, FORGED)
    _, alarms = Monitor.of(ALICE).scan([*entries, again], ours)
    assert [alarm.reason for alarm in alarms] == [AlarmReason.CHAIN, AlarmReason.FOREIGN]
    own = next_entry(None, ALICE, KIND, b"signed by us, put in twice")
    _, alarms = Monitor.of(ALICE).scan([*entries, own], ours)
    assert alarms == (Alarm(2, own, AlarmReason.CHAIN),)


def test_watch_goes_on_after_an_alarm():
    entries = log_of([ALICE] * 3)
    gap, alarms = Monitor.of(ALICE).scan([entries[0], entries[2]], ours)
    assert [alarm.reason for alarm in alarms] == [AlarmReason.CHAIN]
    _, alarms = gap.scan([next_entry(tip_of(entries[2]), ALICE, KIND, b"next")], ours)
    assert alarms == ()


@given(st.lists(st.sampled_from([ALICE, BOB]), min_size=20, max_size=20), st.data())
def test_entries_other_than_the_logs_are_not_confirmed(log_names, data):
    entries = log_of(log_names)
    head = head_of(entries)
    place = data.draw(st.integers(0, 19))
    changed = [*entries]
    changed[place] = replace(changed[place], payload_digest=bytes(32))
    for served, reason in (
        (changed, "LOG_FORKED"),
        (entries[:place] + entries[place + 1 :], "LOG_SCAN_INCOMPLETE"),
        ([*entries, entries[place]], "LOG_SCAN_INCOMPLETE"),
    ):
        watch, _ = Monitor.of(CAROL).scan(served, ours)
        with pytest.raises(IntegrityFailure) as caught:
            watch.confirm(head)
        assert caught.value.reason == reason


def test_watch_keeps_no_more_than_a_hash_a_bit():
    watch, _ = Monitor.of(CAROL).scan(log_of([ALICE, BOB] * 500), ours)
    assert len(watch.read.nodes) == (1000).bit_count()


def test_unusable_principal_cannot_be_watched():
    with pytest.raises(InvalidInput):
        Monitor.of("nobody")
