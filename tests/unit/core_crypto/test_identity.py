"""Phrases, roots, devices, device lists and safety numbers."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, MeshError
from syftmesh_core.identity import ed25519
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.identity.device_list import (
    parse_list,
    sign_first_list,
    sign_next_list,
    verify_chain,
    verify_successor,
)
from syftmesh_core.identity.phrase import AccountRoot, entropy_of, phrase_of
from syftmesh_core.identity.safety_number import safety_number

FIELD = (1 << 255) - 19


def device_of(principal: str, device_id: str, *, seed: int = 1, **flags) -> DeviceSecret:
    seeds = tuple(bytes([seed, kind] * 16) for kind in range(3))
    return DeviceSecret(principal, device_id, seeds, **flags)


def flipped(data: bytes, bit: int) -> bytes:
    bit %= len(data) * 8
    out = bytearray(data)
    out[bit // 8] ^= 1 << (bit % 8)
    return bytes(out)


def reason_of(call, *args, **kwargs) -> str:
    with pytest.raises(IntegrityFailure) as caught:
        call(*args, **kwargs)
    return caught.value.reason


# -- phrase and root


@given(st.binary(min_size=32, max_size=32))
def test_phrase_round_trips_whatever_its_case_and_spacing(entropy):
    words = phrase_of(entropy)
    assert entropy_of(words) == entropy
    assert entropy_of("  " + "\n ".join(words).upper()) == entropy


@pytest.mark.parametrize(
    "phrase",
    ["", "abandon " * 24, "abandon " * 23 + "artx", "abandon " * 11 + "about", "abandon " * 24 + "art"],
)
def test_phrase_that_does_not_hold_is_refused_without_naming_a_word(phrase):
    with pytest.raises(InvalidInput) as caught:
        entropy_of(phrase)
    assert caught.value.reason == "PHRASE_INVALID"
    assert "abandon" not in repr(caught.value)
    assert "artx" not in repr(caught.value)


def test_misspelled_word_is_named_by_its_place():
    with pytest.raises(InvalidInput) as caught:
        entropy_of("abandon " * 4 + "abandom " + "abandon " * 18 + "art")
    assert caught.value.metadata == {"place": "5"}


def test_root_signs_and_shows_only_its_public_key():
    root = AccountRoot.from_phrase("abandon " * 23 + "art")
    assert ed25519.is_signed_by(root.public_key, root.sign(b"m"), b"m")
    assert repr(root) == f"AccountRoot(public_key={root.public_key.hex()})"
    with pytest.raises(TypeError):
        pickle.dumps(root)


# -- keys


def on_small_order(y: int) -> bool:
    """Whether a point with this y has an order that divides 8: double it three times, by hand."""
    d = -121665 * pow(121666, -1, FIELD) % FIELD
    x2 = (y * y - 1) * pow(d * y * y + 1, -1, FIELD) % FIELD
    for _ in range(3):  # doubling in (x^2, y): enough to see whether the neutral element is reached
        num = 4 * x2 * y * y % FIELD
        den = 1 + d * x2 * y * y
        y, x2 = (
            (y * y + x2) * pow(1 - d * x2 * y * y, -1, FIELD) % FIELD,
            num * pow(den * den, -1, FIELD) % FIELD,
        )
    return (x2, y) == (0, 1)


@pytest.mark.parametrize("y", sorted(ed25519._SMALL_ORDER_Y))
def test_keys_of_small_order_are_unsound(y):
    assert on_small_order(y)
    for sign in (0, 1 << 255):
        assert not ed25519.is_sound_key((y | sign).to_bytes(32, "little"))


@pytest.mark.parametrize("y", [FIELD, FIELD + 1, FIELD + 3, (1 << 255) - 1])
def test_keys_that_are_not_canonical_are_unsound(y):
    assert not ed25519.is_sound_key(y.to_bytes(32, "little"))


def test_keys_of_another_length_or_off_the_curve_are_unsound():
    assert not ed25519.is_sound_key(b"")
    assert not ed25519.is_sound_key(bytes(33))
    assert not ed25519.is_signed_by(bytes(31), bytes(64), b"")


# -- device


def test_device_round_trips(alice):
    secret = DeviceSecret.from_bytes(alice.secret.to_bytes())
    assert secret.public() == alice.public
    assert DevicePublic.from_bytes(alice.public.to_bytes()) == alice.public
    assert (alice.public.serves, alice.public.admin, alice.public.epoch) == (True, True, 1)


def test_device_secret_never_shows_a_seed(alice):
    raw = alice.secret.to_bytes()
    shown = repr(alice.secret) + str(alice.secret) + f"{alice.secret!s}"
    reader = Reader("device-secret", raw)
    reader.text(), reader.text(), reader.integer()
    for _ in range(3):
        seed = reader.raw()
        assert seed.hex() not in shown
        assert repr(seed) not in shown
    with pytest.raises(TypeError):
        pickle.dumps(alice.secret)
    with pytest.raises(AttributeError):
        _ = alice.secret.__dict__


@pytest.mark.parametrize(
    ("principal", "device_id", "epoch"),
    [
        ("nobody", "d", 1),
        ("a@x", "", 1),
        ("a@x", "d d", 1),
        ("a@x", "d" * 65, 1),
        ("a@x", "d\n", 1),
        ("a@x", "d", 0),
    ],
)
def test_device_with_an_unusable_name_is_refused(principal, device_id, epoch):
    with pytest.raises(InvalidInput) as caught:
        DeviceSecret(principal, device_id, (bytes(32),) * 3, epoch=epoch)
    assert caught.value.reason == "DEVICE_INVALID"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, "nobody"),
        (1, "d d"),
        (2, 0),
        (4, bytes(32)),
        (4, b"\1" + bytes(31)),
        (5, b"\xff" * 1216),
        (5, bytes(1216)),
    ],
)
def test_device_with_unusable_names_or_keys_is_refused_though_signed(alice, field, value):
    public = alice.public
    fields = [
        public.principal,
        public.device_id,
        1,
        public.signing_key,
        public.dh_key,
        public.xwing_key,
        True,
        True,
    ]
    fields[field] = value
    body = encode("device", fields)
    data = encode("device-signed", [body, alice.secret.sign(body)])
    assert reason_of(DevicePublic.from_bytes, data) == "DEVICE_INVALID"


@given(st.integers(0, 1 << 16))
def test_device_with_any_flipped_bit_is_refused(alice, bit):
    with pytest.raises(IntegrityFailure):
        DevicePublic.from_bytes(flipped(alice.public.encoded, bit))


# -- device list


@pytest.fixture(scope="module")
def chain(alice) -> list[bytes]:
    first = sign_first_list("alice@x.example", [alice.public], alice.root)
    second = sign_next_list(
        parse_list(first), [alice.public, device_of("alice@x.example", "two").public()], alice.secret
    )
    third = sign_next_list(parse_list(second), [alice.public], alice.root)
    return [first, second, third]


def test_chain_from_the_root_verifies(chain, alice):
    found = verify_chain(chain, pinned_root=alice.root.public_key)
    assert (found.version, found.principal, found.signer) == (3, "alice@x.example", None)
    assert found.find("alice-1") == alice.public
    assert found.find("two") is None
    assert verify_chain(chain[:2]).signer == "alice-1"


def test_another_root_than_the_pinned_one_is_key_changed(chain, bob):
    assert reason_of(verify_chain, chain, pinned_root=bob.root.public_key) == "KEY_CHANGED"


def test_a_new_root_within_the_chain_is_key_changed(chain, alice, bob):
    other = [sign_first_list("alice@x.example", [alice.public], bob.root)]
    other.append(sign_next_list(parse_list(other[0]), [alice.public], bob.root))
    assert reason_of(verify_successor, verify_chain(chain[:1]), other[1]) == "KEY_CHANGED"


def test_gap_repeat_and_other_order_are_refused(chain):
    for lists in ([], chain[1:], [chain[0], chain[2]], [chain[0], chain[0]], [chain[0], chain[2], chain[1]]):
        assert reason_of(verify_chain, lists) == "DEVICE_LIST_INVALID"


def test_list_one_is_signed_by_the_root_alone_and_says_so(alice):
    fields = ["alice@x.example", 1, alice.root.public_key, [alice.public.encoded], None, "alice-1"]
    body = encode("device-list", fields)
    for signature in (alice.secret.sign(body), alice.root.sign(body)):
        data = encode("device-list-signed", [body, signature])
        assert reason_of(verify_chain, [data]) == "DEVICE_LIST_INVALID"


def test_list_of_another_branch_does_not_follow(chain, alice):
    first = parse_list(chain[0])
    branches = [
        parse_list(
            sign_next_list(first, [alice.public, device_of("alice@x.example", name).public()], alice.secret)
        )
        for name in ("one", "two")
    ]
    third = sign_next_list(branches[0], [alice.public], alice.secret)
    assert verify_successor(branches[0], third).version == 3
    assert reason_of(verify_successor, branches[1], third) == "DEVICE_LIST_INVALID"


def test_only_an_admin_device_of_the_list_before_signs(chain, alice):
    first = parse_list(chain[0])
    plain, stranger = (
        device_of("alice@x.example", "plain"),
        device_of("alice@x.example", "s", seed=7, admin=True),
    )
    second = parse_list(sign_next_list(first, [alice.public, plain.public()], alice.secret))
    for signer in (plain, stranger):
        devices = [alice.public, plain.public(), stranger.public()]
        with pytest.raises(InvalidInput) as caught:
            sign_next_list(second, devices, signer)
        assert caught.value.reason == "DEVICE_LIST_INVALID"
        fields = [
            "alice@x.example",
            3,
            first.root_key,
            [d.encoded for d in devices],
            second.digest,
            signer.device_id,
        ]
        body = encode("device-list", fields)
        forged = encode("device-list-signed", [body, signer.sign(body)])
        assert reason_of(verify_successor, second, forged) == "DEVICE_LIST_INVALID"


def test_a_removed_admin_signs_no_more(chain, alice):
    two = device_of("alice@x.example", "two", admin=True)
    first = parse_list(chain[0])
    second = parse_list(sign_next_list(first, [alice.public, two.public()], alice.secret))
    third = parse_list(sign_next_list(second, [alice.public], alice.secret))
    with pytest.raises(InvalidInput):
        sign_next_list(third, [alice.public, two.public()], two)


def test_new_keys_for_a_device_need_a_higher_epoch(chain, alice):
    old, same, new = (
        device_of("alice@x.example", "two", seed=seed, epoch=epoch).public()
        for seed, epoch in ((1, 2), (3, 2), (3, 3))
    )
    second = parse_list(sign_next_list(parse_list(chain[0]), [alice.public, old], alice.secret))
    with pytest.raises(InvalidInput):
        sign_next_list(second, [alice.public, same], alice.secret)
    third = parse_list(sign_next_list(second, [alice.public, new], alice.secret))
    assert third.find("two") == new


def test_lists_hold_1_to_32_distinct_devices_of_one_principal(alice, bob):
    many = [device_of("alice@x.example", f"d{n}", seed=n).public() for n in range(1, 34)]
    with pytest.raises(LimitExceeded) as caught:
        sign_first_list("alice@x.example", many, alice.root)
    assert caught.value.reason == "TOO_MANY_DEVICES"
    assert len(verify_chain([sign_first_list("alice@x.example", many[:32], alice.root)]).devices) == 32
    renamed = device_of("alice@x.example", "renamed", seed=1).public()
    for devices in ([], [bob.public], [many[0], many[0]], [many[0], renamed]):
        with pytest.raises(InvalidInput):
            sign_first_list("alice@x.example", devices, alice.root)
        body = encode(
            "device-list",
            ["alice@x.example", 1, alice.root.public_key, [d.encoded for d in devices], None, None],
        )
        data = encode("device-list-signed", [body, alice.root.sign(body)])
        assert reason_of(verify_chain, [data]) == "DEVICE_LIST_INVALID"


def test_another_principals_list_does_not_follow(chain, alice):
    device = device_of("mallory@x.example", "alice-1", admin=True).public()
    body = encode(
        "device-list",
        ["mallory@x.example", 2, alice.root.public_key, [device.encoded], parse_list(chain[0]).digest, None],
    )
    data = encode("device-list-signed", [body, alice.root.sign(body)])
    assert reason_of(verify_successor, parse_list(chain[0]), data) == "DEVICE_LIST_INVALID"


@given(st.integers(0, 1 << 16), st.integers(0, 2))
def test_chain_with_any_flipped_bit_is_refused(chain, alice, bit, place):
    lists = list(chain)
    lists[place] = flipped(lists[place], bit)
    with pytest.raises(IntegrityFailure):
        verify_chain(lists, pinned_root=alice.root.public_key)


@given(st.integers(0, 1 << 16))
def test_cut_list_is_refused(chain, cut):
    with pytest.raises(IntegrityFailure):
        parse_list(chain[1][: cut % len(chain[1])])


@given(st.binary(max_size=300))
def test_hostile_bytes_give_only_our_errors(data):
    for head in (b"", b"SyftMesh/v1/device-list-signed\0", b"SyftMesh/v1/device-signed\0"):
        for parse in (parse_list, DevicePublic.from_bytes, DeviceSecret.from_bytes):
            with pytest.raises(MeshError):
                parse(head + data)


# -- safety number


def test_safety_number_is_the_same_on_both_sides_and_changes_with_either_key(alice, bob, carol):
    a, b, c = (p.root.public_key for p in (alice, bob, carol))
    seen = safety_number("alice@x.example", a, "bob@x.example", b)
    assert seen == safety_number("bob@x.example", b, "alice@x.example", a)
    assert [len(group) for group in seen.split(" ")] == [5] * 12
    assert seen.replace(" ", "").isdigit()
    assert seen != safety_number("alice@x.example", a, "bob@x.example", c)
    assert seen != safety_number("alice@x.example", a, "bob2@x.example", b)
