"""What is sealed between a site and the aggregator opens for the right one, in its place, and nowhere else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.padding import padme
from syftmesh_flower import seal as module
from syftmesh_flower.seal import TO_AGGREGATOR, TO_SITE, RunKey, Sealed, open_content, seal_content

A, B = "a@x.example", "b@x.example"
KEYS = {A: RunKey(b"a" * 32), B: RunKey(b"b" * 32)}
RUN = {"run_id": "7", "context": b"message-1"}
MIB = 1 << 20


def to_sites(plain: bytes, **changes) -> Sealed:
    return seal_content(plain, KEYS, **{**RUN, "direction": TO_SITE, **changes})


def opened(sealed: Sealed, of: str = A, **changes) -> bytes:
    arguments = {
        "ciphertext": sealed.ciphertext,
        "wrap": sealed.wraps[of],
        "key": KEYS[of],
        "site": of,
        "direction": TO_SITE,
        **RUN,
        **changes,
    }
    return open_content(**arguments)


def refused(sealed: Sealed, of: str = A, **changes) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        opened(sealed, of, **changes)
    assert caught.value.reason == "UPDATE_UNREADABLE"
    assert caught.value.metadata == {}
    assert caught.value.__cause__ is None


@contextmanager
def tiny_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", 20)
        patch.setattr(module, "SMALLEST_BYTES", 16)
        yield


@pytest.fixture(scope="module")
def three_chunks() -> Sealed:
    return to_sites(os.urandom(2 * MIB + 100_000))


@pytest.mark.parametrize("size", [0, 1, 1015, 1016, 1017, MIB - 9, MIB - 8, MIB, MIB + 1, 3 * MIB + 12345])
def test_each_site_opens_the_same_plain_text(size: int) -> None:
    plain = os.urandom(size)
    sealed = to_sites(plain)
    assert opened(sealed, A) == plain
    assert opened(sealed, B) == plain


@given(plain=st.binary(max_size=300))
@settings(max_examples=200)
def test_every_length_comes_back_over_any_number_of_chunks(plain: bytes) -> None:
    with tiny_chunks():
        sealed = to_sites(plain)
        assert opened(sealed) == plain
        padded = padme(len(plain) + 8, at_least_bytes=16)
        assert len(sealed.ciphertext) == 32 + padded + 16 * -(-padded // 20)


def test_zeros_at_the_end_are_kept() -> None:
    assert opened(to_sites(b"x" + bytes(500))) == b"x" + bytes(500)


def test_the_way_to_the_aggregator_and_back() -> None:
    sealed = seal_content(b"update", {A: KEYS[A]}, direction=TO_AGGREGATOR, **RUN)
    assert opened(sealed, direction=TO_AGGREGATOR) == b"update"
    refused(sealed, direction=TO_SITE)


def test_small_contents_have_one_size_and_large_ones_few() -> None:
    sizes = {len(to_sites(bytes(size)).ciphertext) for size in range(0, 1017, 63)}
    assert sizes == {32 + 1024 + 16}
    assert len({len(to_sites(bytes(size)).ciphertext) for size in range(100_000, 102_000, 50)}) == 2


def test_nothing_repeats_and_nothing_shows() -> None:
    one, two = to_sites(b"same" * 100), to_sites(b"same" * 100)
    assert one.ciphertext != two.ciphertext
    assert one.wraps[A] != two.wraps[A]
    assert one.wraps[A] != one.wraps[B]
    assert b"samesame" not in one.ciphertext
    assert "616161" not in repr(KEYS[A]) + repr(one)
    assert "aaa" not in repr(KEYS[A]) + repr(one)


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "8"},
        {"run_id": "77"},
        {"context": b"message-2"},
        {"context": b""},
        {"context": b"message-1\0"},
        {"direction": TO_AGGREGATOR},
        {"site": B},
        {"site": "a@x.exampl"},
        {"key": KEYS[B]},
        {"key": RunKey(bytes(32))},
        {"wrap": b""},
    ],
)
def test_what_it_belongs_to_has_to_be_the_same(three_chunks: Sealed, changes: dict[str, object]) -> None:
    refused(three_chunks, **changes)


def test_a_wrap_of_another_site_or_content_does_not_open(three_chunks: Sealed) -> None:
    refused(three_chunks, wrap=three_chunks.wraps[B])
    refused(three_chunks, wrap=to_sites(b"other").wraps[A])


def test_a_replay_into_another_message_is_refused() -> None:
    old = seal_content(b"round 1", {A: KEYS[A]}, run_id="7", direction=TO_AGGREGATOR, context=b"m1")
    assert opened(old, direction=TO_AGGREGATOR, context=b"m1") == b"round 1"
    refused(old, direction=TO_AGGREGATOR, context=b"m2")


def test_a_site_cannot_give_another_site_a_content_of_its_own() -> None:
    """Whoever opens a content knows its key, and could encrypt with it what it likes."""
    keys = []

    def random(size: int) -> bytes:
        keys.append(os.urandom(size))
        return keys[-1]

    genuine = to_sites(b"model", random=random)
    data = module._content_data("7", TO_SITE, b"message-1")
    forged = module._encrypt(b"poison", keys[0], data)
    assert module._decrypt(forged, keys[0], data).startswith(b"poison")
    refused(genuine, B, ciphertext=forged)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_bit_of_ciphertext_or_wrap_can_change(data: st.DataObject) -> None:
    with tiny_chunks():
        sealed = to_sites(bytes(100))
        for part in ("ciphertext", "wrap"):
            value = bytearray(sealed.ciphertext if part == "ciphertext" else sealed.wraps[A])
            value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            refused(sealed, **{part: bytes(value)})


@given(noise=st.binary(max_size=400), wrap=st.binary(min_size=59, max_size=61))
@settings(max_examples=100)
def test_noise_does_not_open(noise: bytes, wrap: bytes) -> None:
    refused(Sealed(noise, {A: wrap}))


FULL = MIB + 16


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[:-1],
        lambda c: c[: 32 + 2 * FULL],
        lambda c: c[: 32 + FULL],
        lambda c: c[:32],
        lambda c: c[:31],
        lambda c: b"",
        lambda c: c + b"\0",
        lambda c: c + c[32 : 32 + FULL],
        lambda c: c[:32] + c[32 + FULL : 32 + 2 * FULL] + c[32 : 32 + FULL] + c[32 + 2 * FULL :],
        lambda c: c[:32] + c[32 + FULL :],
        lambda c: bytes(32) + c[32:],
    ],
    ids=[
        "byte",
        "last chunk",
        "two chunks",
        "all chunks",
        "head",
        "all",
        "more",
        "again",
        "swapped",
        "first",
        "head 0",
    ],
)
def test_cut_grown_and_reordered_chunks_do_not_open(three_chunks: Sealed, change) -> None:
    refused(three_chunks, ciphertext=change(three_chunks.ciphertext))
    # The chunks alone refuse it too, before any wrap looks at the whole.
    key = AESGCM(module._wrapping_key(KEYS[A], "7", TO_SITE, A)).decrypt(
        three_chunks.wraps[A][:12],
        three_chunks.wraps[A][12:],
        module._wrap_data(b"message-1", three_chunks.ciphertext),
    )
    data = module._content_data("7", TO_SITE, b"message-1")
    assert len(module._decrypt(three_chunks.ciphertext, key, data)) >= 2 * MIB + 100_000
    with pytest.raises((IntegrityFailure, module.InvalidTag)):
        module._decrypt(change(three_chunks.ciphertext), key, data)


def test_a_length_or_padding_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for tail in ((1017).to_bytes(8, "big"), b"\xff" * 8, (5).to_bytes(8, "big")):
        monkeypatch.setattr(
            module,
            "_padded_chunks",
            lambda plain, size, tail=tail: iter([b"123456".ljust(size - 8, b"\0") + tail]),
        )
        sealed = to_sites(b"123456")
        monkeypatch.undo()
        refused(sealed)


def naive(
    plain: bytes, site: str, run_key: bytes, key: bytes, nonce: bytes, run_id: str, way: str, context: bytes
):
    """The format written down a second time, without the library's code."""

    def enc(label: bytes, *fields: bytes) -> bytes:
        return b"SyftMesh/v1/" + label + b"\0" + b"".join(len(f).to_bytes(4, "big") + f for f in fields)

    suite = (1).to_bytes(8, "big")
    padded = plain + bytes(padme(max(len(plain) + 8, 1024)) - len(plain) - 8) + len(plain).to_bytes(8, "big")
    pieces = [padded[at : at + MIB] for at in range(0, len(padded), MIB)]
    content = hashlib.sha256(enc(b"flower-commitment", suite, key)).digest()
    data = enc(b"flower-content", suite, run_id.encode(), way.encode(), context)
    for number, piece in enumerate(pieces):
        last = bytes([number == len(pieces) - 1])
        content += AESGCM(key).encrypt(bytes(7) + number.to_bytes(4, "big") + last, piece, data)
    info = enc(b"flower-wrap-key", suite, run_id.encode(), way.encode(), site.encode())
    wrapping = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(run_key)
    bound = enc(b"flower-wrap", suite, context, hashlib.sha256(content).digest())
    return content, nonce + AESGCM(wrapping).encrypt(nonce, key, bound)


