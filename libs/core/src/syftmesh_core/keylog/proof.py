"""Proofs that an entry is in the log, and that a head continues an older one: made and verified.

Source: RFC 9162, sections 2.1.3 and 2.1.4. A proof commits to the root, and to the size only through the
signed head that names both: the same hashes can prove an entry at two sizes. So size and root always enter
as one `TreeHead`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn, Protocol

from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.merkle import HASH_BYTES, TreeHead
from syftmesh_core.keylog.plan import (
    Node,
    Range,
    complete_subtrees,
    consistency_ranges,
    inclusion_ranges,
)


class NodeSource(Protocol):
    """Where the hashes of complete subtrees come from."""

    def node(self, node: Node) -> bytes:
        """Return the hash of `node`, 32 bytes, or raise."""
        ...


def root_of(size: int, nodes: NodeSource) -> bytes:
    """Return the root of the first `size` leaves."""
    return _hash((0, size), nodes)


def inclusion_proof(index: int, size: int, nodes: NodeSource) -> tuple[bytes, ...]:
    """Return the proof that leaf `index` is in the tree of the first `size` leaves.

    Raises:
        InvalidInput: LOG_SIZE_INVALID when that tree has no such leaf.
    """
    return tuple(_hash(leaves, nodes) for leaves in inclusion_ranges(index, size))


def consistency_proof(first: int, second: int, nodes: NodeSource) -> tuple[bytes, ...]:
    """Return the proof that the tree of `second` leaves continues that of the `first`.

    Raises:
        InvalidInput: LOG_SIZE_INVALID when `first` is beyond `second`.
    """
    return tuple(_hash(leaves, nodes) for leaves in consistency_ranges(first, second))


def verify_inclusion(leaf_hash: bytes, index: int, proof: Sequence[bytes], head: TreeHead) -> None:
    """Check that the leaf of that hash stands at `index` under `head` (RFC 9162, section 2.1.3.2).

    Args:
        leaf_hash: `merkle.leaf_hash` of the entry's leaf, 32 bytes.
        index: Its place in the log, from 0.
        proof: Hashes as received.
        head: A head whose signature was checked.

    Raises:
        IntegrityFailure: LOG_PROOF_INVALID.
    """
    if not 0 <= index < head.size or not _are_hashes((leaf_hash, *proof)):
        _refuse("it is not of the form that this place in this tree needs")
    found = leaf_hash
    for beside, is_left in _climb(index, head.size - 1, proof):
        found = merkle.node_hash(beside, found) if is_left else merkle.node_hash(found, beside)
    if found != head.root:
        _refuse("it leads to another root")


def verify_consistency(old: TreeHead, new: TreeHead, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` continues that of `old` (RFC 9162, section 2.1.4.2).

    Args:
        old: The head known from before.
        new: A head whose signature was checked.
        proof: Hashes as received; none where the old tree is empty or the sizes are the same.

    Raises:
        IntegrityFailure: LOG_PROOF_INVALID for a proof that these sizes cannot have; LOG_FORKED when it leads
            to other roots, and for two roots of one size.
    """
    if old.size == new.size and old.root != new.root:
        refuse_fork(old, new)
    if old.size > new.size or not _are_hashes(proof):
        _refuse("it is not of the form that these sizes need")
    if old.size in (0, new.size):
        if proof:
            _refuse("these sizes need none")
        return
    old_root, new_root = _roots(old, new.size, proof)
    if old_root != old.root or new_root != new.root:
        refuse_fork(old, new)


def refuse_fork(old: TreeHead, new: TreeHead) -> NoReturn:
    """Refuse two heads of which the log did not prove that they are of one history.

    Raises:
        IntegrityFailure: LOG_FORKED, with both heads in its metadata: they are the evidence.
    """
    raise IntegrityFailure(
        f"The key log shows two histories: its head of {new.size} entries does not continue the one of "
        f"{old.size} known from before. Nothing is sent or opened; keep both heads and ask the hub's operator.",
        reason="LOG_FORKED",
        metadata={
            "known_size": str(old.size),
            "known_root": old.root.hex(),
            "shown_size": str(new.size),
            "shown_root": new.root.hex(),
        },
    )


def _roots(old: TreeHead, new_size: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    place, last = old.size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    # A power of two is one complete subtree: the proof starts from its root, which the verifier holds.
    path = proof if old.size & (old.size - 1) else (old.root, *proof)
    if not path:
        _refuse("it is empty")
    old_root = new_root = path[0]
    for beside, is_left in _climb(place, last, path[1:]):
        if is_left:
            old_root = merkle.node_hash(beside, old_root)
            new_root = merkle.node_hash(beside, new_root)
        else:
            new_root = merkle.node_hash(new_root, beside)
    return old_root, new_root


def _climb(place: int, last: int, siblings: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Iterate from a node to the root: each sibling, and whether it stands on the left.

    Args:
        place: Of the node on its level, from 0.
        last: Of the last node on that level.
        siblings: From below.

    Raises:
        IntegrityFailure: LOG_PROOF_INVALID when they are more or fewer than the way is long.
    """
    for beside in siblings:
        if last == 0:
            _refuse("it is longer than the tree is high")
        is_left = bool(place & 1) or place == last
        yield beside, is_left
        if is_left:
            place, last = _up_to_right_child(place, last)
        place, last = place >> 1, last >> 1
    if last:
        _refuse("it is shorter than the tree is high")


def _up_to_right_child(place: int, last: int) -> tuple[int, int]:
    """Go up the right edge, past the levels at which it has no sibling."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _hash(leaves: Range, nodes: NodeSource) -> bytes:
    return merkle.fold([nodes.node(node) for node in complete_subtrees(leaves)])


def _are_hashes(proof: Sequence[bytes]) -> bool:
    return all(len(each) == HASH_BYTES for each in proof)


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The proof of the key log is refused: {what}.", reason="LOG_PROOF_INVALID")
