"""Manifests: what a file consists of, sealed as an object of its own.

``ENC('manifest', suite, size, BLAKE3 of the content, mode, mtime, chunks)``, each chunk the list (pack id,
offset, length, address, plaintext length, key), in the order of the content. The list alone gives order and
place: a chunk carries neither. The sealed form is ``commitment | AES-256-GCM`` of ``length | manifest |
zeros``, with a nonce of zeros under a content key drawn for this version only, and the associated data
``ENC('manifest-body', datasite, suite)``.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NoReturn

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import MAX_INTEGER, Reader, Value, encode, item_fields
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, MeshError
from syftmesh_core.object.chunk import ADDRESS_BYTES, Buffer, ChunkSecret
from syftmesh_core.object.pack import PACK_ID_BYTES, ChunkRef
from syftmesh_core.padding import padme
from syftmesh_core.sealed_container import COMMITMENT_BYTES, KEY_BYTES, SUITE, TAG_BYTES

MAX_CHUNKS = 1 << 18
"""Most chunks of one file: 256 GiB at the usual average of 1 MiB."""

DIGEST_BYTES = 32
MAX_MODE = 0o777
MIN_PADDED_BYTES = 1024
"""Smallest padded size of a manifest: those of files of one to a few chunks look alike."""

_NONCE = bytes(12)
_LENGTH_BYTES = 8
_ITEM_BYTES = 4 + 4 + 6 * 4 + PACK_ID_BYTES + 3 * 8 + ADDRESS_BYTES + KEY_BYTES
_MAX_BODY_BYTES = 1024 + MAX_CHUNKS * _ITEM_BYTES
MAX_MANIFEST_BYTES = COMMITMENT_BYTES + padme(_LENGTH_BYTES + _MAX_BODY_BYTES) + TAG_BYTES
"""Longest sealed manifest, in bytes."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a file's content.

    Attributes:
        size_bytes: Exact size of the content.
        content_blake3: BLAKE3 of the content, 32 bytes.
        mode: POSIX permission bits, without set-id and sticky bits.
        mtime_ms: Unix milliseconds of the last change, by the writer's clock.
        chunks: In the order of the content; none for an empty file.

    Raises:
        InvalidInput: MANIFEST_REFUSED when these do not fit together.
        LimitExceeded: MANIFEST_TOO_LARGE above 2^18 chunks.
    """

    size_bytes: int
    content_blake3: bytes = field(repr=False)
    mode: int
    mtime_ms: int
    chunks: tuple[ChunkRef, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.chunks) > MAX_CHUNKS:
            raise LimitExceeded(
                f"A file has at most {MAX_CHUNKS} chunks: split it into several files.",
                reason="MANIFEST_TOO_LARGE",
                metadata={"limit": str(MAX_CHUNKS)},
            )
        if len(self.content_blake3) != DIGEST_BYTES or not 0 <= self.mode <= MAX_MODE:
            _refuse_input("a digest has 32 bytes, a mode nine bits")
        if not 0 <= self.mtime_ms <= MAX_INTEGER:
            _refuse_input("its time is not within 0 and 2^64 - 1 milliseconds")
        if self.size_bytes != sum(chunk.secret.plain_bytes for chunk in self.chunks):
            _refuse_input("its size is not that of its chunks")
        if not self.chunks and self.content_blake3 != blake3(b"").digest():
            _refuse_input("it has no chunks, and its digest is not that of an empty file")
        _check_keys(self.chunks)


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """What `seal_manifest` gives.

    Attributes:
        blob: The sealed bytes, stored as one object.
        content_key: What opens them, 32 bytes, to be wrapped for the readers; never shown by `repr`.
    """

    blob: bytes = field(repr=False)
    content_key: bytes = field(repr=False)


def seal_manifest(manifest: Manifest, *, site: str, random: Random = system_random) -> SealedManifest:
    """Return `manifest` sealed under a content key drawn for it.

    Args:
        manifest: What to seal.
        site: E-mail address of the datasite's owner.
        random: Source of the content key.
    """
    key = random(KEY_BYTES)
    return SealedManifest(_seal(manifest, site, key), key)


def reseal_manifest(manifest: Manifest, *, site: str, content_key: bytes, object_id: bytes) -> bytes:
    """Return a lost manifest's blob again, from what a reader knows of it: sealing is deterministic.

    Args:
        manifest: As it was opened.
        site: E-mail address of the datasite's owner.
        content_key: The key of this version.
        object_id: SHA-256 of the lost blob, 32 bytes.

    Raises:
        IntegrityFailure: MANIFEST_INVALID when it was another manifest or key; nothing is given out then, for
            a key that seals two manifests shows both.
    """
    if len(content_key) != KEY_BYTES:
        raise manifest_invalid()
    blob = _seal(manifest, site, content_key)
    if not hmac.compare_digest(hashlib.sha256(blob).digest(), object_id):
        raise manifest_invalid()
    return blob


def open_manifest(blob: Buffer, *, site: str, content_key: bytes) -> Manifest:
    """Return the manifest in `blob`.

    Raises:
        IntegrityFailure: MANIFEST_INVALID, one answer for all that does not hold.
    """
    sealed = memoryview(blob)
    padded_bytes = len(sealed) - COMMITMENT_BYTES - TAG_BYTES
    if len(sealed) > MAX_MANIFEST_BYTES or padded_bytes < MIN_PADDED_BYTES or len(content_key) != KEY_BYTES:
        raise manifest_invalid()
    if not hmac.compare_digest(bytes(sealed[:COMMITMENT_BYTES]), _commitment(content_key)):
        raise manifest_invalid()
    padded = bytearray(padded_bytes)
    try:
        AESGCM(content_key).decrypt_into(_NONCE, sealed[COMMITMENT_BYTES:], _data(site), padded)
    except InvalidTag:
        raise manifest_invalid() from None
    end = _LENGTH_BYTES + int.from_bytes(padded[:_LENGTH_BYTES], "big")
    # One manifest has one sealed form: else two object ids could stand for one version.
    exact = end <= padded_bytes == padme(end, at_least_bytes=MIN_PADDED_BYTES)
    if not exact or padded.count(0, end) != padded_bytes - end:
        raise manifest_invalid()
    try:
        return _parse(bytes(memoryview(padded)[_LENGTH_BYTES:end]))
    except MeshError:
        raise manifest_invalid() from None


def manifest_invalid() -> IntegrityFailure:
    """Return the one error for a manifest that does not hold."""
    return IntegrityFailure(
        "The list of a file's chunks does not hold: it was damaged, or is not of this file and version.",
        reason="MANIFEST_INVALID",
    )


def _seal(manifest: Manifest, site: str, key: bytes) -> bytes:
    body = _encode(manifest)
    padded = bytearray(padme(_LENGTH_BYTES + len(body), at_least_bytes=MIN_PADDED_BYTES))
    padded[:_LENGTH_BYTES] = len(body).to_bytes(_LENGTH_BYTES, "big")
    padded[_LENGTH_BYTES : _LENGTH_BYTES + len(body)] = body
    blob = bytearray(COMMITMENT_BYTES + len(padded) + TAG_BYTES)
    blob[:COMMITMENT_BYTES] = _commitment(key)
    AESGCM(key).encrypt_into(_NONCE, padded, _data(site), memoryview(blob)[COMMITMENT_BYTES:])
    return bytes(blob)


def _encode(manifest: Manifest) -> bytes:
    chunks: list[Value] = [
        [
            chunk.pack_id,
            chunk.offset,
            chunk.sealed_bytes,
            chunk.secret.address,
            chunk.secret.plain_bytes,
            chunk.secret.key,
        ]
        for chunk in manifest.chunks
    ]
    head: list[Value] = [
        SUITE,
        manifest.size_bytes,
        manifest.content_blake3,
        manifest.mode,
        manifest.mtime_ms,
    ]
    return encode("manifest", [*head, chunks])


def _parse(data: bytes) -> Manifest:
    reader = Reader("manifest", data, max_bytes=_MAX_BODY_BYTES)
    if reader.integer() != SUITE:
        raise manifest_invalid()
    manifest = Manifest(
        size_bytes=reader.integer(),
        content_blake3=reader.raw(DIGEST_BYTES),
        mode=reader.integer(),
        mtime_ms=reader.integer(),
        chunks=tuple(_parse_chunk(item) for item in reader.items(MAX_CHUNKS)),
    )
    reader.end()
    return manifest


def _parse_chunk(item: bytes) -> ChunkRef:
    fields = item_fields(item, 6)
    if len(fields) != 6 or {len(fields[i]) for i in (1, 2, 4)} != {8}:
        raise manifest_invalid()
    offset, length, plain_bytes = (int.from_bytes(fields[i], "big") for i in (1, 2, 4))
    chunk = ChunkRef(fields[0], offset, ChunkSecret(fields[3], plain_bytes, fields[5]))
    if length != chunk.sealed_bytes:
        raise manifest_invalid()
    return chunk


def _check_keys(chunks: tuple[ChunkRef, ...]) -> None:
    # A key seals one chunk: two addresses under one key would show the XOR of both plaintexts.
    by_key = sorted((chunk.secret.key, chunk.secret.address, chunk.secret.plain_bytes) for chunk in chunks)
    if any(one[0] == two[0] and one != two for one, two in pairwise(by_key)):
        _refuse_input("two of its chunks have one key")


def _commitment(key: bytes) -> bytes:
    # GCM alone lets a malicious author make one blob open differently under two keys.
    return hashlib.sha256(encode("manifest-commitment", [SUITE, key])).digest()


def _data(site: str) -> bytes:
    return encode("manifest-body", [site, SUITE])


def _refuse_input(what: str) -> NoReturn:
    raise InvalidInput(f"The list of a file's chunks is refused: {what}.", reason="MANIFEST_REFUSED")
