"""Sealed for recipients."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core import sealed_container as box
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.identity import xwing
from syftmesh_core.padding import padme
from syftmesh_core.sealed import SealHeader, _commitment, open_sealed, peek, reseal_keys, seal

KIND, RECEIVER = "rds.submission", "bob@x.example"


def header_of(who, **changes) -> SealHeader:
    header = SealHeader(
        kind=KIND,
        sender_root=who.root.public_key,
        sender=who.secret.principal,
        sender_device=who.secret.device_id,
        receiver=RECEIVER,
        ids=("job-1", "call-1"),
        expires_ms=1000,
    )
    return replace(header, **changes)


def open_as(who, blob, author, **changes):
    arguments = {
        "device": who.secret,
        "sender": author.public,
        "sender_root": author.root.public_key,
        "expect_kind": KIND,
        "expect_receiver": RECEIVER,
        "now_ms": 999,
    }
    return open_sealed(blob, **{**arguments, **changes})


def refused(call, *args, **kwargs) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        call(*args, **kwargs)
    assert caught.value.reason == "SEAL_INVALID"
    assert caught.value.__cause__ is None
    assert caught.value.metadata == {}


@pytest.fixture(scope="module")
def blob(alice, bob) -> bytes:
    return seal(b"secret", header=header_of(alice), readers=[bob.public, alice.public], signer=alice.secret)


@pytest.mark.parametrize("size", [0, 1, 23, 24, 25, 4096, 100_001])
@pytest.mark.parametrize("pad", [0, 16, 1024])
def test_every_reader_opens_the_exact_body(alice, bob, carol, size, pad):
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    blob = seal(
        body,
        header=header_of(alice),
        readers=[carol.public, bob.public],
        signer=alice.secret,
        pad_to_bytes=pad,
    )
    for who in (bob, carol):
        opened = open_as(who, blob, alice)
        assert opened.plaintext == body
        assert opened.header == header_of(alice)
        assert opened.readers == (("carol@x.example", "carol-1"), ("bob@x.example", "bob-1"))


def test_stored_size_shows_a_class_only(alice, bob):
    def size(body: bytes, pad: int = 0) -> int:
        info = peek(
            seal(body, header=header_of(alice), readers=[bob.public], signer=alice.secret, pad_to_bytes=pad)
        )
        assert info.body_bytes == padme(8 + len(body), at_least_bytes=pad)
        return info.blob_bytes

    assert size(bytes(1), 4096) == size(bytes(4000), 4096)
    assert size(bytes(100_000)) == size(bytes(100_300))
    assert size(bytes(8000)) != size(bytes(16_000))


@pytest.mark.parametrize(
    ("size", "padded"), [(0, 0), (1, 1), (9, 10), (100, 104), (1000, 1024), (1 << 20, 1 << 20)]
)
def test_padme_gives_the_sizes_of_its_paper(size, padded):
    assert padme(size) == padded


@given(st.integers(2, 1 << 30))
def test_padme_costs_at_most_twelve_percent_and_is_stable(size):
    assert size <= padme(size) <= size * 1.12
    assert padme(padme(size)) == padme(size)


def test_nothing_secret_is_shown(alice, bob, blob):
    opened = open_as(bob, blob, alice)
    assert "secret" not in repr(opened).replace("SealHeader", "")
    assert b"secret" not in blob


def test_peek_names_readers_without_a_key(blob, alice):
    info = peek(blob)
    assert info.header == header_of(alice)
    assert info.readers == (("bob@x.example", "bob-1"), ("alice@x.example", "alice-1"))
    assert info.blob_bytes == len(blob)


def test_a_device_that_is_no_reader_is_told_so(alice, carol, blob):
    with pytest.raises(PermissionDenied) as caught:
        open_as(carol, blob, alice)
    assert caught.value.reason == "NO_KEY_FOR_DEVICE"


def test_expiry_is_exact_and_told_apart(alice, bob, blob):
    with pytest.raises(IntegrityFailure) as caught:
        open_as(bob, blob, alice, now_ms=1000)
    assert caught.value.reason == "SEAL_EXPIRED"
    endless = seal(b"x", header=header_of(alice, expires_ms=None), readers=[bob.public], signer=alice.secret)
    assert open_as(bob, endless, alice, now_ms=1 << 60).plaintext == b"x"


def test_an_expired_blob_that_is_forged_is_not_called_expired(alice, bob, blob):
    refused(open_as, bob, blob[:-1] + bytes([blob[-1] ^ 1]), alice, now_ms=5000)


def test_another_kind_receiver_sender_or_root_is_refused(alice, bob, carol, blob):
    refused(open_as, bob, blob, alice, expect_kind="rds.result")
    refused(open_as, bob, blob, alice, expect_receiver="carol@x.example")
    refused(open_as, bob, blob, alice, sender_root=carol.root.public_key)
    refused(open_as, bob, blob, carol)
    refused(open_as, bob, blob, alice, sender=replace(alice.public, signing_key=carol.public.signing_key))


def test_nothing_is_unwrapped_before_the_signature_holds(alice, bob, blob, monkeypatch):
    calls = []
    monkeypatch.setattr(xwing, "unwrap", lambda *args: calls.append(args))
    refused(open_as, bob, blob[:-1] + bytes([blob[-1] ^ 1]), alice)
    assert calls == []


@settings(max_examples=300)
@given(st.integers(0, 1 << 20))
def test_any_flipped_bit_is_refused(alice, bob, blob, bit):
    bit %= len(blob) * 8
    changed = bytearray(blob)
    changed[bit // 8] ^= 1 << (bit % 8)
    refused(open_as, bob, bytes(changed), alice)


@given(st.integers(0, 1 << 20), st.binary(max_size=3))
def test_any_cut_or_surplus_is_refused(alice, bob, blob, cut, tail):
    cut %= len(blob)
    refused(open_as, bob, blob[:cut] + tail if blob[:cut] + tail != blob else b"", alice)
    if tail:
        refused(open_as, bob, blob + tail, alice)


@given(st.binary(max_size=400))
def test_hostile_bytes_give_only_the_one_error(data):
    refused(peek, data)
    refused(peek, b"SyftMesh/v1/sealed-object\0" + data)


def forge(who, header, wraps, ciphertext) -> bytes:
    signed = box.signed_bytes(header, wraps, hashlib.sha256(ciphertext).digest())
    return box.write_container(signed, who.secret.sign(signed), bytearray(ciphertext))


def body_of(key, header, padded, *, committed=None) -> bytes:
    sealed = AESGCM(key).encrypt(bytes(12), padded, box.body_data(header))
    return _commitment(committed or key) + sealed


def wrap_for(who, key, header) -> box.Wrap:
    info = box.key_info(header, who.secret.device_id)
    return box.Wrap(who.public.principal, who.public.device_id, xwing.wrap(key, who.public.xwing_key, info))


def test_forge_makes_what_opens_when_nothing_is_wrong(alice, bob):
    header, key = header_of(alice), bytes(32)
    padded = (2).to_bytes(8, "big") + b"ok" + bytes(6)
    blob = forge(alice, header, [wrap_for(bob, key, header)], body_of(key, header, padded))
    assert open_as(bob, blob, alice).plaintext == b"ok"


def test_a_thief_cannot_sign_somebody_elses_body_as_its_own(alice, bob, carol, blob):
    parsed = box.parse_container(blob)
    stolen = forge(carol, header_of(carol), parsed.wraps, bytes(parsed.ciphertext))
    refused(open_as, bob, stolen, carol)


def test_two_readers_cannot_be_given_two_bodies_in_one(alice, bob):
    header, key, other = header_of(alice), bytes(32), b"\1" * 32
    padded = (2).to_bytes(8, "big") + b"ok" + bytes(6)
    wraps = [wrap_for(bob, key, header)]
    refused(open_as, bob, forge(alice, header, wraps, body_of(key, header, padded, committed=other)), alice)


@pytest.mark.parametrize(
    "padded",
    [
        (9).to_bytes(8, "big") + bytes(8),
        b"\xff" * 8 + bytes(8),
        (2).to_bytes(8, "big") + b"ok" + bytes(5) + b"\1",
    ],
)
def test_padding_that_lies_is_refused(alice, bob, padded):
    header, key = header_of(alice), bytes(32)
    blob = forge(alice, header, [wrap_for(bob, key, header)], body_of(key, header, padded))
    refused(open_as, bob, blob, alice)


def test_malformed_readers_are_refused_though_signed(alice, bob):
    header, key = header_of(alice), bytes(32)
    good = wrap_for(bob, key, header)
    ciphertext = body_of(key, header, bytes(16))
    for wraps in ([], [good, good], [replace(good, wrapped=b"short")], [replace(good, device_id="a b")]):
        refused(peek, forge(alice, header, wraps, ciphertext))
    refused(peek, forge(alice, header, [good], bytes(48)))
    wrong_key = replace(good, wrapped=wrap_for(alice, key, header).wrapped)
    refused(open_as, bob, forge(alice, header, [wrong_key], ciphertext), alice)


def test_unknown_suite_is_refused(alice, bob, monkeypatch):
    monkeypatch.setattr(box, "SUITE", 2)
    blob = seal(b"x", header=header_of(alice), readers=[bob.public], signer=alice.secret)
    peek(blob)
    monkeypatch.undo()
    refused(peek, blob)
    refused(open_as, bob, blob, alice)


def test_requests_that_cannot_be_sealed_are_refused(alice, bob):
    def reason(error, body=b"", header=None, readers=None, **more):
        with pytest.raises(error) as caught:
            seal(
                body,
                header=header or header_of(alice),
                readers=[bob.public] if readers is None else readers,
                signer=alice.secret,
                **more,
            )
        return caught.value.reason

    assert reason(InvalidInput, readers=[]) == "SEAL_REFUSED"
    assert reason(InvalidInput, readers=[bob.public, bob.public]) == "SEAL_REFUSED"
    assert reason(InvalidInput, header=header_of(bob)) == "SEAL_REFUSED"
    assert reason(LimitExceeded, readers=[bob.public] * 1025) == "TOO_MANY_READERS"
    assert reason(LimitExceeded, pad_to_bytes=box.MAX_BODY_BYTES + 1) == "SEAL_TOO_LARGE"
    assert reason(LimitExceeded, body=bytes(box.MAX_BODY_BYTES + 1)) == "SEAL_TOO_LARGE"


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": ""},
        {"kind": "k" * 65},
        {"receiver": ""},
        {"receiver": "r" * 2049},
        {"sender_root": b""},
        {"sender": "nobody"},
        {"sender_device": ""},
        {"ids": ("i",) * 17},
        {"ids": ("i" * 257,)},
        {"expires_ms": -1},
    ],
)
def test_header_beyond_its_limits_is_refused(alice, changes):
    with pytest.raises(InvalidInput) as caught:
        header_of(alice, **changes)
    assert caught.value.reason == "SEAL_REFUSED"


def test_largest_body_round_trips(alice, bob):
    body = bytes(box.MAX_BODY_BYTES)
    blob = seal(body, header=header_of(alice), readers=[bob.public], signer=alice.secret)
    assert open_as(bob, blob, alice).plaintext == body


def test_same_body_is_sealed_under_a_fresh_key(alice, bob):
    blobs = [seal(b"x", header=header_of(alice), readers=[bob.public], signer=alice.secret) for _ in range(2)]
    assert box.parse_container(blobs[0]).digest != box.parse_container(blobs[1]).digest


def test_reseal_makes_the_device_the_author_for_new_readers(alice, bob, carol, blob):
    again = reseal_keys(
        blob,
        device=bob.secret,
        sender=alice.public,
        sender_root=alice.root.public_key,
        header=header_of(bob),
        readers=[carol.public],
        now_ms=0,
    )
    assert open_as(carol, again, bob).plaintext == b"secret"
    with pytest.raises(PermissionDenied):
        open_as(alice, again, bob)
