"""Packs show nothing of where chunks end, and reads give the chunks asked for."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, WrongState
from syftmesh_core.object.chunk import MAX_CHUNK_BYTES, ChunkSecret
from syftmesh_core.object.pack import (
    MAX_PACK_BYTES,
    MAX_READ_BYTES,
    READ_BYTES,
    ChunkRef,
    PackBuilder,
    reads_of,
)
from syftmesh_core.padding import padme

PACK, OTHER = b"p" * 32, b"o" * 32


def ref(offset: int, sealed_bytes: int, pack_id: bytes = PACK) -> ChunkRef:
    return ChunkRef(pack_id, offset, ChunkSecret(bytes(32), sealed_bytes - 16, bytes(32)))


def test_a_pack_is_its_chunks_and_random_padding_under_its_sha256(drbg):
    pack = PackBuilder(random=drbg("padding"))
    assert [pack.add(b"a" * 100), pack.add(b"b" * 50)] == [0, 100]
    padding = pack.close()
    assert pack.size_bytes == 150 + len(padding) == 16384
    assert pack.pack_id == hashlib.sha256(b"a" * 100 + b"b" * 50 + padding).digest()
    assert len(set(padding)) == 256


@given(size=st.integers(0, MAX_PACK_BYTES))
@settings(max_examples=30, deadline=None)
def test_padded_sizes_are_classes_and_never_beyond_the_limit(size):
    pack = PackBuilder(random=bytes)
    pack.add(memoryview(ZEROS)[:size])
    pack.close()
    assert pack.size_bytes == padme(max(size, 16384)) <= MAX_PACK_BYTES


ZEROS = bytes(MAX_PACK_BYTES)


def test_a_full_pack_refuses_the_next_chunk_and_stays_as_it_is():
    pack = PackBuilder()
    pack.add(memoryview(ZEROS)[16:])
    assert not pack.has_room(1)
    with pytest.raises(LimitExceeded) as caught:
        pack.add(bytes(17))
    assert caught.value.reason == "PACK_FULL"
    assert pack.add(bytes(16)) == MAX_PACK_BYTES - 16


def test_an_open_pack_has_no_id_and_a_closed_one_takes_nothing():
    pack = PackBuilder()
    with pytest.raises(WrongState) as caught:
        _ = pack.pack_id
    assert caught.value.reason == "PACK_OPEN"
    pack.close()
    for action in (pack.close, lambda: pack.add(b"x")):
        with pytest.raises(WrongState) as caught:
            action()
        assert caught.value.reason == "PACK_CLOSED"
    assert not pack.has_room(1)


@pytest.mark.parametrize("offset", [-1, MAX_PACK_BYTES - 99, 1 << 63])
def test_a_chunk_beyond_its_pack_is_refused(offset):
    with pytest.raises(InvalidInput):
        ref(offset, 100)


def test_neighbours_are_read_together_in_aligned_reads():
    (read,) = reads_of([ref(300_000, 1000), ref(301_000, 500_000)])
    assert (read.start, read.stop, len(read.chunks)) == (READ_BYTES, 4 * READ_BYTES, 2)


def test_another_pack_an_earlier_place_or_a_far_one_is_a_read_of_its_own():
    chunks = [
        ref(0, 100),
        ref(0, 100, OTHER),
        ref(500, 100, OTHER),
        ref(100, 100, OTHER),
        ref(3 << 20, 100, OTHER),
    ]
    reads = list(reads_of(chunks))
    assert [len(read.chunks) for read in reads] == [1, 2, 1, 1]
    assert [read.pack_id for read in reads] == [PACK, OTHER, OTHER, OTHER]


def test_the_largest_chunk_wherever_it_lies_fits_the_longest_read():
    size = MAX_CHUNK_BYTES + 16
    spans = [
        read.stop - read.start
        for offset in (0, 1, READ_BYTES - 17, READ_BYTES - 16, READ_BYTES - 1)
        for read in reads_of([ref(offset, size)])
    ]
    assert max(spans) == MAX_READ_BYTES


@st.composite
def packed(draw):
    """A pack's chunks in order, some left out and some turned round."""
    refs, at = [], 0
    for size in draw(st.lists(st.integers(17, 700_000), min_size=1, max_size=20)):
        refs.append(ref(at, size))
        at += size
    return at, draw(st.permutations(refs) if draw(st.booleans()) else st.just(refs))


@given(packed(), st.integers(0, MAX_READ_BYTES))
@settings(max_examples=60, deadline=None)
def test_reads_give_every_chunk_in_order_aligned_and_bounded(pack, limit):
    size, chunks = pack
    reads = list(reads_of(chunks, max_read_bytes=limit))
    assert [chunk for read in reads for chunk in read.chunks] == list(chunks)
    for read in reads:
        assert read.start % READ_BYTES == read.stop % READ_BYTES == 0
        assert len(read.chunks) == 1 or read.stop - read.start <= limit
        assert all(one.end <= two.offset for one, two in pairwise(read.chunks))
        data = memoryview(ZEROS)[read.start : min(read.stop, padme(size))]
        assert [len(view) for view in read.cut(data)] == [chunk.sealed_bytes for chunk in read.chunks]


@pytest.mark.parametrize("size", [0, 149, READ_BYTES + 1])
def test_a_read_with_another_length_than_possible_is_refused(size):
    (read,) = reads_of([ref(0, 50), ref(50, 100)])
    with pytest.raises(IntegrityFailure) as caught:
        list(read.cut(bytes(size)))
    assert caught.value.reason == "PACK_DAMAGED"
    assert [len(view) for view in read.cut(bytes(150))] == [50, 100]
