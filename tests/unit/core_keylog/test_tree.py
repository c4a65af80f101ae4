"""The tree: against a naive one at every size, and its costs counted in hashes and tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.merkle import EMPTY_ROOT, MAX_SIZE, CompactRange, TreeHead
from syftmesh_core.keylog.plan import consistency_ranges, inclusion_ranges
from syftmesh_core.keylog.proof import (
    consistency_proof,
    inclusion_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from syftmesh_core.keylog.tile import TileNodes

SIZE = 300
sizes = st.integers(1, SIZE)
MILLION = 1_000_000


class AnyNode:
    """Nodes of a tree that nobody could build: one hash for all."""

    def __init__(self) -> None:
        self.count = 0

    def node(self, node):
        self.count += 1
        return bytes(32)


def leaf_at(tree, index):
    return merkle.leaf_hash(tree.data[index])


def test_root_is_the_naive_one_at_every_size(tree, naive):
    grown = CompactRange()
    for size in range(SIZE + 1):
        expected = naive.root(tree.data[:size])
        assert grown.head() == TreeHead(size, expected)
        assert root_of(size, tree.nodes()) == expected
        if size < SIZE:
            grown = grown.extend([leaf_at(tree, size)])


@given(st.data())
def test_inclusion_proof_is_the_naive_one_and_holds(tree, naive, data):
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, tree.nodes())
    assert list(proof) == naive.inclusion(index, tree.data[:size])
    verify_inclusion(leaf_at(tree, index), index, proof, tree.head(size))


@given(st.data())
def test_consistency_proof_is_the_naive_one_and_holds(tree, naive, data):
    second = data.draw(sizes)
    first = data.draw(st.integers(0, second))
    proof = consistency_proof(first, second, tree.nodes())
    assert list(proof) == (naive.consistency(first, tree.data[:second]) if first else [])
    verify_consistency(tree.head(first), tree.head(second), proof)


def test_every_proof_of_every_small_tree_holds(tree):
    for size in range(1, 35):
        head = tree.head(size)
        for other in range(size):
            verify_inclusion(leaf_at(tree, other), other, inclusion_proof(other, size, tree.nodes()), head)
            verify_consistency(tree.head(other), head, consistency_proof(other, size, tree.nodes()))


@given(st.data())
def test_extending_in_parts_is_extending_at_once(tree, data):
    size = data.draw(sizes)
    cut = data.draw(st.integers(0, size))
    hashes = [merkle.leaf_hash(each) for each in tree.data[:size]]
    assert CompactRange().extend(hashes[:cut]).extend(hashes[cut:]) == CompactRange().extend(hashes)


@given(st.data())
def test_any_changed_bit_refuses_an_inclusion(tree, data):
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    proof, leaf, head = inclusion_proof(index, size, tree.nodes()), leaf_at(tree, index), tree.head(size)
    what = data.draw(st.sampled_from(["leaf", "root", "index", *(["proof"] if proof else [])]))
    if what == "leaf":
        leaf = flipped(leaf, data)
    elif what == "root":
        head = TreeHead(size, flipped(head.root, data))
    elif what == "index":
        index ^= 1 << data.draw(st.integers(0, 62))
    else:
        proof = changed(proof, data)
    refused(lambda: verify_inclusion(leaf, index, proof, head))


@given(st.data())
def test_any_changed_bit_refuses_a_consistency(tree, data):
    second = data.draw(st.integers(2, SIZE))
    first = data.draw(st.integers(1, second - 1))
    proof, old, new = consistency_proof(first, second, tree.nodes()), tree.head(first), tree.head(second)
    what = data.draw(st.sampled_from(["old root", "new root", "old size", "proof"]))
    if what == "old root":
        old = TreeHead(first, flipped(old.root, data))
    elif what == "new root":
        new = TreeHead(second, flipped(new.root, data))
    elif what == "old size":
        # The empty tree, which any tree follows, has one root only: another one is not even a head.
        size = first ^ 1 << data.draw(st.integers(0, 62))
        refused(lambda: verify_consistency(TreeHead(size, old.root), new, proof))
        return
    else:
        proof = changed(proof, data)
    refused(lambda: verify_consistency(old, new, proof))


@given(st.data())
def test_proof_with_more_or_fewer_hashes_is_refused(tree, data):
    size = data.draw(st.integers(2, SIZE))
    other = data.draw(st.integers(1, size - 1))
    head, extra = tree.head(size), data.draw(st.sampled_from([bytes(32), tree.head(size).root, b""]))
    included = inclusion_proof(other, size, tree.nodes())
    consistent = consistency_proof(other, size, tree.nodes())
    for proof, verify in (
        (included, lambda proof: verify_inclusion(leaf_at(tree, other), other, proof, head)),
        (consistent, lambda proof: verify_consistency(tree.head(other), head, proof)),
    ):
        for wrong in (proof[:-1], proof[1:], (extra, *proof), (*proof, extra), (*proof[:-1], b"short")):
            refused(lambda wrong=wrong, verify=verify: verify(wrong))


def test_bytes_moved_between_neighbours_are_refused(tree):
    """Two hashes are hashed side by side: only their lengths say where one ends."""
    leaf, (first, *rest) = leaf_at(tree, 0), inclusion_proof(0, SIZE, tree.nodes())
    refused(lambda: verify_inclusion(leaf[:31], 0, [leaf[31:] + first, *rest], tree.head()))
    old, beside, *others = consistency_proof(7, SIZE, tree.nodes())
    moved = [old[1:], beside + old[:1], *others]
    with pytest.raises(IntegrityFailure) as caught:
        verify_consistency(tree.head(7), tree.head(), moved)
    assert caught.value.reason == "LOG_PROOF_INVALID"


def test_size_is_bound_by_the_signed_head_and_the_height_only(tree):
    """A proof leads to a root; sizes of one height can share it, so size and root come from one signed head."""
    proof, leaf = inclusion_proof(0, 5, tree.nodes()), leaf_at(tree, 0)
    verify_inclusion(leaf, 0, proof, TreeHead(6, tree.head(5).root))
    for size in (4, 9, 1 << 40):
        refused(lambda size=size: verify_inclusion(leaf, 0, proof, TreeHead(size, tree.head(5).root)))


def test_two_roots_of_one_size_are_a_fork(tree):
    other = TreeHead(SIZE, bytes(32))
    for proof in ((), (bytes(32),), (b"",)):
        with pytest.raises(IntegrityFailure) as caught:
            verify_consistency(tree.head(), other, proof)
        assert caught.value.reason == "LOG_FORKED"
        assert caught.value.metadata["shown_root"] == other.root.hex()


def test_rewritten_history_is_a_fork(tree, grown):
    forked = grown([b"other", *tree.data[1:]])
    for first in (1, 7, 128, 255):
        proof = consistency_proof(first, SIZE, forked.nodes())
        with pytest.raises(IntegrityFailure) as caught:
            verify_consistency(tree.head(first), forked.head(), proof)
        assert caught.value.reason == "LOG_FORKED"


def test_empty_and_equal_trees_need_no_proof(tree):
    verify_consistency(tree.head(0), tree.head(), ())
    verify_consistency(tree.head(), tree.head(), ())
    refused(lambda: verify_consistency(tree.head(0), tree.head(), (bytes(32),)))
    refused(lambda: verify_consistency(tree.head(), tree.head(), (bytes(32),)))
    refused(lambda: verify_consistency(tree.head(), tree.head(9), ()))
    refused(lambda: verify_inclusion(bytes(32), 0, (), tree.head(0)))


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_proof_of_a_place_outside_the_tree_cannot_be_asked(tree, index, size):
    with pytest.raises(InvalidInput) as caught:
        inclusion_proof(index, size, tree.nodes())
    assert caught.value.reason == "LOG_SIZE_INVALID"


@pytest.mark.parametrize(("first", "second"), [(-1, 3), (4, 3), (SIZE, SIZE + 1)])
def test_proof_of_no_growth_cannot_be_asked(tree, first, second):
    with pytest.raises(InvalidInput) as caught:
        consistency_proof(first, second, tree.nodes())
    assert caught.value.reason == "LOG_SIZE_INVALID"


def test_head_beyond_its_form_is_refused():
    for size, root in ((-1, bytes(32)), (MAX_SIZE + 1, bytes(32)), (1, bytes(31)), (0, bytes(32)), (1, b"")):
        with pytest.raises(IntegrityFailure) as caught:
            TreeHead(size, root)
        assert caught.value.reason == "LOG_HEAD_INVALID"
    assert TreeHead(0, EMPTY_ROOT).size == 0


def test_range_that_does_not_fit_its_size_is_refused():
    for size, nodes in ((1, ()), (2, (bytes(32), bytes(32))), (1, (bytes(31),)), (-1, (bytes(32),))):
        with pytest.raises(InvalidInput) as caught:
            CompactRange(size, nodes)
        assert caught.value.reason == "LOG_SIZE_INVALID"
    with pytest.raises(InvalidInput):
        CompactRange().extend([bytes(31)])


def test_growing_costs_two_hashes_an_entry_and_keeps_a_hash_a_bit(tree, counted):
    with counted() as hashes:
        grown = CompactRange().extend(merkle.leaf_hash(each) for each in tree.data)
        assert hashes.count == SIZE + SIZE - len(grown.nodes)
        grown.head()
    assert len(grown.nodes) == SIZE.bit_count()
    assert hashes.count == 2 * SIZE - 1


@given(st.integers(1, MAX_SIZE), st.data())
def test_proofs_and_their_verification_cost_the_height_of_the_tree(counted, size, data):
    index = data.draw(st.integers(0, size - 1))
    height = (size - 1).bit_length()
    for ranges in (inclusion_ranges(index, size), consistency_ranges(index, size)):
        assert len(ranges) <= height + 1
    nodes = AnyNode()
    with counted() as hashes:
        proof = inclusion_proof(index, size, nodes)
        assert hashes.count <= height
        assert nodes.count <= 2 * height
    with counted() as hashes:
        refused(lambda: verify_inclusion(bytes(32), index, proof, TreeHead(size, b"other".ljust(32))))
        assert hashes.count == len(proof) <= height
    if index:
        with counted() as hashes:
            growth = consistency_proof(index, size, nodes)
            refused(
                lambda: verify_consistency(
                    TreeHead(index, b"other".ljust(32)), TreeHead(size, bytes(32)), growth
                )
            )
            assert hashes.count <= 3 * height


def test_proof_in_a_million_entries_reads_five_tiles_and_makes_few_hashes(counted):
    class Constant:
        reads = 0

        def read(self, tile):
            self.reads += 1
            return bytes(tile.size_bytes)

    for index in (0, 1, 255, 256, 524_287, 524_288, 999_999):
        store = Constant()
        with counted() as hashes:
            assert len(inclusion_proof(index, MILLION, TileNodes(MILLION, store))) <= 20
        assert store.reads <= 5
        assert hashes.count <= 3 * 256


def flipped(value, data):
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(len(value), "big")


def changed(proof, data):
    place = data.draw(st.integers(0, len(proof) - 1))
    return (*proof[:place], flipped(proof[place], data), *proof[place + 1 :])


def refused(work):
    with pytest.raises(IntegrityFailure) as caught:
        work()
    assert caught.value.reason in {"LOG_PROOF_INVALID", "LOG_FORKED", "LOG_HEAD_INVALID"}
