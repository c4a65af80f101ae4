"""Signed records of files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.record import (
    MAX_RECORD_BYTES,
    ContentHeader,
    FileRecord,
    SignedRecord,
    content_digest,
    encode_content,
    parse_record,
    record_digest,
    sign_record,
    verify_record,
    verify_replaces,
)

PLAIN = ContentHeader(
    sealed=False, object_id="ab" * 32, stored_size_bytes=5, plain_blake3=bytes(32), plain_size_bytes=5
)
SEALED = ContentHeader(sealed=True, object_id="cd" * 32, stored_size_bytes=1 << 20)


def record_of(content=PLAIN, **changes) -> FileRecord:
    fields = {
        "site": "bob@x.example",
        "path": "public/h\u00e9llo.txt",
        "revision": 1,
        "previous_digest": None,
        "content_digest": None if content is None else content_digest(content),
        "epoch": 3,
        "deleted": content is None,
        "rules_checkpoint": b"\7" * 32,
        "author": "alice@x.example",
        "device_id": "alice-1",
        "created_ms": 1_700_000_000_000,
    }
    return FileRecord(**{**fields, **changes})


def refused(call, *args) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        call(*args)
    assert caught.value.reason == "RECORD_INVALID"


@pytest.fixture(scope="module")
def signed(alice) -> SignedRecord:
    return sign_record(record_of(), PLAIN, alice.secret)


@pytest.mark.parametrize("content", [PLAIN, SEALED])
def test_record_round_trips(alice, content):
    signed = sign_record(record_of(content), content, alice.secret)
    assert verify_record(signed, alice.public) == (record_of(content), content)
    assert parse_record(signed) == (record_of(content), content)
    assert len(record_digest(signed)) == 32


def test_tombstone_replaces_a_record_and_has_no_content(alice, signed):
    gone = record_of(None, revision=2, previous_digest=record_digest(signed))
    tombstone = sign_record(gone, None, alice.secret)
    assert tombstone.content == b""
    assert verify_record(tombstone, alice.public) == (gone, None)
    verify_replaces(tombstone, signed)


def test_only_the_next_revision_of_the_same_path_replaces(alice, signed):
    verify_replaces(signed, None)
    good = record_of(SEALED, revision=2, previous_digest=record_digest(signed))
    verify_replaces(sign_record(good, SEALED, alice.secret), signed)
    for changes in (
        {"revision": 3},
        {"previous_digest": b"\1" * 32},
        {"path": "other"},
        {"site": "carol@x.example"},
    ):
        refused(verify_replaces, sign_record(replace(good, **changes), SEALED, alice.secret), signed)
    refused(verify_replaces, sign_record(good, SEALED, alice.secret), None)
    refused(verify_replaces, signed, signed)


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 0},
        {"revision": 2},
        {"previous_digest": bytes(32)},
        {"deleted": True},
        {"content_digest": None},
        {"content_digest": b"short"},
        {"rules_checkpoint": b"short"},
        {"path": ""},
        {"site": "bob"},
        {"author": "alice"},
        {"device_id": ""},
        {"deleted": True, "content_digest": None},
    ],
)
def test_fields_that_do_not_fit_together_are_refused_on_both_sides(alice, changes):
    with pytest.raises(InvalidInput) as caught:
        record_of(**changes)
    assert caught.value.reason == "RECORD_INVALID"
    names = list(FileRecord.__dataclass_fields__)
    fields = {name: getattr(record_of(), name) for name in names} | changes
    body = encode("record", [fields[name] for name in names])
    content = encode_content(PLAIN) if fields["content_digest"] else b""
    refused(parse_record, SignedRecord(body, content, alice.secret.sign(body)))


@pytest.mark.parametrize(
    "changes",
    [
        {"object_id": "AB" * 32},
        {"object_id": "ab" * 31},
        {"object_id": "ab" * 32 + "\n"},
        {"plain_blake3": None},
        {"plain_size_bytes": None},
        {"plain_blake3": b"short"},
        {"sealed": True},
    ],
)
def test_content_header_that_does_not_fit_is_refused(changes):
    with pytest.raises(InvalidInput):
        replace(PLAIN, **changes)


def test_another_author_content_or_device_is_refused(alice, bob, signed):
    refused(verify_record, signed, bob.public)
    refused(verify_record, signed, replace(alice.public, signing_key=bob.public.signing_key))
    refused(parse_record, replace(signed, content=encode_content(SEALED)))
    refused(parse_record, replace(signed, content=b""))
    with pytest.raises(InvalidInput):
        sign_record(record_of(), SEALED, alice.secret)
    with pytest.raises(InvalidInput):
        sign_record(record_of(), None, alice.secret)
    with pytest.raises(InvalidInput):
        sign_record(record_of(), PLAIN, bob.secret)


def test_record_beyond_four_kib_is_refused(alice, signed):
    with pytest.raises(LimitExceeded) as caught:
        sign_record(record_of(path="p" * 4000), PLAIN, alice.secret)
    assert caught.value.reason == "RECORD_TOO_LARGE"
    longest = sign_record(record_of(path="p" * 3000), PLAIN, alice.secret)
    assert len(longest.record) + len(longest.content) + 64 < MAX_RECORD_BYTES
    refused(parse_record, replace(signed, content=signed.content + bytes(4096)))


@given(st.sampled_from(["record", "content", "signature"]), st.integers(0, 1 << 14))
def test_any_flipped_bit_is_refused(alice, signed, part, bit):
    data = bytearray(getattr(signed, part))
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << (bit % 8)
    refused(verify_record, replace(signed, **{part: bytes(data)}), alice.public)


@given(st.sampled_from(["record", "content", "signature"]), st.integers(0, 1 << 14), st.binary(max_size=2))
def test_any_cut_or_surplus_is_refused(alice, signed, part, cut, tail):
    data = getattr(signed, part)
    changed = data[: cut % (len(data) + 1)] + tail
    if changed != data:
        refused(verify_record, replace(signed, **{part: changed}), alice.public)


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_hostile_bytes_give_only_the_one_error(record, content):
    refused(parse_record, SignedRecord(record, content, bytes(64)))
    refused(parse_record, SignedRecord(b"SyftMesh/v1/record\0" + record, content, bytes(64)))
