"""Manifests: one form, bound to order and place, opened by their own key for their own datasite."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.object import manifest as module
from syftmesh_core.object.chunk import MAX_CHUNK_BYTES, ChunkSecret
from syftmesh_core.object.manifest import (
    MAX_CHUNKS,
    Manifest,
    open_manifest,
    reseal_manifest,
    seal_manifest,
)
from syftmesh_core.object.pack import MAX_PACK_BYTES, ChunkRef


def chunk(number: int, *, size: int = 10, offset: int = 0) -> ChunkRef:
    named = bytes([number]) * 32
    return ChunkRef(b"p" * 32, offset, ChunkSecret(named, size, named))


def made(*chunks: ChunkRef) -> Manifest:
    return Manifest(sum(ref.secret.plain_bytes for ref in chunks), b"d" * 32, 0o644, 7, chunks)


def item(ref: ChunkRef, **changed: object) -> list:
    secret = ref.secret
    fields = {"pack": ref.pack_id, "offset": ref.offset, "length": secret.plain_bytes + 16}
    fields |= {"address": secret.address, "plain": secret.plain_bytes, "key": secret.key}
    return list((fields | changed).values())


def body(*, suite: int = 1, size: int = 20, mode: int = 0o644, items: list | None = None) -> bytes:
    chunks = [item(chunk(1)), item(chunk(2))] if items is None else items
    return encode("manifest", [suite, size, b"d" * 32, mode, 7, chunks])


def sealed_by_hand(data: bytes, site: str, *, length: int | None = None, padded: int = 1024) -> bytes:
    """Seal what no honest writer would, under a key of zeros."""
    key = bytes(32)
    plain = (len(data) if length is None else length).to_bytes(8, "big") + data
    plain += bytes(padded - len(plain))
    commitment = hashlib.sha256(encode("manifest-commitment", [1, key])).digest()
    return commitment + AESGCM(key).encrypt(bytes(12), plain, encode("manifest-body", [site, 1]))


def refused(blob: bytes, site: str, key: bytes = bytes(32)) -> bool:
    with pytest.raises(IntegrityFailure) as caught:
        open_manifest(blob, site=site, content_key=key)
    return caught.value.reason == "MANIFEST_INVALID"


refs = st.builds(
    ChunkRef,
    st.binary(min_size=32, max_size=32),
    st.integers(0, MAX_PACK_BYTES - MAX_CHUNK_BYTES - 16),
    st.builds(
        ChunkSecret,
        st.binary(min_size=32, max_size=32),
        st.integers(1, MAX_CHUNK_BYTES),
        st.binary(min_size=32, max_size=32),
    ),
)


@given(st.lists(refs, min_size=1, max_size=12, unique_by=lambda ref: ref.secret.key), st.integers(0, 0o777))
@settings(max_examples=50, deadline=None)
def test_what_is_sealed_opens_as_it_was_in_order_and_place(site, chunks, mode):
    manifest = replace(made(*chunks), mode=mode)
    sealed = seal_manifest(manifest, site=site)
    assert open_manifest(sealed.blob, site=site, content_key=sealed.content_key) == manifest


def test_each_version_has_a_key_of_its_own_and_shows_none(site):
    one, two = (seal_manifest(made(chunk(1)), site=site) for _ in range(2))
    assert one.content_key != two.content_key
    assert one.blob != two.blob
    assert str(one.content_key) not in repr(one)


def test_files_of_few_chunks_have_manifests_of_one_size(site):
    sizes = {len(seal_manifest(made(*map(chunk, range(1, n))), site=site).blob) for n in range(2, 6)}
    assert sizes == {32 + 1024 + 16}


def test_a_lost_manifest_is_sealed_again_byte_for_byte_and_never_another(site):
    sealed = seal_manifest(made(chunk(1)), site=site)
    known = {"site": site, "content_key": sealed.content_key}
    object_id = hashlib.sha256(sealed.blob).digest()
    assert reseal_manifest(made(chunk(1)), **known, object_id=object_id) == sealed.blob
    for other, change in ((made(chunk(2)), {}), (made(chunk(1)), {"content_key": b"short"})):
        with pytest.raises(IntegrityFailure):
            reseal_manifest(other, **(known | change), object_id=object_id)


def test_every_damaged_byte_truncation_and_surplus_is_refused(site):
    sealed = seal_manifest(made(chunk(1), chunk(2)), site=site)
    for at in range(len(sealed.blob)):
        damaged = bytearray(sealed.blob)
        damaged[at] ^= 1 << at % 8
        assert refused(bytes(damaged), site, sealed.content_key)
    for blob in (b"", sealed.blob[:-1], sealed.blob + b"\0", sealed.blob[:47]):
        assert refused(blob, site, sealed.content_key)


def test_another_key_or_datasite_is_refused(site):
    sealed = seal_manifest(made(chunk(1)), site=site)
    assert refused(sealed.blob, site)
    assert refused(sealed.blob, site, sealed.content_key[:16])
    assert refused(sealed.blob, "bob@x.example", sealed.content_key)


def test_a_manifest_by_hand_opens_so_that_the_refusals_below_say_something(site):
    assert open_manifest(sealed_by_hand(body(), site), site=site, content_key=bytes(32)) == made(
        chunk(1), chunk(2)
    )


@pytest.mark.parametrize(
    "data",
    [
        body(suite=2),
        body(size=21),
        body(mode=0o1000),
        body() + b"\0",
        body()[:-1],
        body(items=[item(chunk(1))[:5], item(chunk(2))]),
        body(items=[[*item(chunk(1)), b""], item(chunk(2))]),
        body(items=[item(chunk(1), length=25), item(chunk(2))]),
        body(items=[item(chunk(1), plain=0, length=16), item(chunk(2), plain=20, length=36)]),
        body(items=[item(chunk(1), offset=MAX_PACK_BYTES - 25), item(chunk(2))]),
        body(items=[item(chunk(1), offset=b"\0" * 7), item(chunk(2))]),
        body(items=[item(chunk(1), pack=b"p" * 31), item(chunk(2))]),
        body(items=[item(chunk(1), address=b"a" * 33), item(chunk(2))]),
        body(items=[item(chunk(1), key=b"k" * 16), item(chunk(2))]),
        body(items=[item(chunk(1)), item(chunk(2), key=bytes([1]) * 32)]),
        body(size=0, items=[]),
        encode("record", [1]),
    ],
    ids=[
        "another suite",
        "another size",
        "set-id mode",
        "surplus",
        "cut short",
        "five fields",
        "seven fields",
        "wrong length",
        "empty chunk",
        "beyond the pack",
        "short integer",
        "short pack id",
        "long address",
        "short key",
        "one key twice",
        "digest of no content",
        "another label",
    ],
)
def test_a_genuine_seal_over_what_is_no_manifest_is_refused(site, data):
    assert refused(sealed_by_hand(data, site), site)


@pytest.mark.parametrize(
    "changed",
    [
        {"length": len(body()) + 1},
        {"length": 1 << 63},
        {"length": len(body()) - 1},
        {"padded": 1025},
        {"padded": 2048},
    ],
)
def test_one_manifest_has_one_sealed_form(site, changed):
    assert refused(sealed_by_hand(body(), site, **changed), site)


def test_padding_that_is_not_zero_is_refused(site):
    data = body() + b"\0" * 8 + b"\1"
    assert refused(sealed_by_hand(data, site, length=len(body())), site)


def test_swapped_chunks_are_another_manifest(site):
    one, two = made(chunk(1), chunk(2)), made(chunk(2), chunk(1))
    key = seal_manifest(one, site=site, random=bytes).blob
    assert key != seal_manifest(two, site=site, random=bytes).blob
    assert one != two


def test_an_empty_file_has_no_chunks_and_the_digest_of_nothing(site, storing):
    manifest = storing([]).manifest
    sealed = seal_manifest(manifest, site=site)
    assert open_manifest(sealed.blob, site=site, content_key=sealed.content_key) == manifest
    with pytest.raises(InvalidInput):
        replace(manifest, content_blake3=b"d" * 32)


def test_one_chunk_may_stand_in_a_file_twice():
    assert made(chunk(1), chunk(1), chunk(1, offset=500)).size_bytes == 30


@pytest.mark.parametrize(
    "changed", [{"mode": -1}, {"mtime_ms": -1}, {"mtime_ms": 1 << 64}, {"size_bytes": 9}]
)
def test_a_field_beyond_its_form_is_refused_when_written(changed):
    with pytest.raises(InvalidInput) as caught:
        replace(made(chunk(1)), **changed)
    assert caught.value.reason == "MANIFEST_REFUSED"


def test_chunks_are_limited_and_the_longest_manifest_is_counted_right():
    with pytest.raises(LimitExceeded) as caught:
        Manifest(0, b"d" * 32, 0, 0, (chunk(1),) * (MAX_CHUNKS + 1))
    assert caught.value.reason == "MANIFEST_TOO_LARGE"
    largest = encode("manifest", [1, 0, b"d" * 32, 0, 0, [item(chunk(1))] * 10])
    assert len(largest) - len(encode("manifest", [1, 0, b"d" * 32, 0, 0, []])) == 10 * module._ITEM_BYTES
