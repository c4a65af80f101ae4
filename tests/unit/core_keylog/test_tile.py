"""Tiles: what growth writes, what proofs read, and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.merkle import MAX_SIZE
from syftmesh_core.keylog.plan import Node, consistency_ranges, inclusion_ranges
from syftmesh_core.keylog.proof import consistency_proof, inclusion_proof, root_of
from syftmesh_core.keylog.tile import Tile, TileNodes, grow, parse_tile_path, tiles_for

LARGE = 256 * 256 + 700
"""Leaves of a tree with three levels of tiles."""


@pytest.fixture(scope="module")
def large(grown):
    return grown(number.to_bytes(4, "big") for number in range(LARGE))


@given(st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_tiles_are_the_same_however_a_log_grew(grown, tree, counts):
    data = [f"{number}".encode() for number in range(sum(counts))]
    once = grown(data)
    steps, size = grown([]).store, 0
    for count in counts:
        size = steps.grow(size, [merkle.leaf_hash(each) for each in data[size : size + count]])
    assert once.store.tiles.items() <= steps.tiles.items()
    assert root_of(size, TileNodes(size, steps)) == once.head().root


def test_upper_tiles_hold_the_roots_of_full_tiles_below(large):
    below = large.store.tiles[Tile(0, 255)]
    assert large.store.tiles[Tile(1, 0)][-32:] == merkle.complete_root(below)
    assert large.store.tiles[Tile(2, 0, 1)] == merkle.complete_root(large.store.tiles[Tile(1, 0)])
    assert root_of(LARGE, large.nodes()) == large.head().root


def test_growing_by_one_writes_one_tile_of_each_level_that_changes(memory_tiles):
    written = []
    for size in range(512):
        before = memory_tiles.reads
        tiles = grow(size, [bytes(32)], memory_tiles)
        assert memory_tiles.reads - before <= len(tiles) <= 2
        memory_tiles.tiles.update(tiles)
        written += [tile for tile, _ in tiles]
    assert [tile for tile in written if tile.level == 1] == [Tile(1, 0, 1), Tile(1, 0, 2)]
    assert len(written) == len(set(written)) == 514


@given(st.data())
def test_proof_reads_exactly_the_tiles_planned_for_it(large, data):
    second = data.draw(st.integers(1, LARGE))
    first = data.draw(st.integers(0, second - 1))
    for ranges, proof in ((inclusion_ranges, inclusion_proof), (consistency_ranges, consistency_proof)):
        planned = tiles_for(ranges(first, second), LARGE)
        fetched = type(large.store)({tile: large.store.tiles[tile] for tile in planned})
        assert proof(first, second, TileNodes(LARGE, fetched)) == proof(first, second, large.nodes())
        assert fetched.reads == len(planned) <= 5


def test_proofs_for_older_sizes_need_no_tile_of_that_time(large):
    names = {tile.path for tile in tiles_for([(0, 300)], LARGE)}
    assert names == {"tile/0/001", "tile/1/000"}
    assert root_of(300, large.nodes()) == large.head(300).root


def test_damaged_tile_is_refused(large):
    for content in (b"", bytes(31), large.store.tiles[Tile(0, 0)] + bytes(32)):
        store = type(large.store)({**large.store.tiles, Tile(0, 0): content})
        with pytest.raises(IntegrityFailure) as caught:
            inclusion_proof(0, LARGE, TileNodes(LARGE, store))
        assert caught.value.reason == "LOG_TILE_INVALID"
        assert caught.value.metadata["tile"] == "tile/0/000"


def test_damaged_partial_tile_stops_growth(memory_tiles):
    memory_tiles.grow(0, [bytes(32)] * 3)
    memory_tiles.tiles[Tile(0, 0, 3)] = bytes(64)
    with pytest.raises(IntegrityFailure) as caught:
        memory_tiles.grow(3, [bytes(32)])
    assert caught.value.reason == "LOG_TILE_INVALID"


@pytest.mark.parametrize(("size", "hashes"), [(-1, [bytes(32)]), (0, [bytes(31)]), (MAX_SIZE, [bytes(32)])])
def test_log_cannot_grow_by_that(memory_tiles, size, hashes):
    with pytest.raises(InvalidInput) as caught:
        grow(size, hashes, memory_tiles)
    assert caught.value.reason == "LOG_SIZE_INVALID"


def test_node_that_is_not_complete_yet_is_refused(large):
    for node in (Node(0, LARGE), Node(16, 1), Node(17, 0), Node(63, 0)):
        with pytest.raises(InvalidInput) as caught:
            large.nodes().node(node)
        assert caught.value.reason == "LOG_SIZE_INVALID"


@given(st.integers(0, 63), st.integers(0, MAX_SIZE), st.integers(1, 256))
def test_name_of_a_tile_leads_back_to_it(level, index, width):
    tile = Tile(level, index, width)
    assert parse_tile_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/99/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/007",
        "tile/0/000.p/",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/0/../000",
        "tile/8/000/tile",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/\u0660\u0660\u0660",
        "tile/entries/000",
    ],
)
def test_other_names_are_no_tiles(path):
    with pytest.raises(InvalidInput) as caught:
        parse_tile_path(path)
    assert caught.value.reason == "LOG_TILE_INVALID"
