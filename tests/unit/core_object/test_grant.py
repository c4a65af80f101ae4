"""Grants: for one device, by who may grant, of the one secret that the set's commitment names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.identity import xwing
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.object import grant as module
from syftmesh_core.object.grant import grant_all, open_grant, parse_grant
from syftmesh_core.object.reader_secret import ReaderSecret
from syftmesh_core.object.reader_set import ReaderSet, sign_reader_set, verify_reader_set


@pytest.fixture(scope="module")
def readers(alice, bob) -> list[str]:
    return [alice.principal, bob.principal]


@pytest.fixture(scope="module")
def public(secret, alice, granters) -> ReaderSet:
    signed = sign_reader_set(secret, alice.secret)
    return verify_reader_set(signed, expect=secret.set_id, granters=granters)


@pytest.fixture(scope="module")
def grants(secret, readers, alice, bob) -> list[bytes]:
    devices = [alice.public, bob.public]
    return [data for _, data in grant_all(secret, readers=readers, devices=devices, signer=alice.secret)]


@pytest.fixture(scope="module")
def opening(public, bob, granters):
    def do(data: bytes, **changed) -> ReaderSecret:
        place = {"reader_set": public, "device": bob.secret, "granters": granters}
        return open_grant(data, **(place | changed))

    return do


def refused(opening, data: bytes, **changed) -> str:
    with pytest.raises(IntegrityFailure) as caught:
        opening(data, **changed)
    assert caught.value.reason == "GRANT_INVALID"
    return caught.value.message


def by_hand(public, device, signer, *, secret=bytes(32), key=None, info=None) -> bytes:
    """Grant `secret` as no honest device would, under a signature that holds."""
    set_id, name = public.set_id, device.device_id
    info = info or encode("grant", [set_id.site, set_id.epoch, name, set_id.readers_digest])
    wrapped = xwing.wrap(secret, key or device.xwing_key, info)
    signature = signer.sign(module._signed_bytes(public.fields(), name, wrapped))
    head = [set_id.site, set_id.epoch, set_id.readers_digest, name, signer.principal, signer.device_id]
    return encode("key-grant", [*head, wrapped, signature])


def test_each_device_opens_its_grant_and_all_get_one_secret(opening, grants, alice, bob, secret):
    mine, yours = opening(grants[0], device=alice.secret), opening(grants[1], device=bob.secret)
    key = bytes(range(32))
    assert mine.unwrap(yours.wrap(key)) == secret.unwrap(mine.wrap(key)) == key
    assert parse_grant(grants[1]).device_id == bob.public.device_id


def test_a_grant_for_another_device_says_so_once_it_is_genuine(opening, grants):
    with pytest.raises(PermissionDenied) as caught:
        opening(grants[0])
    assert caught.value.reason == "NO_KEY_FOR_DEVICE"


def test_a_grant_for_new_keys_of_the_same_device_does_not_open_with_the_old(opening, grants, bob):
    old = DeviceSecret.generate(bob.principal, bob.public.device_id)
    assert "this device's keys" in refused(opening, grants[1], device=old)


def test_a_grant_renamed_to_this_device_is_refused(opening, grants, bob, alice):
    renamed = grants[0].replace(b"\x07alice-1", b"\x05bob-1", 1)
    assert renamed != grants[0]
    assert "signature" in refused(opening, renamed)


def test_a_grant_by_one_who_may_not_grant_is_refused_before_it_is_opened(opening, public, bob):
    class Closed(DeviceSecret):
        def unwrap(self, wrapped, info):
            raise AssertionError("opened before its signer's right was known")

    closed = Closed.from_bytes(bob.secret.to_bytes())
    assert "may not grant" in refused(opening, by_hand(public, bob.public, bob.secret), device=closed)


def test_a_right_that_has_ended_is_no_right(opening, grants):
    assert "may not grant" in refused(opening, grants[1], granters=lambda *_: None)


def test_a_secret_that_is_not_the_committed_one_is_refused(opening, public, alice, bob):
    assert "all readers" in refused(opening, by_hand(public, bob.public, alice.secret))


def test_a_set_key_that_does_not_follow_from_the_secret_is_refused(
    opening, public, grants, alice, bob, secret
):
    lying = replace(public, xwing_key=alice.public.xwing_key)
    raw = secret.to_bytes()[-32:]
    data = by_hand(lying, bob.public, alice.secret, secret=raw)
    assert "public key" in refused(opening, data, reader_set=lying)
    assert opening(by_hand(public, bob.public, alice.secret, secret=raw)).commitment == secret.commitment


def test_a_wrap_bound_to_another_epoch_or_device_is_refused(opening, public, alice, bob, secret):
    raw, set_id = secret.to_bytes()[-32:], public.set_id
    for fields in (
        [set_id.site, 2, bob.public.device_id, set_id.readers_digest],
        [set_id.site, 3, "bob-2", set_id.readers_digest],
        ["bob@x.example", 3, bob.public.device_id, set_id.readers_digest],
    ):
        data = by_hand(public, bob.public, alice.secret, secret=raw, info=encode("grant", fields))
        assert "this device's keys" in refused(opening, data)


@pytest.mark.parametrize(
    "changed", [{"epoch": 2}, {"epoch": 4}, {"site": "bob@x.example"}, {"readers_digest": b"r" * 32}]
)
def test_a_grant_of_another_set_is_refused(opening, grants, public, changed):
    other = replace(public, set_id=replace(public.set_id, **changed))
    assert "another" in refused(opening, grants[1], reader_set=other)


def test_a_grant_under_another_commitment_is_refused(opening, grants, public):
    assert "signature" in refused(opening, grants[1], reader_set=replace(public, commitment=bytes(32)))


def test_every_damaged_byte_truncation_and_surplus_is_refused(opening, grants):
    data = grants[1]
    for at in range(0, len(data), 5):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        refused(opening, bytes(damaged))
    for wrong in (b"", data[:-1], data + b"\0", bytes(5000)):
        refused(opening, wrong)


def test_nobody_is_granted_who_is_no_reader_or_twice(secret, readers, alice, bob, carol):
    for devices, named in (
        ([carol.public], readers),
        ([bob.public, bob.public], readers),
        ([bob.public], [*readers, carol.principal]),
    ):
        with pytest.raises(InvalidInput) as caught:
            grant_all(secret, readers=named, devices=devices, signer=alice.secret)
        assert caught.value.reason == "READER_SET_REFUSED"


def test_more_than_five_thousand_devices_are_refused_at_once(secret, readers, alice, bob):
    with pytest.raises(LimitExceeded) as caught:
        grant_all(secret, readers=readers, devices=[bob.public] * 5001, signer=alice.secret)
    assert caught.value.reason == "TOO_MANY_WRAPS"
