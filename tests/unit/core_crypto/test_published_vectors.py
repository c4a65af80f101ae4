"""Published vectors, first of all."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from syftmesh_core.identity import ed25519, xwing
from syftmesh_core.identity.phrase import entropy_of, phrase_of
from syftmesh_core.identity.safety_number import numeric_fingerprint


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def test_ed25519_gives_the_signatures_of_rfc_8032(published):
    for vector in published["ed25519"]["vectors"]:
        key = Ed25519PrivateKey.from_private_bytes(unhex(vector["secret"]))
        assert key.public_key().public_bytes_raw().hex() == vector["public"]
        assert key.sign(unhex(vector["message"])).hex() == vector["signature"]
        assert ed25519.is_sound_key(unhex(vector["public"]))
        assert ed25519.is_signed_by(
            unhex(vector["public"]), unhex(vector["signature"]), unhex(vector["message"])
        )
        assert not ed25519.is_signed_by(unhex(vector["public"]), unhex(vector["signature"]), b"other")


def test_x25519_gives_the_points_of_rfc_7748(published):
    for vector in published["x25519"]["vectors"]:
        scalar = X25519PrivateKey.from_private_bytes(unhex(vector["scalar"]))
        assert scalar.exchange(X25519PublicKey.from_public_bytes(unhex(vector["u"]))).hex() == vector["out"]


def test_hkdf_gives_the_key_of_rfc_5869(published):
    vector = published["hkdf_sha256"]
    okm = HKDF(
        algorithm=hashes.SHA256(), length=42, salt=unhex(vector["salt"]), info=unhex(vector["info"])
    ).derive(unhex(vector["ikm"]))
    assert okm.hex() == vector["okm"]


def test_phrases_are_those_of_bip_39(published):
    for vector in published["bip39"]["vectors"]:
        assert " ".join(phrase_of(unhex(vector["entropy"]))) == vector["phrase"]
        assert entropy_of(vector["phrase"]).hex() == vector["entropy"]


def test_safety_number_digits_are_those_of_signal(published):
    vector = published["signal_fingerprint"]
    sides = sorted(
        numeric_fingerprint(unhex(side["key"]), side["identifier"].encode()) for side in vector["sides"]
    )
    assert "".join(sides) == vector["digits"]


def test_xwing_key_comes_from_its_seed_as_the_draft_says(published):
    vector = published["xwing"]
    public = xwing.public_from_seed(unhex(vector["seed"])).hex()
    assert len(public) == 2 * xwing.PUBLIC_BYTES
    assert public.startswith(vector["public_key_start"])
    assert public.endswith(vector["public_key_end"])


def test_unwrap_opens_what_an_own_hpke_seals_with_the_drafts_shared_secret(published):
    """The draft's encapsulation, then RFC 9180's key schedule written out here: base mode, 0x647a, 1, 2."""
    vector, info, secret = published["xwing"], b"some info", b"a content key of thirty-two byte"
    key, nonce = _key_schedule(unhex(vector["shared_secret"]), info)
    wrapped = unhex(vector["ciphertext"]) + AESGCM(key).encrypt(nonce, secret, b"")
    assert xwing.unwrap(wrapped, unhex(vector["seed"]), info) == secret
    assert xwing.unwrap(wrapped, unhex(vector["seed"]), b"other info") is None
    assert len(wrapped) == len(secret) + xwing.WRAP_OVERHEAD_BYTES


@pytest.mark.parametrize("size", [0, 1, 1119, 1120, 1135])
def test_unwrap_refuses_what_is_too_short(published, size):
    vector = published["xwing"]
    assert xwing.unwrap(unhex(vector["ciphertext"])[:size], unhex(vector["seed"]), b"") is None


def _key_schedule(shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    suite = b"HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        mac = hmac.HMAC(salt or bytes(32), hashes.SHA256())
        mac.update(b"HPKE-v1" + suite + label + ikm)
        return mac.finalize()

    def expand(prk: bytes, label: bytes, context: bytes, size: int) -> bytes:
        labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return HKDFExpand(algorithm=hashes.SHA256(), length=size, info=labelled).derive(prk)

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared_secret, b"secret", b"")
    return expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
