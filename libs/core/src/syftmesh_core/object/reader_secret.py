"""The secret of a reader set: 32 bytes for each datasite, set of readers and epoch.

HKDF-SHA-256 without salt derives from it a wrapping key, info ``ENC('reader-set-wrap', datasite, epoch,
reader-list digest)``: who reads wraps content keys with AES-KW (RFC 3394); and the seed of an X-Wing pair, info
``ENC('reader-set-xwing', …)``: who may only create seals content keys to its public half. The commitment
``SHA-256(ENC('reader-set-commitment', suite, datasite, epoch, reader-list digest, secret))`` is signed, so that
all readers get the same secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import MAX_INTEGER, Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.identity import xwing
from syftmesh_core.identity.device import is_principal
from syftmesh_core.sealed_container import KEY_BYTES, SUITE, WRAPPED_BYTES

MAX_PRINCIPALS = 1000
DIGEST_BYTES = 32
SECRET_BYTES = 32
KEY_WRAP_BYTES = KEY_BYTES + 8
"""Length of a content key wrapped by a reader; one sealed by a creator has 1,168 bytes."""

_MAX_SECRET_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ReaderSetId:
    """Which reader set.

    Attributes:
        site: E-mail address of the datasite's owner.
        epoch: From 1; whatever removes a reader starts a new one.
        readers_digest: `reader_list_digest` of its principals, 32 bytes.

    Raises:
        InvalidInput: READER_SET_REFUSED for a field beyond its form.
    """

    site: str
    epoch: int
    readers_digest: bytes = field(repr=False)

    def __post_init__(self) -> None:
        named = is_principal(self.site) and len(self.readers_digest) == DIGEST_BYTES
        if not named or not 1 <= self.epoch <= MAX_INTEGER:
            refuse_set_input("datasite, epoch or reader-list digest has not its form")


class ReaderSecret:
    """The secret of one reader set and what follows from it. Lives on readers' devices only.

    Args:
        set_id: Which set.
        secret: 32 bytes.

    Raises:
        InvalidInput: READER_SET_REFUSED when the secret has another length.
    """

    __slots__ = ("_secret", "_wrapping_key", "_xwing_seed", "commitment", "set_id", "xwing_key")

    def __init__(self, set_id: ReaderSetId, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            refuse_set_input("a secret has 32 bytes")
        self.set_id = set_id
        self._secret = bytes(secret)
        self._wrapping_key = _derive(self._secret, "reader-set-wrap", set_id)
        self._xwing_seed = _derive(self._secret, "reader-set-xwing", set_id)
        self.xwing_key = xwing.public_from_seed(self._xwing_seed)
        self.commitment = commitment_of(set_id, self._secret)

    @classmethod
    def generate(cls, set_id: ReaderSetId, *, random: Random = system_random) -> ReaderSecret:
        """Return a fresh secret for `set_id`."""
        return cls(set_id, random(SECRET_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> ReaderSecret:
        """Return the secret that `to_bytes` wrote.

        Raises:
            IntegrityFailure: ENCODING_INVALID.
            InvalidInput: READER_SET_REFUSED.
        """
        reader = Reader("reader-secret", data, max_bytes=_MAX_SECRET_BYTES)
        set_id = ReaderSetId(reader.text(), reader.integer(), reader.raw(DIGEST_BYTES))
        secret = reader.raw(SECRET_BYTES)
        reader.end()
        return cls(set_id, secret)

    def to_bytes(self) -> bytes:
        """Return the secret in the clear: for the key store, which encrypts it."""
        return encode("reader-secret", [*set_fields(self.set_id), self._secret])

    def wrap_to(self, device_key: bytes, info: bytes) -> bytes:
        """Return the secret sealed to a device's X-Wing key, for its grant.

        Raises:
            ValueError: `device_key` is not a usable X-Wing key.
        """
        return xwing.wrap(self._secret, device_key, info)

    def wrap(self, content_key: bytes) -> bytes:
        """Return `content_key` wrapped for all readers, 40 bytes; the same each time.

        Raises:
            InvalidInput: READER_SET_REFUSED when a content key has not 32 bytes.
        """
        check_content_key(content_key)
        return wrap_key(self._wrapping_key, content_key)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the content key that a reader wrapped or a creator sealed, 32 bytes.

        Raises:
            IntegrityFailure: KEY_WRAP_INVALID when it is of another set or epoch, or damaged.
        """
        key: bytes | None = None
        if len(wrapped) == KEY_WRAP_BYTES:
            key = unwrap_key(self._wrapping_key, wrapped)
        elif len(wrapped) == WRAPPED_BYTES:
            key = xwing.unwrap(wrapped, self._xwing_seed, content_key_info(self.set_id))
        if key is None or len(key) != KEY_BYTES:
            raise IntegrityFailure(
                "The file's key does not open with this reader set: it is of another set or epoch, or damaged.",
                reason="KEY_WRAP_INVALID",
                metadata={"epoch": str(self.set_id.epoch)},
            )
        return key

    def __repr__(self) -> str:
        return f"ReaderSecret(site={self.set_id.site!r}, epoch={self.set_id.epoch})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a reader set's secret is serialised by to_bytes, for the key store only")


