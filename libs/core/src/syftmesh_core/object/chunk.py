"""Chunks: pieces of content, each sealed with a key of its own and addressed by its ciphertext.

AES-256-GCM under a random 32-byte key that seals this chunk only, hence with a nonce of zeros; associated
data ``ENC('chunk', datasite, suite)``. Neither path nor position enters a chunk: a rename costs nothing, and
an insertion seals only what changed. The address is BLAKE3 of ciphertext and tag.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TypeAlias

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.identity.device import is_principal
from syftmesh_core.sealed_container import KEY_BYTES, SUITE, TAG_BYTES

MAX_CHUNK_BYTES = 4 * 1024 * 1024
"""Longest plaintext of a chunk, in bytes: what content-defined chunking cuts at the latest."""

MAX_SEALED_CHUNK_BYTES = MAX_CHUNK_BYTES + TAG_BYTES
"""Longest ciphertext with its tag, in bytes: the size of a buffer that takes every chunk."""

ADDRESS_BYTES = 32

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that are read."""

Room: TypeAlias = bytearray | memoryview
"""A buffer of the caller that is written to."""

_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class ChunkSecret:
    """What opens one sealed chunk, and proves that it is the one.

    Attributes:
        address: BLAKE3 of the ciphertext with its tag, 32 bytes.
        plain_bytes: Exact length of the plaintext, 1 byte to 4 MiB.
        key: The chunk's own key, 32 bytes; never shown by `repr`.

    Raises:
        InvalidInput: CHUNK_REFUSED for a field beyond its form.
    """

    address: bytes = field(repr=False)
    plain_bytes: int
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        sized = (len(self.address), len(self.key)) == (ADDRESS_BYTES, KEY_BYTES)
        if not sized or not 1 <= self.plain_bytes <= MAX_CHUNK_BYTES:
            raise InvalidInput(
                f"A chunk has 1 to {MAX_CHUNK_BYTES} bytes, an address of 32 and a key of 32 bytes.",
                reason="CHUNK_REFUSED",
            )

    @property
    def sealed_bytes(self) -> int:
        """Length of the ciphertext with its tag."""
        return self.plain_bytes + TAG_BYTES


class ChunkCipher:
    """Seals and opens the chunks of one datasite, in buffers of the caller.

    A buffer to write to may be longer than what is written; the answer is a view of the part that was.

    Args:
        site: E-mail address of the datasite's owner.
        random: Source of the chunks' keys.

    Raises:
        InvalidInput: CHUNK_REFUSED when `site` cannot be a datasite's owner.
    """

    __slots__ = ("_data", "_random", "site")

    def __init__(self, site: str, *, random: Random = system_random) -> None:
        if not is_principal(site):
            raise InvalidInput("A datasite is named by its owner's e-mail address.", reason="CHUNK_REFUSED")
        self.site = site
        self._data = encode("chunk", [site, SUITE])
        self._random = random

    def seal_into(self, plaintext: Buffer, into: Room) -> tuple[ChunkSecret, memoryview]:
        """Seal `plaintext` under a fresh key; return what opens it, and the ciphertext's view of `into`.

        Raises:
            InvalidInput: CHUNK_REFUSED for no plaintext, or when `into` has no room for it and 16 bytes.
            LimitExceeded: CHUNK_TOO_LARGE above 4 MiB.
        """
        key, sealed = self.encrypt_into(plaintext, into)
        return ChunkSecret(chunk_address(sealed), len(plaintext), key), sealed

    def encrypt_into(self, plaintext: Buffer, into: Room) -> tuple[bytes, memoryview]:
        """Do as `seal_into` without the address; return the key and the ciphertext's view of `into`."""
        key = self._random(KEY_BYTES)
        return key, self._encrypt_into(key, plaintext, into)

    def rebuild_into(self, plaintext: Buffer, secret: ChunkSecret, into: Room) -> memoryview:
        """Return the ciphertext of a lost chunk again, from its plaintext: sealing is deterministic.

        Raises:
            IntegrityFailure: CHUNK_INVALID when `plaintext` is not what the chunk held. Nothing is left in
                `into` then, for a key that seals two plaintexts shows both.
            InvalidInput: CHUNK_REFUSED as `seal_into`.
            LimitExceeded: CHUNK_TOO_LARGE as `seal_into`.
        """
        sealed = self._encrypt_into(secret.key, plaintext, into)
        if not hmac.compare_digest(chunk_address(sealed), secret.address):
            sealed[:] = bytes(len(sealed))
            raise chunk_invalid()
        return sealed

    def open_into(self, sealed: Buffer, secret: ChunkSecret, into: Room) -> memoryview:
        """Open `sealed` once its address holds; return the plaintext's view of `into`.

        Raises:
            IntegrityFailure: CHUNK_INVALID when it is not the chunk of `secret`, or not of this datasite.
            InvalidInput: CHUNK_REFUSED when `into` has no room for the plaintext.
        """
        if len(sealed) != secret.sealed_bytes:
            raise chunk_invalid()
        if not hmac.compare_digest(chunk_address(sealed), secret.address):
            raise chunk_invalid()
        return self.decrypt_into(sealed, secret, into)

    def decrypt_into(self, sealed: Buffer, secret: ChunkSecret, into: Room) -> memoryview:
        """Do as `open_into` where the caller has checked the address itself."""
        if len(sealed) != secret.sealed_bytes:
            raise chunk_invalid()
        plain = _room(into, secret.plain_bytes)
        try:
            AESGCM(secret.key).decrypt_into(_NONCE, sealed, self._data, plain)
        except InvalidTag:
            plain[:] = bytes(len(plain))
            raise chunk_invalid() from None
        return plain

    def _encrypt_into(self, key: bytes, plaintext: Buffer, into: Room) -> memoryview:
        size = len(plaintext)
        if size == 0:
            raise InvalidInput("A chunk has at least one byte.", reason="CHUNK_REFUSED")
        if size > MAX_CHUNK_BYTES:
            raise LimitExceeded(
                f"A chunk has at most {MAX_CHUNK_BYTES} bytes, not {size}: cut the content smaller.",
                reason="CHUNK_TOO_LARGE",
                metadata={"limit_bytes": str(MAX_CHUNK_BYTES), "size_bytes": str(size)},
            )
        sealed = _room(into, size + TAG_BYTES)
        AESGCM(key).encrypt_into(_NONCE, plaintext, self._data, sealed)
        return sealed


def chunk_address(sealed: Buffer) -> bytes:
    """Return the address of a chunk, BLAKE3 of its ciphertext with the tag, 32 bytes."""
    return blake3(sealed).digest()


def chunk_invalid() -> IntegrityFailure:
    """Return the one error for a chunk that is not what its manifest says."""
    return IntegrityFailure(
        "A chunk does not hold: it was damaged, or is not the one that its manifest names. Fetch it again.",
        reason="CHUNK_INVALID",
    )


def _room(into: Room, size: int) -> memoryview:
    view = memoryview(into)
    if view.readonly or view.nbytes != len(view) or len(view) < size:
        raise InvalidInput(f"The buffer has no room for {size} bytes.", reason="CHUNK_REFUSED")
    return view[:size]
