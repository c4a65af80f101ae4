"""Content between the aggregator and the sites of one run, sealed so that hub and SuperLink see ciphertext only.

A content is encrypted once under a fresh content key, which is wrapped for each site under the secret of run and
site. ``content = commitment || chunk ...``, where a chunk is at most 1 MiB of the padded plain text under AES-256-GCM
with the nonces of STREAM (counter and last flag; Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance", CRYPTO 2015, section 7), and ``wrap = nonce || AES-256-GCM(content key)``
under HKDF-SHA-256 (RFC 5869) of the run key. The padded plain text is the plain text, zeros, and its length in 8
bytes, so that whole chunks are encrypted from where they lie.

Each wrap binds the digest of the content: every site of a run knows the content key, so without that one site
together with the hub could give another site a content of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.padding import padme

Direction = Literal["to-site", "to-aggregator"]
TO_SITE: Final = "to-site"
TO_AGGREGATOR: Final = "to-aggregator"

KEY_BYTES: Final = 32
MAX_CONTENT_BYTES: Final = 1024 * 1024 * 1024
MAX_SITES: Final = 1024
SMALLEST_BYTES: Final = 1024
"""Padded size of everything shorter: how many metrics there are, and how long, does not show."""

_SUITE = 1
_CHUNK_BYTES = 1024 * 1024
_TAG_BYTES = 16
_NONCE_BYTES = 12
_LENGTH_BYTES = 8
_COMMITMENT_BYTES = 32
_WRAP_BYTES = _NONCE_BYTES + KEY_BYTES + _TAG_BYTES
_MAX_CONTEXT_BYTES = 4096
_MAX_SITE_CHARACTERS = 254
_RUN_ID = re.compile(r"0|[1-9][0-9]{0,19}")


@dataclass(frozen=True, slots=True)
class RunKey:
    """The secret of one run and one site.

    Attributes:
        secret: 32 random bytes; never shown by `repr`.

    Raises:
        InvalidInput: SEAL_REFUSED for another length.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes) or len(self.secret) != KEY_BYTES:
            raise _refused(f"a run key has {KEY_BYTES} bytes")

    @classmethod
    def generate(cls, random: Random = system_random) -> RunKey:
        """Return a fresh key."""
        return cls(random(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed content.

    Attributes:
        ciphertext: The same for every site.
        wraps: Site to its wrap of the content key.
    """

    ciphertext: bytes = field(repr=False)
    wraps: Mapping[str, bytes] = field(repr=False)


def seal_content(
    plain: bytes,
    key_of_site: Mapping[str, RunKey],
    *,
    run_id: str,
    direction: Direction,
    context: bytes,
    random: Random = system_random,
) -> Sealed:
    """Return `plain` sealed for the sites of `key_of_site`, or from the one site of it for the aggregator.

    Args:
        plain: The content, at most 1 GiB.
        key_of_site: Site to the secret that it shares with the aggregator; 1 to 1,024.
        run_id: The run.
        direction: Where it goes: nothing opens in the other direction.
        context: What it belongs to, such as the id of the message it answers; who opens it has to give the same.
        random: Source of the content key and the nonces of the wraps.

    Raises:
        InvalidInput: SEAL_REFUSED: no site, or a run, direction, site or context of no accepted form.
        LimitExceeded: SEAL_TOO_LARGE: `plain` is longer than 1 GiB.
    """
    if len(plain) > MAX_CONTENT_BYTES:
        raise LimitExceeded(
            f"At most {MAX_CONTENT_BYTES} bytes are sealed at once: make the model smaller.",
            reason="SEAL_TOO_LARGE",
            metadata={"limit_bytes": str(MAX_CONTENT_BYTES)},
        )
    if not 0 < len(key_of_site) <= MAX_SITES:
        raise _refused(f"a content is sealed for 1 to {MAX_SITES} sites")
    if direction == TO_AGGREGATOR and len(key_of_site) != 1:
        raise _refused("what goes to the aggregator is of one site")
    data = _content_data(run_id, direction, context)
    key = random(KEY_BYTES)
    ciphertext = _encrypt(plain, key, data)
    bound = _wrap_data(context, ciphertext)
    wraps = {}
    for site, run_key in key_of_site.items():
        nonce = random(_NONCE_BYTES)
        cipher = AESGCM(_wrapping_key(run_key, run_id, direction, site))
        wraps[site] = nonce + cipher.encrypt(nonce, key, bound)
    return Sealed(ciphertext, wraps)


def open_content(
    ciphertext: bytes,
    wrap: bytes,
    key: RunKey,
    *,
    run_id: str,
    direction: Direction,
    site: str,
    context: bytes,
) -> bytes:
    """Return the plain text of `ciphertext`; nothing of it is given before all of it holds.

    Args:
        ciphertext: As received.
        wrap: The wrap for `site`, as received.
        key: The secret of run and site.
        run_id: The run that it has to be of.
        direction: The direction that it has to have.
        site: The site that it has to be for or from.
        context: What it has to belong to; this is what refuses a replay.

    Raises:
        IntegrityFailure: UPDATE_UNREADABLE, one answer for all that does not hold.
        InvalidInput: SEAL_REFUSED: the caller's own run, direction, site or context has no accepted form.
    """
    data = _content_data(run_id, direction, context)
    wrapping_key = _wrapping_key(key, run_id, direction, site)
    if len(wrap) != _WRAP_BYTES:
        raise _unreadable()
    try:
        content_key = AESGCM(wrapping_key).decrypt(
            wrap[:_NONCE_BYTES], wrap[_NONCE_BYTES:], _wrap_data(context, ciphertext)
        )
        padded = _decrypt(ciphertext, content_key, data)
    except InvalidTag:
        raise _unreadable() from None
    size = int.from_bytes(padded[-_LENGTH_BYTES:], "big")
    end = len(padded) - _LENGTH_BYTES
    if size > end or padded.count(0, size, end) != end - size:
        raise _unreadable()
    return bytes(memoryview(padded)[:size])


def _encrypt(plain: bytes, key: bytes, data: bytes) -> bytes:
    padded_bytes = padme(len(plain) + _LENGTH_BYTES, at_least_bytes=SMALLEST_BYTES)
    chunks = -(-padded_bytes // _CHUNK_BYTES)
    sealed = bytearray(_COMMITMENT_BYTES + padded_bytes + chunks * _TAG_BYTES)
    sealed[:_COMMITMENT_BYTES] = _commitment(key)
    view, at = memoryview(sealed), _COMMITMENT_BYTES
    cipher = AESGCM(key)
    for number, chunk in enumerate(_padded_chunks(plain, padded_bytes)):
        size = len(chunk) + _TAG_BYTES
        cipher.encrypt_into(_nonce(number, is_last=number == chunks - 1), chunk, data, view[at : at + size])
        at += size
    return bytes(sealed)


def _padded_chunks(plain: bytes, padded_bytes: int) -> Iterator[memoryview | bytearray]:
    view = memoryview(plain)
    length = len(plain).to_bytes(_LENGTH_BYTES, "big")
    for start in range(0, padded_bytes, _CHUNK_BYTES):
        end = min(start + _CHUNK_BYTES, padded_bytes)
        if end <= len(plain):
            yield view[start:end]
            continue
        chunk = bytearray(end - start)
        rest = view[start:end]
        chunk[: len(rest)] = rest
        # The length may lie across two chunks.
        begin = max(start, padded_bytes - _LENGTH_BYTES)
        if begin < end:
            first = begin - (padded_bytes - _LENGTH_BYTES)
            chunk[begin - start :] = length[first : first + end - begin]
        yield chunk


def _decrypt(ciphertext: bytes, key: bytes, data: bytes) -> bytearray:
    sealed_chunk_bytes = _CHUNK_BYTES + _TAG_BYTES
    chunks = -(-(len(ciphertext) - _COMMITMENT_BYTES) // sealed_chunk_bytes)
    padded_bytes = len(ciphertext) - _COMMITMENT_BYTES - chunks * _TAG_BYTES
    if padded_bytes < SMALLEST_BYTES or padded_bytes <= (chunks - 1) * _CHUNK_BYTES:
        raise _unreadable()
    view = memoryview(ciphertext)
    if not hmac.compare_digest(bytes(view[:_COMMITMENT_BYTES]), _commitment(key)):
        raise _unreadable()
    padded = bytearray(padded_bytes)
    target, cipher = memoryview(padded), AESGCM(key)
    for number in range(chunks):
        start = _COMMITMENT_BYTES + number * sealed_chunk_bytes
        chunk = view[start : start + sealed_chunk_bytes]
        place = number * _CHUNK_BYTES
        into = target[place : place + len(chunk) - _TAG_BYTES]
        cipher.decrypt_into(_nonce(number, is_last=number == chunks - 1), chunk, data, into)
    return padded


def _nonce(number: int, *, is_last: bool) -> bytes:
    # The key is used for one content only, so the prefix of STREAM's nonce can be constant.
    return number.to_bytes(_NONCE_BYTES - 1, "big") + bytes([is_last])


def _content_data(run_id: str, direction: Direction, context: bytes) -> bytes:
    if not _RUN_ID.fullmatch(run_id) or int(run_id) >= 1 << 64:
        raise _refused("a run id is a decimal number below 2^64")
    if direction not in (TO_SITE, TO_AGGREGATOR):
        raise _refused(f"a direction is {TO_SITE} or {TO_AGGREGATOR}")
    if len(context) > _MAX_CONTEXT_BYTES:
        raise _refused(f"a context has at most {_MAX_CONTEXT_BYTES} bytes")
    return encode("flower-content", [_SUITE, run_id, direction, context])


def _wrap_data(context: bytes, ciphertext: bytes) -> bytes:
    return encode("flower-wrap", [_SUITE, context, hashlib.sha256(ciphertext).digest()])


def _wrapping_key(key: RunKey, run_id: str, direction: Direction, site: str) -> bytes:
    if not 0 < len(site) <= _MAX_SITE_CHARACTERS:
        raise _refused("a site is an e-mail address")
    info = encode("flower-wrap-key", [_SUITE, run_id, direction, site])
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key.secret)


def _commitment(key: bytes) -> bytes:
    # GCM alone lets an aggregator make one ciphertext that opens differently under two keys: all sites of a round
    # must get the same model.
    return hashlib.sha256(encode("flower-commitment", [_SUITE, key])).digest()


def _refused(problem: str) -> InvalidInput:
    return InvalidInput(f"The content is not sealed: {problem}.", reason="SEAL_REFUSED")


def _unreadable() -> IntegrityFailure:
    """Return the one error for whatever does not hold, so that it tells an attacker nothing."""
    return IntegrityFailure(
        "A message of the run does not open with the run's key: it was damaged, is an old one, or is not what and "
        "from whom it claims to be.",
        reason="UPDATE_UNREADABLE",
    )