def reader_list_digest(principals: Collection[str]) -> bytes:
    """Return the digest of a set of readers, 32 bytes: SHA-256 of ``ENC('reader-list', sorted list)``.

    Args:
        principals: Normalised e-mail addresses in any order, each once; sorted by their UTF-8 bytes here.

    Raises:
        InvalidInput: READER_SET_REFUSED for no reader, one twice, or a text that is no principal.
        LimitExceeded: TOO_MANY_READERS above 1,000.
    """
    if len(principals) > MAX_PRINCIPALS:
        raise LimitExceeded(
            f"At most {MAX_PRINCIPALS} principals are one reader set, not {len(principals)}: name fewer, or "
            "share the content with everybody.",
            reason="TOO_MANY_READERS",
            metadata={"limit": str(MAX_PRINCIPALS)},
        )
    if not principals or len(set(principals)) != len(principals) or not all(map(is_principal, principals)):
        refuse_set_input("it needs one principal or more, each once")
    ordered = sorted(principals, key=str.encode)
    return hashlib.sha256(encode("reader-list", [ordered])).digest()


def commitment_of(set_id: ReaderSetId, secret: bytes) -> bytes:
    """Return what binds everybody to one secret, 32 bytes."""
    data = encode("reader-set-commitment", [SUITE, *set_fields(set_id), secret])
    return hashlib.sha256(data).digest()


def content_key_info(set_id: ReaderSetId) -> bytes:
    """Return HPKE's info for a content key sealed by who may only create."""
    return encode("content-key", [SUITE, *set_fields(set_id)])


def set_fields(set_id: ReaderSetId) -> list[str | int | bytes]:
    """Return the fields that name the set, in their order."""
    return [set_id.site, set_id.epoch, set_id.readers_digest]


def check_content_key(content_key: bytes) -> None:
    """Refuse a content key of another length.

    Raises:
        InvalidInput: READER_SET_REFUSED.
    """
    if len(content_key) != KEY_BYTES:
        refuse_set_input("a content key has 32 bytes")


def wrap_key(wrapping_key: bytes, content_key: bytes) -> bytes:
    """Return `content_key` under `wrapping_key` by AES-KW (RFC 3394, section 2.2.1), 40 bytes."""
    return aes_key_wrap(wrapping_key, content_key)


def unwrap_key(wrapping_key: bytes, wrapped: bytes) -> bytes | None:
    """Return the key in `wrapped`, or None when it does not open."""
    try:
        return aes_key_unwrap(wrapping_key, wrapped)
    except InvalidUnwrap:
        return None


def refuse_set_input(what: str) -> NoReturn:
    """Raise the error for a reader set that cannot be made.

    Raises:
        InvalidInput: READER_SET_REFUSED.
    """
    raise InvalidInput(f"The reader set is refused: {what}.", reason="READER_SET_REFUSED")


def _derive(secret: bytes, label: str, set_id: ReaderSetId) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=encode(label, set_fields(set_id))).derive(secret)
