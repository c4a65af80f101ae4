"""Proofs in a key log of a million entries: made out of tiles in memory, and verified as a client does."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.measure import Row, alone, percentile
from syftmesh_core.keylog.merkle import TreeHead
from syftmesh_core.keylog.proof import (
    consistency_proof,
    inclusion_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from syftmesh_core.keylog.tile import Tile, TileNodes, grow

ENTRIES: Final = 1_000_000
PROOFS: Final = 200
LIMIT_MS: Final = 1.0
LIMIT_TILES: Final = 5

Work = Callable[[int], Any]


async def check(_folder: Path, count: int) -> list[Row]:
    """Make and verify proofs of random places, with tiles read anew for each."""
    log = _Log.of(ENTRIES)
    source = random.Random(7)  # noqa: S311 - the same places every time
    places = source.sample(range(1, ENTRIES), PROOFS)
    head = TreeHead(ENTRIES, root_of(ENTRIES, log.nodes()))
    included = {place: inclusion_proof(place, ENTRIES, log.nodes()) for place in places}
    grown = {place: consistency_proof(place, ENTRIES, log.nodes()) for place in places}
    heads = {place: TreeHead(place, root_of(place, log.nodes())) for place in places}
    works: dict[str, Work] = {
        "inclusion proof": lambda place: inclusion_proof(place, ENTRIES, log.nodes()),
        "consistency proof": lambda place: consistency_proof(place, ENTRIES, log.nodes()),
        "verifying an inclusion": lambda at: verify_inclusion(log.hash(at), at, included[at], head),
        "verifying a consistency": lambda at: verify_consistency(heads[at], head, grown[at]),
        "appending an entry": lambda _: grow(ENTRIES, [bytes(32)], log),
    }
    rows = [
        alone(f"{what} in a key log of a million entries, p95", "ms", _samples(work, places, count), LIMIT_MS)
        for what, work in works.items()
    ]
    reads = [log.reads_of(works["inclusion proof"], place) for place in places]
    tiles = "tiles read for an inclusion proof in a million entries, most"
    return [*rows, alone(tiles, "tiles", reads, LIMIT_TILES, highest=True)]


def _samples(work: Work, places: list[int], count: int) -> list[float]:
    return [percentile([_time_ms(work, place) for place in places], 0.95) for _ in range(count)]


def _time_ms(work: Work, place: int) -> float:
    started = time.perf_counter()
    work(place)
    return (time.perf_counter() - started) * 1e3


@dataclass
class _Log:
    """Tiles in memory, and how many were read."""

    tiles: dict[Tile, bytes] = field(default_factory=dict)
    reads: int = 0

    @classmethod
    def of(cls, size: int) -> _Log:
        log = cls()
        hashes = [hashlib.sha256(b"\0" + place.to_bytes(32, "big")).digest() for place in range(size)]
        log.tiles.update(grow(0, hashes, log))
        return log

    def read(self, tile: Tile) -> bytes:
        self.reads += 1
        return self.tiles[tile]

    def nodes(self) -> TileNodes:
        return TileNodes(ENTRIES, self)

    def hash(self, place: int) -> bytes:
        """Return the leaf hash at `place`."""
        return hashlib.sha256(b"\0" + place.to_bytes(32, "big")).digest()

    def reads_of(self, work: Work, place: int) -> int:
        """Return how many tiles `work` reads."""
        before = self.reads
        work(place)
        return self.reads - before
