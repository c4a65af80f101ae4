"""Prekeys and the agreement: published vectors, both sides, expiry, replay, hostile bundles."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hmac import HMAC
from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, MeshError, WrongState
from syftmesh_core.session import curve
from syftmesh_core.session.message import Message
from syftmesh_core.session.pqxdh import ResponderKeys, derive_secret, initiate, respond, session_id
from syftmesh_core.session.prekey import ACCEPTED_MS, DAY_MS, KEPT_MS, OneTimePrekey, PrekeyBundle
from syftmesh_core.session.prekey_secret import PrekeyKind, PrekeySecret

SMALL_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)


def parse(endpoint, data: bytes, now_ms: int | None = None) -> PrekeyBundle:
    device = endpoint.own.party.device
    return PrekeyBundle.from_bytes(data, device, now_ms=endpoint.now_ms if now_ms is None else now_ms)


def parsed_or_reason(endpoint, data: bytes) -> PrekeyBundle | str:
    try:
        return parse(endpoint, data)
    except IntegrityFailure as error:
        return error.reason


def refused_first(endpoint, data: bytes) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        endpoint.try_receive(data)
    assert caught.value.reason == "SESSION_MESSAGE_INVALID"


def test_x25519_gives_the_keys_and_secret_of_rfc_7748(vectors):
    vector = vectors["x25519"]
    sides = [bytes.fromhex(vector[name]) for name in ("alice_private", "bob_private")]
    publics = [bytes.fromhex(vector[name]) for name in ("alice_public", "bob_public")]
    assert [curve.x25519_public(side) for side in sides] == publics
    assert curve.x25519(sides[0], publics[1]).hex() == vector["shared"]
    assert curve.x25519(sides[1], publics[0]).hex() == vector["shared"]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_of_small_order_are_refused(point):
    assert not curve.is_sound_x25519(bytes.fromhex(point))
    with pytest.raises(ValueError, match="shared key"):
        curve.x25519(bytes([0x40]) + bytes(31), bytes.fromhex(point))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_x25519_keys_of_another_length_are_refused(size):
    assert not curve.is_sound_x25519(bytes(size))


def test_kem_keys_of_a_seed_repeat_and_both_sides_agree():
    seed = bytes(range(64))
    public = curve.kem_public(seed)
    assert public == curve.kem_public(seed)
    assert len(public) == curve.KEM_PUBLIC_BYTES
    secret, ciphertext = curve.encapsulate(public)
    assert len(ciphertext) == curve.KEM_CIPHERTEXT_BYTES
    assert curve.decapsulate(seed, ciphertext) == secret
    assert MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext) == secret


def test_a_forged_kem_ciphertext_gives_the_secret_of_implicit_rejection():
    """FIPS 203, section 7.3: SHAKE-256(z | ciphertext), z the second half of the seed."""
    seed = bytes(range(64))
    forged = bytes(curve.KEM_CIPHERTEXT_BYTES)
    assert curve.decapsulate(seed, forged) == hashlib.shake_256(seed[32:] + forged).digest(32)


def test_kem_keys_that_are_not_reduced_or_of_another_length_are_refused():
    public = curve.kem_public(bytes(64))
    assert curve.is_sound_kem(public)
    assert not curve.is_sound_kem(b"\xff\xff\xff" + public[3:])
    assert not curve.is_sound_kem(public[:-1])
    assert not curve.is_sound_kem(public + b"\0")


def test_secret_is_the_hkdf_of_rfc_5869_over_the_prefixed_secrets():
    """HKDF written out: extract with 64 zero bytes, one block of expand."""
    parts = [bytes([n]) * 32 for n in range(5)]
    extract = HMAC(bytes(64), SHA512())
    extract.update(b"\xff" * 32 + b"".join(parts))
    expand = HMAC(extract.finalize(), SHA512())
    expand.update(b"SyftMesh/v1/pqxdh/x25519+mlkem1024" + b"\1")
    assert derive_secret(parts) == expand.finalize()[:32]


@pytest.mark.parametrize("one_time", [True, False])
@pytest.mark.parametrize("kem", [True, False])
def test_a_session_starts_with_and_without_one_time_keys(pair, one_time, kem):
    alice, bob = pair
    assert bob.receive(alice.start(b"hello", one_time=one_time, kem=kem)) == b"hello"
    assert alice.receive(bob.send(b"answer")) == b"answer"
    kinds = [key.kind for key in bob.store.prekeys.values()]
    assert sorted(kinds) == [PrekeyKind.KEM_LAST_RESORT, PrekeyKind.SIGNED]
    assert len(bob.store.remembered) == (0 if kem else 1)


def test_a_recorded_first_message_opens(new_pair, vectors):
    """Receiving side only: the KEM draws its own randomness."""
    _, bob = new_pair()
    vector = vectors["first_message"]
    bob.store.prekeys = {
        key.key_id: key for key in (PrekeySecret.from_bytes(bytes.fromhex(one)) for one in vector["prekeys"])
    }
    found = bob.try_receive(bytes.fromhex(vector["message"]), vector["envelope"].encode())
    assert found.received.plaintext == vector["plaintext"].encode()
    assert found.received.state.binding.hex() == vector["binding"]


def test_the_binding_names_both_ends_and_every_key_in_its_order(pair):
    """AD written out as the protocol says."""
    alice, bob = pair
    bundle = parse(bob, bob.bundle())
    agreed = initiate(alice.link, bundle, now_ms=1, reset=False, random=alice.random)
    ends: list[object] = []
    for endpoint in pair:
        device = endpoint.own.party.device
        ends += [endpoint.own.party.root_key, device.principal, device.device_id]
        ends += [device.signing_key, device.dh_key]
    ids = [bundle.weekly.spk_id, bundle.one_time.key_id, bundle.kem_id, bundle.kem]
    ad = encode("ad", [1, *ends, *ids])
    session = encode("session", [ad, agreed.first.to_bytes()])
    assert agreed.binding == hashlib.sha256(session).digest()


@pytest.mark.parametrize("change", [{"reset": True}, {"started_ms": 1}])
def test_flags_of_a_first_message_are_authenticated_though_anybody_can_compute_its_session_id(pair, change):
    alice, bob = pair
    message = Message.from_bytes(alice.start(b"hello"))
    first = message.first_header()
    assert first is not None
    prekeys = bob.store.prekeys
    keys = ResponderKeys(prekeys[first.spk_id], prekeys[first.opk_id], prekeys[first.kem_id])
    changed = replace(first, **change)
    found_id = session_id(respond(bob.link, changed, keys).binding)
    refused_first(bob, replace(message, session_id=found_id, first=changed.to_bytes()).to_bytes())
    assert bob.receive(message.to_bytes()) == b"hello"


def test_a_first_message_from_another_root_key_is_refused(pair, new_pair):
    alice, bob = pair
    data = alice.start(b"hello")
    stranger, _ = new_pair()
    stranger.own = replace(stranger.own, party=replace(stranger.own.party, root_key=bytes(32)))
    bob.other = stranger
    refused_first(bob, data)


@pytest.mark.parametrize("kem", [True, False])
def test_a_first_message_is_refused_once_its_session_is_gone(pair, kem):
    alice, bob = pair
    data = alice.start(b"pay 10", one_time=False, kem=kem)
    bob.receive(data)
    bob.sessions = type(bob.sessions)()
    refused_first(bob, data)


def test_a_first_message_leaves_its_prekeys_when_it_is_refused(pair):
    alice, bob = pair
    data = alice.start(b"hello")
    kept = dict(bob.store.prekeys)
    refused_first(bob, data[:-1] + bytes([data[-1] ^ 1]))
    assert bob.store.prekeys == kept
    assert bob.receive(data) == b"hello"


@pytest.mark.parametrize("field", ["spk_id", "opk_id", "kem_id"])
def test_an_unknown_prekey_is_refused(pair, field):
    alice, bob = pair
    message = Message.from_bytes(alice.start(b"hello"))
    first = message.first_header()
    assert first is not None
    changed = replace(first, **{field: getattr(first, field) ^ 1})
    refused_first(bob, replace(message, first=changed.to_bytes()).to_bytes())


def test_a_prekey_of_another_kind_is_refused(pair):
    alice, bob = pair
    message = Message.from_bytes(alice.start(b"hello"))
    first = message.first_header()
    assert first is not None
    changed = replace(first, spk_id=first.opk_id)
    refused_first(bob, replace(message, first=changed.to_bytes()).to_bytes())


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_an_ephemeral_key_of_small_order_is_refused(pair, point):
    alice, bob = pair
    message = Message.from_bytes(alice.start(b"hello"))
    first = message.first_header()
    assert first is not None
    changed = replace(first, ephemeral=bytes.fromhex(point))
    refused_first(bob, replace(message, first=changed.to_bytes()).to_bytes())


def test_prekeys_are_accepted_for_45_days_and_kept_for_80(pair):
    alice, bob = pair
    data, made_ms = bob.bundle(), bob.now_ms
    parse(bob, data, made_ms + ACCEPTED_MS - 1)
    for now_ms in (made_ms + ACCEPTED_MS, made_ms - DAY_MS - 1):
        with pytest.raises(WrongState) as caught:
            parse(bob, data, now_ms)
        assert caught.value.reason == "PREKEY_EXPIRED"
    late = alice.start(b"hello", one_time=False, kem=False)
    bob.now_ms = made_ms + KEPT_MS
    refused_first(bob, late)
    bob.now_ms -= 1
    assert bob.receive(late) == b"hello"


def test_every_tampered_byte_of_a_bundle_is_refused_or_only_swaps_the_unsigned_key(pair):
    _, bob = pair
    data = bob.bundle()
    bundle = parse(bob, data)
    assert bundle.to_bytes() == data
    for at in range(0, len(data), 3):
        tampered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        other = parsed_or_reason(bob, tampered)
        if isinstance(other, str):
            assert other in ("ENCODING_INVALID", "PREKEY_INVALID")
            continue
        assert other.one_time != bundle.one_time
        assert replace(other, one_time=bundle.one_time) == bundle


def test_truncated_and_longer_bundles_are_refused(pair):
    _, bob = pair
    data = bob.bundle()
    for bad in [data[:size] for size in range(0, len(data), 17)] + [data + b"\0"]:
        with pytest.raises(IntegrityFailure) as caught:
            parse(bob, bad)
        assert caught.value.reason == "ENCODING_INVALID"


def test_prekeys_of_another_device_are_refused(pair):
    alice, bob = pair
    with pytest.raises(IntegrityFailure) as caught:
        parse(alice, bob.bundle())
    assert caught.value.reason == "PREKEY_INVALID"
    with pytest.raises(IntegrityFailure) as caught:
        initiate(bob.link, parse(bob, bob.bundle()), now_ms=1, reset=False, random=bob.random)
    assert caught.value.reason == "PREKEY_INVALID"


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 2), (1, "eve@x.example"), (2, "bob-2"), (3, 2), (5, bytes(32)), (7, b"\xff" * 1568)],
)
def test_signed_prekeys_with_another_owner_suite_or_an_unusable_key_are_refused(pair, at, value):
    """What the device itself signed and yet nobody may use."""
    _, bob = pair
    device = bob.own.party.device
    fields: list[object] = [1, device.principal, device.device_id, device.epoch]
    fields += [1, curve.x25519_public(bytes([9]) * 32), 2, curve.kem_public(bytes(64)), bob.now_ms]
    for changed in (False, True):
        if changed:
            fields[at] = value
        body = encode("prekeys", fields)
        signed = encode("prekeys-signed", [body, bob.own.secret.sign(body)])
        data = encode("prekey-bundle", [signed, None, None])
        if not changed:
            parse(bob, data)
            continue
        with pytest.raises(IntegrityFailure) as caught:
            parse(bob, data)
        assert caught.value.reason == "PREKEY_INVALID"


def test_a_one_time_key_of_small_order_is_refused():
    for point in SMALL_ORDER:
        with pytest.raises(IntegrityFailure) as caught:
            OneTimePrekey.from_bytes(OneTimePrekey(1, bytes.fromhex(point)).to_bytes())
        assert caught.value.reason == "PREKEY_INVALID"


@pytest.mark.parametrize("kind", list(PrekeyKind))
def test_private_prekeys_come_back_as_they_were(pair, kind):
    made = pair[0].new_prekey(kind)
    data = made.to_bytes()
    assert PrekeySecret.from_bytes(data) == made
    assert repr(made.secret)[2:-1] not in repr(made)
    for size in range(len(data)):
        with pytest.raises(MeshError):
            PrekeySecret.from_bytes(data[:size])


def test_private_prekeys_of_an_unknown_kind_are_refused():
    with pytest.raises(IntegrityFailure) as caught:
        PrekeySecret.from_bytes(encode("prekey-secret", ["other", 1, bytes(32), 1]))
    assert caught.value.reason == "PREKEY_INVALID"


def test_one_time_kem_keys_are_signed_for_their_own_purpose(pair):
    """A signature of the weekly keys does not serve for a one-time key."""
    _, bob = pair
    reader = Reader("prekey-bundle", bob.bundle())
    weekly = reader.raw()
    with pytest.raises(IntegrityFailure):
        parse(bob, encode("prekey-bundle", [weekly, None, weekly]))
