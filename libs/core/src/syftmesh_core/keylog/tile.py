"""Tiles: the tree as immutable objects of 256 hashes, from which any root and proof is made.

Source: C2SP tlog-tiles. The tile of level ``l`` and index ``n`` holds the roots of the subtrees of ``256 **
l`` leaves from ``256 * n`` on; it is called ``tile/<l>/<n>``, and ``tile/<l>/<n>.p/<w>`` while only ``w`` of
its 256 hashes exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.merkle import HASH_BYTES, MAX_SIZE
from syftmesh_core.keylog.plan import Node, Range, complete_subtrees

HEIGHT = 8
"""Levels of the tree in one tile."""

WIDTH = 1 << HEIGHT
"""Hashes of a full tile."""

MAX_LEVEL = 63

_PATH = re.compile(r"tile/(0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """The name of one tile.

    Attributes:
        level: From 0, that of the leaf hashes, to 63.
        index: Which one of its level, from the left.
        width: How many hashes it holds, 1 to 256; below 256 it is partial.

    Raises:
        InvalidInput: LOG_TILE_INVALID for a number beyond its form.
    """

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        fits = 0 <= self.level <= MAX_LEVEL and 0 <= self.index <= MAX_SIZE and 1 <= self.width <= WIDTH
        if not fits:
            raise InvalidInput("There is no such tile of the key log.", reason="LOG_TILE_INVALID")

    @property
    def size_bytes(self) -> int:
        """Size of its content in bytes."""
        return self.width * HASH_BYTES

    @property
    def path(self) -> str:
        """Its name, e.g. ``tile/0/x001/x234/067.p/112``."""
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(reversed(groups))}{partial}"


class TileStore(Protocol):
    """Where tiles are kept, in front of an object store, a folder or a cache."""

    def read(self, tile: Tile) -> bytes:
        """Return the content of `tile`, or raise when it is not there."""
        ...


class TileNodes:
    """The nodes of one tree, out of its tiles: a `proof.NodeSource`.

    Each tile is read once. Proofs for any smaller size can be made of the tiles of this one, which are those
    that remain when partial tiles are removed.

    Args:
        size: Leaves of the tree whose tiles are in the store.
        store: Where they are.
    """

    def __init__(self, size: int, store: TileStore) -> None:
        self._size = size
        self._store = store
        self._read: dict[Tile, bytes] = {}

    def node(self, node: Node) -> bytes:
        """Return the hash of `node`, made by at most 127 hashes out of one tile.

        Raises:
            InvalidInput: LOG_SIZE_INVALID when the tree has no such complete subtree.
            IntegrityFailure: LOG_TILE_INVALID for a tile of another size than its name says.
        """
        tile, start, count = _place(node, self._size)
        content = self._read.get(tile)
        if content is None:
            content = self._read[tile] = read_tile(tile, self._store)
        return merkle.complete_root(content[start * HASH_BYTES : (start + count) * HASH_BYTES])


def read_tile(tile: Tile, store: TileStore) -> bytes:
    """Return the content of `tile`.

    Raises:
        IntegrityFailure: LOG_TILE_INVALID for a content of another size than the name says.
    """
    content = store.read(tile)
    if len(content) != tile.size_bytes:
        raise IntegrityFailure(
            f"The tile {tile.path} of the key log is damaged: it has {len(content)} bytes.",
            reason="LOG_TILE_INVALID",
            metadata={"tile": tile.path, "size_bytes": str(len(content))},
        )
    return content


def grow(size: int, leaf_hashes: Sequence[bytes], store: TileStore) -> list[tuple[Tile, bytes]]:
    """Return the tiles to write when these leaves follow the first `size`: all that are new or longer.

    Only the partial tile of each level that changes is read. A head may be signed once all are written.

    Raises:
        InvalidInput: LOG_SIZE_INVALID for a hash that is not 32 bytes, or a tree beyond the largest.
        IntegrityFailure: LOG_TILE_INVALID for a partial tile of another size than its name says.
    """
    fits = 0 <= size <= MAX_SIZE - len(leaf_hashes)
    if not fits or any(len(each) != HASH_BYTES for each in leaf_hashes):
        raise InvalidInput("The log cannot grow by these leaf hashes.", reason="LOG_SIZE_INVALID")
    written: list[tuple[Tile, bytes]] = []
    level, held, added = 0, size, list(leaf_hashes)
    while added:
        index, width = divmod(held, WIDTH)
        content = read_tile(Tile(level, index, width), store) if width else b""
        content += b"".join(added)
        added = []
        for place, start in enumerate(range(0, len(content), WIDTH * HASH_BYTES)):
            part = content[start : start + WIDTH * HASH_BYTES]
            tile = Tile(level, index + place, len(part) // HASH_BYTES)
            written.append((tile, part))
            if tile.width == WIDTH:
                added.append(merkle.complete_root(part))
        level, held = level + 1, held >> HEIGHT
    return written


def tiles_for(ranges: Iterable[Range], size: int) -> tuple[Tile, ...]:
    """Return the tiles that a proof of these ranges is made of, each once, so that all can be fetched at once.

    Args:
        ranges: Of `plan.inclusion_ranges` or `plan.consistency_ranges`; ``[(0, size)]`` for a root.
        size: Leaves of the tree whose tiles exist, at least as many as the ranges reach.

    Raises:
        InvalidInput: LOG_SIZE_INVALID when the ranges reach beyond the tree.
    """
    nodes = (node for leaves in ranges for node in complete_subtrees(leaves))
    return tuple(dict.fromkeys(_place(node, size)[0] for node in nodes))


def parse_tile_path(path: str) -> Tile:
    """Return the tile of that name.

    Raises:
        InvalidInput: LOG_TILE_INVALID for a name that is not the one form of a tile.
    """
    found = _PATH.fullmatch(path)
    if found is not None:
        level, index, width = found.groups()
        tile = Tile(int(level), int(re.sub("[x/]", "", index)), int(width or WIDTH))
        if tile.path == path:  # neither zeroes in front nor a full tile that is called partial
            return tile
    raise InvalidInput("This is no name of a tile of the key log.", reason="LOG_TILE_INVALID")


def _place(node: Node, size: int) -> tuple[Tile, int, int]:
    """Return the tile that `node` is made of, and which of its hashes: from where, how many."""
    level, height = divmod(node.level, HEIGHT)
    first, count = node.index << height, 1 << height
    existing = size >> (level * HEIGHT)
    if first + count > existing:
        raise InvalidInput(
            f"The log has no such part at size {size}.",
            reason="LOG_SIZE_INVALID",
            metadata={"size": str(size)},
        )
    index, start = divmod(first, WIDTH)
    return Tile(level, index, min(WIDTH, existing - index * WIDTH)), start, count
