"""A client's view of the log only grows, and notices a second history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.keylog.checkpoint import LogKey, sign_checkpoint
from syftmesh_core.keylog.entry import PayloadKind, next_entry, tip_of
from syftmesh_core.keylog.follower import Follower
from syftmesh_core.keylog.merkle import EMPTY_HEAD, TreeHead
from syftmesh_core.keylog.proof import consistency_proof, inclusion_proof

SIZE = 300


@pytest.fixture(scope="module")
def forked(tree, grown):
    """The log as it is shown to somebody else: other from entry 100 on."""
    return grown([*tree.data[:100], *(each + b"'" for each in tree.data[100:])])


@given(st.lists(st.integers(0, SIZE), min_size=1, max_size=6))
def test_view_advances_through_any_growing_heads(tree, log, checkpoint_of, sizes):
    view = Follower(log)
    for size in sorted(sizes):
        head = tree.head(size)
        view = view.advance(checkpoint_of(head), consistency_proof(view.seen.size, size, tree.nodes()))
        assert view.seen == head


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_second_history_is_a_fork_wherever_the_heads_lie(tree, forked, log, checkpoint_of, seen, shown):
    view = Follower(log, tree.head(seen))
    first, second = sorted((seen, shown))
    proof = consistency_proof(first, second, forked.nodes())
    if shown < seen:
        refused("LOG_ROLLBACK", lambda: view.advance(checkpoint_of(forked.head(shown)), proof))
    elif seen <= 100:
        assert view.advance(checkpoint_of(forked.head(shown)), proof).seen == forked.head(shown)
    else:
        refused("LOG_FORKED", lambda: view.advance(checkpoint_of(forked.head(shown)), proof))


def test_both_heads_of_a_fork_are_kept_as_evidence(tree, forked, log, checkpoint_of):
    view = Follower(log, tree.head(200))
    proof = consistency_proof(200, SIZE, forked.nodes())
    error = refused("LOG_FORKED", lambda: view.advance(checkpoint_of(forked.head()), proof))
    assert error.metadata == {
        "known_size": "200",
        "known_root": tree.head(200).root.hex(),
        "shown_size": str(SIZE),
        "shown_root": forked.head().root.hex(),
    }


def test_smaller_head_is_refused_though_it_is_of_the_same_history(tree, log, checkpoint_of):
    view = Follower(log, tree.head(200))
    for size in (0, 1, 199):
        refused("LOG_ROLLBACK", lambda size=size: view.advance(checkpoint_of(tree.head(size)), ()))
    assert view.advance(checkpoint_of(tree.head(200)), ()) == view


def test_head_without_its_proof_is_refused(tree, log, checkpoint_of):
    view = Follower(log, tree.head(200))
    good = consistency_proof(200, SIZE, tree.nodes())
    for proof in ((), good[:-1], (*good, bytes(32)), (b"", *good)):
        refused("LOG_PROOF_INVALID", lambda proof=proof: view.advance(checkpoint_of(tree.head()), proof))
    swapped = (good[1], good[0], *good[2:])
    refused("LOG_FORKED", lambda: view.advance(checkpoint_of(tree.head()), swapped))


def test_head_of_another_key_is_refused_before_its_proof_is_read(tree, log, held_key):
    other = held_key("hub.example/keys", bytes(32))
    data = sign_checkpoint(tree.head(), LogKey("hub.example/keys", other.note_key), other)
    refused("LOG_HEAD_INVALID", lambda: Follower(log).advance(data, ()))


def test_first_head_is_taken_as_it_is_and_without_a_proof(tree, log, checkpoint_of):
    assert Follower(log).seen == EMPTY_HEAD
    assert Follower(log).advance(checkpoint_of(tree.head()), ()).seen == tree.head()
    refused("LOG_PROOF_INVALID", lambda: Follower(log).advance(checkpoint_of(tree.head()), (bytes(32),)))


@given(st.integers(1, SIZE), st.integers(1, SIZE))
def test_heads_of_two_clients_are_compared_either_way(tree, forked, log, ours, theirs):
    view = Follower(log, tree.head(ours))
    first, second = sorted((ours, theirs))
    view.compare(tree.head(theirs), consistency_proof(first, second, tree.nodes()))
    if first > 100:
        for nodes in (tree.nodes(), forked.nodes()):
            proof = consistency_proof(first, second, nodes)
            refused("LOG_FORKED", lambda proof=proof: view.compare(forked.head(theirs), proof))


def test_entry_is_checked_under_the_head_seen(grown, log):
    first = next_entry(None, "a@x.example", PayloadKind.BUNDLE, b"1")
    second = next_entry(tip_of(first), "a@x.example", PayloadKind.BUNDLE, b"2")
    made = grown([first.leaf(), second.leaf()])
    view = Follower(log, made.head())
    proof = inclusion_proof(1, 2, made.nodes())
    view.check_entry(second, 1, proof)
    for entry, index in ((first, 1), (second, 0), (second, 2), (second, -1)):
        refused("LOG_PROOF_INVALID", lambda e=entry, i=index: view.check_entry(e, i, proof))
    older = Follower(log, TreeHead(1, made.head(1).root))
    refused("LOG_PROOF_INVALID", lambda: older.check_entry(second, 1, proof))


def refused(reason, work):
    with pytest.raises(IntegrityFailure) as caught:
        work()
    assert caught.value.reason == reason
    return caught.value
