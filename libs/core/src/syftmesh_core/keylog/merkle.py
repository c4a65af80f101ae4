"""The Merkle tree of the key log: hashing, heads, and the O(log n) state that grows one.

Source: RFC 6962, section 2.1, with SHA-256: ``MTH({d}) = H(0x00 | d)``, ``MTH(D[n]) = H(0x01 | MTH(D[0:k]) |
MTH(D[k:n]))`` with k the largest power of two below n. What the tree calls an entry ``d`` is the 32-byte
*leaf* of `syftmesh_core.keylog.entry`, so a tree's leaf hash is ``H(0x00 | leaf)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from syftmesh_core.errors import IntegrityFailure, InvalidInput

_sha256 = hashlib.sha256

HASH_BYTES = 32

MAX_SIZE = (1 << 63) - 1
"""Most leaves of a tree: what a signed 64-bit integer of any other implementation holds."""

EMPTY_ROOT = _sha256(b"").digest()
"""Root of the tree without a leaf."""


@dataclass(frozen=True, slots=True)
class TreeHead:
    """Size and root of a tree, which belong together: no proof commits to the size alone.

    Attributes:
        size: How many leaves.
        root: The root hash, 32 bytes.

    Raises:
        IntegrityFailure: LOG_HEAD_INVALID for a size or a root beyond its form, or an empty tree of another
            root than the empty one.
    """

    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise IntegrityFailure(
                "The head is refused: its size or its root has not its form.", reason="LOG_HEAD_INVALID"
            )
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise IntegrityFailure(
                "The head is refused: an empty tree has the empty root.", reason="LOG_HEAD_INVALID"
            )


EMPTY_HEAD = TreeHead(0, EMPTY_ROOT)


@dataclass(frozen=True, slots=True)
class CompactRange:
    """The roots of the complete subtrees that make up a tree, from the left: all that appending needs.

    Attributes:
        size: How many leaves.
        nodes: One hash for each bit set in `size`, the largest subtree first.

    Raises:
        InvalidInput: LOG_SIZE_INVALID when the nodes do not fit the size, or it is beyond the largest.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        fits = 0 <= self.size <= MAX_SIZE and len(self.nodes) == self.size.bit_count()
        if not fits or any(len(node) != HASH_BYTES for node in self.nodes):
            raise InvalidInput("The nodes of the tree do not fit its size.", reason="LOG_SIZE_INVALID")

    def extend(self, leaf_hashes: Iterable[bytes]) -> CompactRange:
        """Return the range with these leaf hashes appended in order; about one node hash for each.

        Raises:
            InvalidInput: LOG_SIZE_INVALID for a hash that is not 32 bytes.
        """
        nodes, size = list(self.nodes), self.size
        for leaf in leaf_hashes:
            if len(leaf) != HASH_BYTES:
                raise InvalidInput("A leaf hash has 32 bytes.", reason="LOG_SIZE_INVALID")
            node, bits = leaf, size
            while bits & 1:
                node = node_hash(nodes.pop(), node)
                bits >>= 1
            nodes.append(node)
            size += 1
        return CompactRange(size, tuple(nodes))

    def head(self) -> TreeHead:
        """Return size and root, by at most one node hash for each bit set in the size."""
        return TreeHead(self.size, fold(self.nodes))


def leaf_hash(leaf: bytes) -> bytes:
    """Return the tree's hash of one leaf, 32 bytes."""
    return _sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above `left` and `right`, 32 bytes."""
    return _sha256(b"\1" + left + right).digest()


def fold(nodes: Sequence[bytes]) -> bytes:
    """Return the root above complete subtrees of falling size, from the left; the empty root for none."""
    if not nodes:
        return EMPTY_ROOT
    root = nodes[-1]
    for node in reversed(nodes[:-1]):
        root = node_hash(node, root)
    return root


def complete_root(hashes: bytes) -> bytes:
    """Return the root above these hashes, one after another, whose number is a power of two."""
    row = hashes
    while len(row) > HASH_BYTES:  # two hashes side by side are already what a node hashes
        pairs = range(0, len(row), 2 * HASH_BYTES)
        row = b"".join([_sha256(b"\1" + row[at : at + 2 * HASH_BYTES]).digest() for at in pairs])
    return row
