"""Epochs go forward only, and what was sealed for earlier readers is stale."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import Conflict, IntegrityFailure, InvalidInput, Unavailable
from syftmesh_core.object.epoch import EpochState, Readership, next_epoch
from syftmesh_core.object.reader_secret import ReaderSetId
from syftmesh_core.object.reader_set import ReaderSet


def known(epoch: int, *, readers: int = 1, secret: int = 1, site: str = "alice@x.example") -> ReaderSet:
    set_id = ReaderSetId(site, epoch, bytes([readers]) * 32)
    return ReaderSet(set_id, bytes([secret]) * 32, b"", "alice@x.example", "alice-1")


def reason(error: type[Exception], action, *args) -> str:
    with pytest.raises(error) as caught:
        action(*args)
    return caught.value.reason


@given(st.lists(st.integers(1, 50), min_size=1))
def test_whatever_arrives_the_known_epoch_never_falls(epochs):
    state, highest = EpochState.first(known(1)), 1
    for epoch in epochs:
        if epoch < highest:
            assert reason(IntegrityFailure, state.after, known(epoch)) == "EPOCH_ROLLBACK"
        else:
            state = state.after(known(epoch))
        highest = max(highest, epoch)
        assert state.set_id.epoch == highest


def test_the_same_set_again_changes_nothing():
    state = EpochState.first(known(3))
    assert state.after(known(3)) is state


@pytest.mark.parametrize("second", [known(3, secret=2), known(3, readers=2)])
def test_two_secrets_or_lists_in_one_epoch_are_a_fork(second):
    assert reason(IntegrityFailure, EpochState.first(known(3)).after, second) == "READER_SET_FORKED"


def test_a_commit_counts_for_the_readers_of_now_only():
    state = EpochState.first(known(2)).after(known(3, readers=2))
    state.check_commit(known(3, readers=2).set_id)
    assert reason(Conflict, state.check_commit, known(2).set_id) == "STALE_READERS"
    assert reason(Conflict, state.check_commit, known(3).set_id) == "STALE_READERS"
    assert reason(Unavailable, state.check_commit, known(4).set_id) == "EPOCH_AHEAD"


def test_a_set_of_another_datasite_is_refused():
    state, other = EpochState.first(known(1)), known(2, site="bob@x.example")
    assert reason(InvalidInput, state.after, other) == "READER_SET_REFUSED"
    assert reason(InvalidInput, state.check_commit, other.set_id) == "READER_SET_REFUSED"


def test_whatever_takes_a_reader_or_device_away_starts_an_epoch(alice, bob, carol):
    names = [alice.principal, bob.principal]
    before = Readership.of(names, [alice.public, bob.public])
    assert next_epoch(3, before=before, after=before) == 3
    second = replace(bob.public, device_id="bob-2")
    more_devices = Readership.of(names, [alice.public, bob.public, second])
    assert next_epoch(3, before=before, after=more_devices) == 3
    assert next_epoch(3, before=more_devices, after=before) == 4
    fewer_readers = Readership.of(names[:1], [alice.public])
    assert next_epoch(3, before=before, after=fewer_readers) == 4
    new_keys = Readership.of(names, [alice.public, replace(bob.public, epoch=2)])
    assert next_epoch(3, before=before, after=new_keys) == 4
    more_readers = Readership.of([*names, carol.principal], [alice.public, bob.public, carol.public])
    assert next_epoch(3, before=before, after=more_readers) == 4
