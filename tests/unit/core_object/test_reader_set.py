"""Reader sets: one secret for one set, and a public half that only who may grant can sign."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.object.reader_secret import ReaderSecret, ReaderSetId, reader_list_digest
from syftmesh_core.object.reader_set import sign_reader_set, verify_reader_set

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def signed(secret, alice) -> bytes:
    return sign_reader_set(secret, alice.secret)


@pytest.fixture(scope="module")
def public(signed, secret, granters):
    return verify_reader_set(signed, expect=secret.set_id, granters=granters)


def refused(data: bytes, expect: ReaderSetId, granters) -> str:
    with pytest.raises(IntegrityFailure) as caught:
        verify_reader_set(data, expect=expect, granters=granters)
    assert caught.value.reason == "READER_SET_INVALID"
    return caught.value.message


def other_epoch(secret: ReaderSecret) -> ReaderSecret:
    raw = Reader("reader-secret", secret.to_bytes())
    raw.text(), raw.integer(), raw.raw()
    return ReaderSecret(replace(secret.set_id, epoch=4), raw.raw())


def test_readers_wrap_and_creators_seal_keys_that_all_readers_open(secret, public):
    assert secret.unwrap(secret.wrap(KEY)) == secret.unwrap(public.seal_key(KEY)) == KEY
    assert secret.wrap(KEY) == secret.wrap(KEY)
    assert public.seal_key(KEY) != public.seal_key(KEY)


def test_a_key_of_another_set_or_epoch_stays_shut_even_under_the_same_32_bytes(secret, public):
    other = other_epoch(secret)
    for wrapped in (secret.wrap(KEY), public.seal_key(KEY)):
        with pytest.raises(IntegrityFailure) as caught:
            other.unwrap(wrapped)
        assert caught.value.reason == "KEY_WRAP_INVALID"
    assert other.commitment != secret.commitment
    assert other.xwing_key != secret.xwing_key


def test_every_damage_to_a_wrapped_key_is_refused(secret, public):
    wrapped, created = secret.wrap(KEY), public.seal_key(KEY)
    damaged = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(40)]
    damaged += [created[:at] + bytes([created[at] ^ 1]) + created[at + 1 :] for at in (0, 1119, 1120, 1167)]
    for data in (*damaged, b"", wrapped[:-8], wrapped + b"\0" * 8, created[:-1], created + b"\0"):
        with pytest.raises(IntegrityFailure) as caught:
            secret.unwrap(data)
        assert caught.value.reason == "KEY_WRAP_INVALID"


@pytest.mark.parametrize("key", [b"", KEY[:16], KEY + b"\0"])
def test_only_content_keys_of_32_bytes_are_wrapped(secret, public, key):
    for wrap in (secret.wrap, public.seal_key):
        with pytest.raises(InvalidInput):
            wrap(key)


def test_the_digest_is_that_of_a_set(alice, bob):
    one, two = alice.principal, bob.principal
    assert reader_list_digest([one, two]) == reader_list_digest([two, one]) == reader_list_digest({one, two})
    assert reader_list_digest([one]) != reader_list_digest([one, two])


@pytest.mark.parametrize("readers", [[], ["a@x.example"] * 2, ["nobody"], ["a@x.example", ""]])
def test_no_reader_one_twice_or_no_principal_is_refused(readers):
    with pytest.raises(InvalidInput) as caught:
        reader_list_digest(readers)
    assert caught.value.reason == "READER_SET_REFUSED"


def test_a_thousand_principals_are_a_set_and_one_more_is_not():
    readers = [f"p{n}@x.example" for n in range(1001)]
    assert len(reader_list_digest(readers[:1000])) == 32
    with pytest.raises(LimitExceeded) as caught:
        reader_list_digest(readers)
    assert caught.value.reason == "TOO_MANY_READERS"


def test_a_signed_set_shows_what_follows_from_its_secret(secret, public, alice):
    assert (public.set_id, public.commitment, public.xwing_key) == (
        secret.set_id,
        secret.commitment,
        secret.xwing_key,
    )
    assert (public.granter, public.device_id) == (alice.principal, alice.public.device_id)


def test_a_set_signed_by_one_who_may_not_grant_is_refused(secret, bob, granters):
    assert "may not grant" in refused(sign_reader_set(secret, bob.secret), secret.set_id, granters)


def test_a_signature_under_the_name_of_one_who_may_is_refused(secret, alice, bob, granters):
    signed = encode(
        "reader-set",
        [secret.set_id.site, 3, secret.set_id.readers_digest, secret.commitment, secret.xwing_key],
    )
    names = [alice.principal, alice.public.device_id]
    forged = encode("reader-set-signed", [signed, *names, bob.secret.sign(signed)])
    assert "signature" in refused(forged, secret.set_id, granters)
    honest = encode("reader-set-signed", [signed, *names, alice.secret.sign(signed)])
    assert verify_reader_set(honest, expect=secret.set_id, granters=granters).set_id == secret.set_id


def test_a_port_that_answers_with_another_device_grants_nothing(signed, secret, bob):
    assert "may not grant" in refused(signed, secret.set_id, lambda *_: bob.public)


@pytest.mark.parametrize(
    "changed", [{"site": "bob@x.example"}, {"epoch": 2}, {"epoch": 4}, {"readers_digest": b"r" * 32}]
)
def test_a_genuine_set_in_place_of_another_is_refused(signed, secret, granters, changed):
    assert "another" in refused(signed, replace(secret.set_id, **changed), granters)


def test_a_signed_key_that_is_no_key_is_refused(secret, alice, granters):
    fields = [secret.set_id.site, 3, secret.set_id.readers_digest, secret.commitment, b"\xff" * 1216]
    signed = encode("reader-set", fields)
    names = [alice.principal, alice.public.device_id]
    data = encode("reader-set-signed", [signed, *names, alice.secret.sign(signed)])
    assert "key is unusable" in refused(data, secret.set_id, granters)


def test_every_damaged_byte_truncation_and_surplus_is_refused(signed, secret, granters):
    for at in range(0, len(signed), 7):
        damaged = bytearray(signed)
        damaged[at] ^= 1 << at % 8
        refused(bytes(damaged), secret.set_id, granters)
    for data in (b"", signed[:-1], signed + b"\0", bytes(5000)):
        refused(data, secret.set_id, granters)


def test_a_secret_is_kept_shown_and_pickled_by_nobody_but_the_key_store(secret):
    again = ReaderSecret.from_bytes(secret.to_bytes())
    assert (again.commitment, again.set_id) == (secret.commitment, secret.set_id)
    assert secret.to_bytes()[-32:].hex() not in repr(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(IntegrityFailure):
        ReaderSecret.from_bytes(secret.to_bytes() + b"\0")
    with pytest.raises(InvalidInput):
        ReaderSecret(secret.set_id, bytes(31))


@pytest.mark.parametrize(
    "changed", [{"epoch": 0}, {"epoch": 1 << 64}, {"site": "nobody"}, {"readers_digest": b""}]
)
def test_a_set_of_another_form_is_refused(secret, changed):
    with pytest.raises(InvalidInput) as caught:
        replace(secret.set_id, **changed)
    assert caught.value.reason == "READER_SET_REFUSED"
