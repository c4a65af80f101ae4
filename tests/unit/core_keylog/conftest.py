"""Trees the slow way, tiles in memory, and a count of hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.checkpoint import LogKey, sign_checkpoint
from syftmesh_core.keylog.note import NoteKey
from syftmesh_core.keylog.tile import Tile, TileNodes, grow

SIZE = 300
"""Leaves of the tree that most tests look at: beyond one tile."""

ASSETS = Path(__file__).parents[2] / "assets"


class Naive:
    """RFC 6962 as it is written: recursive, over the data itself, sharing nothing with the code under test."""

    def root(self, data: Sequence[bytes]) -> bytes:
        if not data:
            return hashlib.sha256().digest()
        if len(data) == 1:
            return hashlib.sha256(b"\x00" + data[0]).digest()
        k = self._split(len(data))
        return hashlib.sha256(b"\x01" + self.root(data[:k]) + self.root(data[k:])).digest()

    def inclusion(self, m: int, data: Sequence[bytes]) -> list[bytes]:
        if len(data) == 1:
            return []
        k = self._split(len(data))
        if m < k:
            return [*self.inclusion(m, data[:k]), self.root(data[k:])]
        return [*self.inclusion(m - k, data[k:]), self.root(data[:k])]

    def consistency(self, m: int, data: Sequence[bytes], *, complete: bool = True) -> list[bytes]:
        if m == len(data):
            return [] if complete else [self.root(data)]
        k = self._split(len(data))
        if m <= k:
            return [*self.consistency(m, data[:k], complete=complete), self.root(data[k:])]
        return [*self.consistency(m - k, data[k:], complete=False), self.root(data[:k])]

    def _split(self, n: int) -> int:
        k = 1
        while 2 * k < n:
            k *= 2
        return k


@dataclass
class MemoryTiles:
    """A store of tiles that counts what is read."""

    tiles: dict[Tile, bytes] = field(default_factory=dict)
    reads: int = 0

    def read(self, tile: Tile) -> bytes:
        self.reads += 1
        return self.tiles[tile]

    def grow(self, size: int, hashes: Sequence[bytes]) -> int:
        self.tiles.update(grow(size, hashes, self))
        return size + len(hashes)


@dataclass(frozen=True)
class Tree:
    """A log of some data, with its nodes out of tiles."""

    data: tuple[bytes, ...]
    store: MemoryTiles

    def nodes(self) -> TileNodes:
        return TileNodes(len(self.data), self.store)

    def head(self, size: int | None = None) -> merkle.TreeHead:
        size = len(self.data) if size is None else size
        hashes = (merkle.leaf_hash(each) for each in self.data[:size])
        return merkle.CompactRange().extend(hashes).head()


def tree_of(data: Iterable[bytes]) -> Tree:
    kept = tuple(data)
    store = MemoryTiles()
    store.grow(0, [merkle.leaf_hash(each) for each in kept])
    return Tree(kept, store)


class Hashes:
    """How many hashes were made so far."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: bytes) -> Any:
        self.count += 1
        return hashlib.sha256(data)


@dataclass(frozen=True)
class HeldKey:
    """A key of the log in memory."""

    private: Ed25519PrivateKey
    note_key: NoteKey

    @classmethod
    def of(cls, name: str, seed: bytes) -> HeldKey:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(private, NoteKey(name, private.public_key().public_bytes_raw()))

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


@pytest.fixture(scope="session")
def published() -> Any:
    return json.loads((ASSETS / "keylog_published.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def naive() -> Naive:
    return Naive()


@pytest.fixture(scope="session")
def grown() -> Callable[[Iterable[bytes]], Tree]:
    return tree_of


@pytest.fixture(scope="session")
def tree() -> Tree:
    return tree_of(f"entry {number}".encode() for number in range(SIZE))


@pytest.fixture
def memory_tiles() -> MemoryTiles:
    return MemoryTiles()


@pytest.fixture(scope="session")
def held_key() -> Callable[[str, bytes], HeldKey]:
    return HeldKey.of


@pytest.fixture(scope="session")
def held() -> HeldKey:
    return HeldKey.of("hub.example/keys", bytes(range(32)))


@pytest.fixture(scope="session")
def checkpoint_of(held: HeldKey, log: LogKey) -> Callable[[merkle.TreeHead], bytes]:
    return lambda head: sign_checkpoint(head, log, held)


@pytest.fixture(scope="session")
def log(held: HeldKey) -> LogKey:
    return LogKey("hub.example/keys", held.note_key)


@pytest.fixture(scope="session")
def counted() -> Callable[[], Any]:
    @contextmanager
    def count() -> Iterator[Hashes]:
        hashes = Hashes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merkle, "_sha256", hashes)
            yield hashes

    return count
