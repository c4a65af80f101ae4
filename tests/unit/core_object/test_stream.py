"""Files as streams: what went in comes out, in the memory of three chunks, and nothing else comes out."""

from __future__ import annotations

import tracemalloc
import weakref
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, LimitExceeded, WrongState
from syftmesh_core.object.chunk import MAX_CHUNK_BYTES, ChunkCipher
from syftmesh_core.object.pack import MAX_PACK_BYTES, reads_of
from syftmesh_core.object.stream import FileOpener, FileSealer, PackRun, open_file, seal_file

CHUNKS = [b"one" * 100, b"two" * 200, b"three" * 300]


@pytest.fixture(scope="module")
def stored(storing):
    return storing(CHUNKS)


def opened(stored, sealed, site: str) -> bytes:
    return b"".join(map(bytes, open_file(sealed, FileOpener(stored.manifest, ChunkCipher(site)))))


@given(st.lists(st.binary(min_size=1, max_size=500), max_size=12))
@settings(max_examples=40, deadline=None)
def test_content_comes_back_through_packs_and_reads(site, storing, chunks):
    stored = storing(chunks)
    fetched = (
        view
        for read in reads_of(stored.manifest.chunks)
        for view in read.cut(stored.packs[read.pack_id][read.start : read.stop])
    )
    assert opened(stored, fetched, site) == b"".join(chunks)
    assert all(len(data) == 16384 for data in stored.packs.values())


def test_large_content_fills_pack_after_pack(site, storing):
    chunks = [bytes([n]) * MAX_CHUNK_BYTES for n in range(5)]
    stored = storing(chunks)
    assert len(stored.packs) == 2
    assert max(map(len, stored.packs.values())) <= MAX_PACK_BYTES
    assert opened(stored, stored.sealed(), site) == b"".join(chunks)


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2, 1], [2, 1, 0], [0, 0, 1], [1, 1, 2]])
def test_chunks_in_another_order_are_refused(site, stored, order):
    sealed = stored.sealed()
    with pytest.raises(IntegrityFailure) as caught:
        opened(stored, [sealed[n] for n in order], site)
    assert caught.value.reason == "CHUNK_INVALID"


@pytest.mark.parametrize(
    ("count", "reason"), [(0, "CONTENT_INVALID"), (2, "CONTENT_INVALID"), (4, "CHUNK_INVALID")]
)
def test_a_chunk_too_few_or_too_many_is_refused(site, stored, count, reason):
    sealed = stored.sealed()
    with pytest.raises(IntegrityFailure) as caught:
        opened(stored, [*sealed, sealed[0]][:count], site)
    assert caught.value.reason == reason


def test_what_is_missing_is_counted(site, stored):
    with pytest.raises(IntegrityFailure) as caught:
        opened(stored, stored.sealed()[:1], site)
    assert caught.value.metadata == {"missing": "2"}


def test_chunks_of_any_size_follow_each_other_and_a_too_long_one_changes_nothing(site, storing):
    chunks = [bytes([n]) * size for n, size in enumerate((10, 5000, 1, 9000, MAX_CHUNK_BYTES, 3))]
    stored = storing(chunks)
    assert opened(stored, stored.sealed(), site) == b"".join(chunks)
    run = PackRun()
    sealer = FileSealer(ChunkCipher(site), run)
    with pytest.raises(LimitExceeded):
        sealer.seal(bytes(MAX_CHUNK_BYTES + 1))
    sealer.seal(b"content")
    run.close()
    assert sealer.manifest(mode=0, mtime_ms=0).size_bytes == 7


def test_a_chunk_of_another_file_or_datasite_is_refused(site, storing, stored):
    for other in (storing(CHUNKS, name="other"), storing(CHUNKS, site="bob@x.example")):
        with pytest.raises(IntegrityFailure) as caught:
            opened(stored, other.sealed(), site)
        assert caught.value.reason == "CHUNK_INVALID"
    foreign = storing(CHUNKS, site="bob@x.example")
    with pytest.raises(IntegrityFailure):
        opened(foreign, foreign.sealed(), site)