@pytest.mark.parametrize("size", [0, 5, 1016, 1017, 2 * MIB + 17])
@pytest.mark.parametrize("way", [TO_SITE, TO_AGGREGATOR])
def test_the_format_is_what_its_description_says(size: int, way: str) -> None:
    plain, context = bytes(range(256)) * (size // 256 + 1), b"m1"
    sealed = seal_content(
        plain[:size],
        {A: KEYS[A]},
        run_id="7",
        direction=way,
        context=context,
        random=lambda n: bytes(range(n)),
    )
    expected = naive(plain[:size], A, b"a" * 32, bytes(range(32)), bytes(range(12)), "7", way, context)
    assert (sealed.ciphertext, sealed.wraps[A]) == expected


def test_the_fixed_vector_still_holds() -> None:
    sealed = seal_content(
        b"hello",
        {"a@x.org": RunKey(b"k" * 32)},
        run_id="7",
        direction=TO_AGGREGATOR,
        context=b"m1",
        random=lambda size: bytes(range(size)),
    )
    assert sealed.wraps["a@x.org"].hex() == (
        "000102030405060708090a0bfdc27cd219f93276a6325d7adabd7d2cf0b08746"
        "eebcd1775a40d1122614784ef548e31addb8791eb7509b829beaad39"
    )
    assert sealed.ciphertext[:64].hex() == (
        "b583ac58498418c886158a59a1b702abc92c4e33148c45aed5586f5a24c9faa3"
        "7db3d3902bf4301e0e2e5139eca63af7159f1c5464b25484730003d92630735e"
    )
    assert (
        hashlib.sha256(sealed.ciphertext).hexdigest()
        == "4f6bb1d0a99877584ee4b82ec51396777faee973d459f038e7c3404c92f27865"
    )


@pytest.mark.parametrize(
    "changes",
    [{"run_id": ""}, {"run_id": "07"}, {"run_id": "x"}, {"run_id": "-1"}, {"run_id": str(1 << 64)}, {"run_id": "7\n"},
     {"direction": "sideways"}, {"context": bytes(4097)}],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        to_sites(b"x", **changes)
    assert caught.value.reason == "SEAL_REFUSED"
    with pytest.raises(InvalidInput):
        opened(to_sites(b"x"), **changes)


@pytest.mark.parametrize(
    "keys", [{}, {"": KEYS[A]}, {"x" * 255: KEYS[A]}, {f"{n}@x.org": KEYS[A] for n in range(1025)}]
)
def test_sites_that_are_none_or_too_many_are_refused(keys: dict[str, RunKey]) -> None:
    with pytest.raises(InvalidInput) as caught:
        seal_content(b"x", keys, direction=TO_SITE, **RUN)
    assert caught.value.reason == "SEAL_REFUSED"


def test_the_aggregator_gets_from_one_site_at_a_time() -> None:
    with pytest.raises(InvalidInput, match="of one site"):
        to_sites(b"x", direction=TO_AGGREGATOR)


def test_the_largest_run_id_is_one() -> None:
    sealed = to_sites(b"x", run_id=str((1 << 64) - 1))
    assert opened(sealed, run_id=str((1 << 64) - 1)) == b"x"


def test_too_large_a_content_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONTENT_BYTES", 10)
    assert opened(to_sites(bytes(10))) == bytes(10)
    with pytest.raises(LimitExceeded) as caught:
        to_sites(bytes(11))
    assert caught.value.reason == "SEAL_TOO_LARGE"


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33, "x" * 32])
def test_a_run_key_has_32_bytes(secret: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        RunKey(secret)
    assert caught.value.reason == "SEAL_REFUSED"
    assert "xxx" not in str(caught.value)


def test_generated_keys_differ() -> None:
    assert RunKey.generate() != RunKey.generate()
