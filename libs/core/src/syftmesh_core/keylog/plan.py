"""Which nodes a root or a proof is made of, before anything is read.

A proof is a list of ranges of leaves, each one hash: the roots of the subtrees beside the way. A range falls
into complete subtrees, which never change once they are there, so they are what tiles keep.
"""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_core.errors import InvalidInput

Range = tuple[int, int]
"""Leaves from the first number up to, and without, the second."""


@dataclass(frozen=True, slots=True)
class Node:
    """The root of a complete subtree.

    Attributes:
        level: Height of the subtree; it has ``2 ** level`` leaves.
        index: Which one of that height, from the left.
    """

    level: int
    index: int


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Return the ranges of an inclusion proof, from the leaf up (RFC 9162, section 2.1.3.1).

    Raises:
        InvalidInput: LOG_SIZE_INVALID when no leaf of the tree has that index.
    """
    if not 0 <= index < size:
        raise InvalidInput(
            f"The log has no entry {index} at size {size}.",
            reason="LOG_SIZE_INVALID",
            metadata={"index": str(index), "size": str(size)},
        )
    low, high, ranges = 0, size, list[Range]()
    while high - low > 1:
        middle = low + _left_leaves(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """Return the ranges of a consistency proof, from the bottom up (RFC 9162, section 2.1.4.1).

    Every tree follows the empty tree and itself: both proofs are empty.

    Raises:
        InvalidInput: LOG_SIZE_INVALID when `first` is beyond `second`.
    """
    if not 0 <= first <= second:
        raise InvalidInput(
            f"A log of {second} entries does not follow one of {first}.",
            reason="LOG_SIZE_INVALID",
            metadata={"first": str(first), "second": str(second)},
        )
    if first in (0, second):
        return []
    low, high, ranges = 0, second, list[Range]()
    while first != high:
        middle = low + _left_leaves(high - low)
        if first <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    if low:  # otherwise it is the old root, which the verifier holds
        ranges.append((low, high))
    return ranges[::-1]


def complete_subtrees(leaves: Range) -> list[Node]:
    """Return the complete subtrees that a range of a proof, or a whole tree, falls into, largest first."""
    low, high = leaves
    nodes = []
    while low < high:
        level = (high - low).bit_length() - 1
        nodes.append(Node(level, low >> level))
        low += 1 << level
    return nodes


def _left_leaves(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)