def test_a_manifest_whose_digest_is_not_that_of_its_chunks_is_refused_at_the_end(site, stored):
    wrong = replace(stored.manifest, content_blake3=b"d" * 32)
    opener = FileOpener(wrong, ChunkCipher(site))
    with pytest.raises(IntegrityFailure) as caught:
        list(open_file(stored.sealed(), opener))
    assert caught.value.reason == "CONTENT_INVALID"


def test_a_manifest_waits_for_its_packs(site):
    run = PackRun()
    sealer = FileSealer(ChunkCipher(site), run)
    list(seal_file([b"content"], sealer))
    with pytest.raises(WrongState) as caught:
        sealer.manifest(mode=0, mtime_ms=0)
    assert caught.value.reason == "PACK_OPEN"
    assert run.close() is not None
    assert run.close() is None
    assert sealer.manifest(mode=0, mtime_ms=0).size_bytes == 7


def test_small_files_share_a_pack(site):
    run, cipher = PackRun(), ChunkCipher(site)
    sealers = [FileSealer(cipher, run) for _ in range(3)]
    packs = {piece.pack for sealer in sealers for piece in seal_file([b"x" * 4096], sealer)}
    run.close()
    places = [sealer.manifest(mode=0, mtime_ms=0).chunks[0] for sealer in sealers]
    assert len(packs) == len({place.pack_id for place in places}) == 1
    assert [place.offset for place in places] == [0, 4112, 8224]


def test_stored_chunks_are_taken_over_and_only_what_changed_is_sealed(site, stored):
    run = PackRun()
    sealer = FileSealer(ChunkCipher(site), run)
    old = stored.manifest.chunks
    sealer.reuse(CHUNKS[0], old[0])
    pieces = sealer.seal(b"inserted")
    sealer.reuse(CHUNKS[2], old[2])
    sealed = bytes(pieces[0].data)
    run.close()
    manifest = sealer.manifest(mode=0, mtime_ms=0)
    assert (manifest.chunks[0], manifest.chunks[2]) == (old[0], old[2])
    before = stored.sealed()
    content = open_file([before[0], sealed, before[2]], FileOpener(manifest, ChunkCipher(site)))
    assert b"".join(map(bytes, content)) == CHUNKS[0] + b"inserted" + CHUNKS[2]


def test_a_stored_chunk_of_another_length_is_not_taken_over(site, stored):
    with pytest.raises(IntegrityFailure):
        FileSealer(ChunkCipher(site), PackRun()).reuse(b"short", stored.manifest.chunks[0])


class Counted(bytearray):
    """A chunk whose life can be watched."""

    alive = 0
    most = 0

    @classmethod
    def copies(cls, chunks):
        for chunk in chunks:
            copy = cls(chunk)
            weakref.finalize(copy, cls._died)
            cls.alive += 1
            cls.most = max(cls.most, cls.alive)
            yield copy
            del copy

    @classmethod
    def _died(cls) -> None:
        cls.alive -= 1


@pytest.fixture
def counted():
    Counted.alive = Counted.most = 0
    tracemalloc.start()
    yield Counted
    tracemalloc.stop()


def test_sealing_holds_at_most_three_chunks(site, counted):
    run = PackRun(random=bytes)
    source = [bytes(MAX_CHUNK_BYTES)] * 6
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    written = sum(
        len(piece.data) for piece in seal_file(counted.copies(source), FileSealer(ChunkCipher(site), run))
    )
    assert written >= 6 * MAX_CHUNK_BYTES
    assert counted.most == 1
    assert tracemalloc.get_traced_memory()[1] - before < 2.5 * MAX_CHUNK_BYTES


def test_opening_holds_at_most_three_chunks(site, storing, counted):
    stored = storing([bytes([n]) * MAX_CHUNK_BYTES for n in range(4)])
    views = [memoryview(stored.packs[ref.pack_id])[ref.offset : ref.end] for ref in stored.manifest.chunks]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    content = open_file(counted.copies(views), FileOpener(stored.manifest, ChunkCipher(site)))
    assert sum(map(len, content)) == 4 * MAX_CHUNK_BYTES
    assert counted.most <= 2
    assert tracemalloc.get_traced_memory()[1] - before < 3.1 * MAX_CHUNK_BYTES
