"""Chunks open for their datasite only, and only as the chunk that their secret names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.object.chunk import MAX_CHUNK_BYTES, ChunkCipher, ChunkSecret, chunk_address

PLAIN = b"what a chunk holds"


@pytest.fixture
def cipher(site, drbg) -> ChunkCipher:
    return ChunkCipher(site, random=drbg("chunk"))


@pytest.fixture
def sealed(cipher) -> tuple[ChunkSecret, bytes]:
    secret, view = cipher.seal_into(PLAIN, bytearray(64))
    return secret, bytes(view)


def refused(action, *args) -> str:
    with pytest.raises(IntegrityFailure) as caught:
        action(*args)
    return caught.value.reason


@given(plain=st.binary(min_size=1, max_size=300), spare=st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_what_is_sealed_opens_in_buffers_of_any_sufficient_size(site, plain, spare):
    cipher = ChunkCipher(site)
    secret, view = cipher.seal_into(plain, bytearray(len(plain) + 16 + spare))
    assert len(view) == secret.sealed_bytes == len(plain) + 16
    assert cipher.open_into(view, secret, bytearray(len(plain) + spare)) == plain


def test_two_chunks_of_one_plaintext_share_nothing(cipher):
    (one, first), (two, second) = (cipher.seal_into(PLAIN, bytearray(64)) for _ in range(2))
    assert one.key != two.key
    assert bytes(first) != bytes(second)
    assert one.address != two.address


def test_every_flipped_bit_is_refused(cipher, sealed):
    secret, data = sealed
    for at in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        assert refused(cipher.open_into, damaged, secret, bytearray(64)) == "CHUNK_INVALID"


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b""])
def test_another_length_is_refused(cipher, sealed, change):
    secret, data = sealed
    assert refused(cipher.open_into, change(data), secret, bytearray(64)) == "CHUNK_INVALID"


def test_a_chunk_of_another_datasite_is_refused_and_leaves_no_plaintext(sealed):
    secret, data = sealed
    into = bytearray(64)
    assert refused(ChunkCipher("bob@x.example").open_into, data, secret, into) == "CHUNK_INVALID"
    assert into == bytes(64)


def test_a_chunk_under_another_key_is_refused(cipher, sealed):
    secret, data = sealed
    wrong = replace(secret, key=bytes(32))
    assert refused(cipher.open_into, data, wrong, bytearray(64)) == "CHUNK_INVALID"


def test_a_valid_chunk_in_place_of_another_is_refused(cipher, sealed):
    _, other = cipher.seal_into(PLAIN, bytearray(64))
    assert refused(cipher.open_into, bytes(other), sealed[0], bytearray(64)) == "CHUNK_INVALID"


def test_what_another_holder_of_the_key_sealed_is_refused(cipher, sealed, site):
    secret, data = sealed
    forged = AESGCM(secret.key).encrypt(bytes(12), PLAIN[::-1], encode("chunk", [site, 1]))
    assert len(forged) == len(data)
    assert bytes(cipher.decrypt_into(forged, secret, bytearray(64))) == PLAIN[::-1]
    assert refused(cipher.open_into, forged, secret, bytearray(64)) == "CHUNK_INVALID"


def test_a_lost_chunk_is_rebuilt_byte_for_byte(cipher, sealed):
    secret, data = sealed
    assert bytes(cipher.rebuild_into(PLAIN, secret, bytearray(64))) == data


def test_rebuilding_from_another_plaintext_gives_nothing_out(cipher, sealed):
    into = bytearray(64)
    assert refused(cipher.rebuild_into, PLAIN[::-1], sealed[0], into) == "CHUNK_INVALID"
    assert into == bytes(64)


def test_chunks_have_one_byte_to_four_mib(cipher):
    with pytest.raises(InvalidInput, match="at least one byte"):
        cipher.seal_into(b"", bytearray(64))
    with pytest.raises(LimitExceeded) as caught:
        cipher.seal_into(bytes(MAX_CHUNK_BYTES + 1), bytearray(64))
    assert caught.value.reason == "CHUNK_TOO_LARGE"


@pytest.mark.parametrize("into", [bytearray(len(PLAIN) + 15), memoryview(bytes(64))])
def test_a_buffer_without_room_or_read_only_is_refused(cipher, into):
    with pytest.raises(InvalidInput) as caught:
        cipher.seal_into(PLAIN, into)
    assert caught.value.reason == "CHUNK_REFUSED"


@pytest.mark.parametrize(
    ("address", "size", "key"),
    [
        (b"a" * 31, 1, bytes(32)),
        (b"a" * 32, 0, bytes(32)),
        (b"a" * 32, MAX_CHUNK_BYTES + 1, bytes(32)),
        (b"a" * 32, 1, bytes(16)),
    ],
)
def test_a_secret_of_another_form_is_refused(address, size, key):
    with pytest.raises(InvalidInput):
        ChunkSecret(address, size, key)


def test_a_datasite_has_an_address_and_secrets_show_no_key(sealed):
    with pytest.raises(InvalidInput):
        ChunkCipher("nobody")
    assert sealed[0].key.hex() not in repr(sealed[0])
    assert str(sealed[0].key) not in repr(sealed[0])
    assert chunk_address(sealed[1]) == sealed[0].address
