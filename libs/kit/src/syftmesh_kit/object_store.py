"""The object store as a port: immutable objects in one bucket, plain S3 semantics only.

Keys are paths of ``[A-Za-z0-9._/@=-]`` (`check_key`); prefixes separate what architecture.md names
(``packs/``, ``manifests/``, ``journal/``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from syftmesh_core.errors import AlreadyExists, IntegrityFailure, InvalidInput, MeshError, NotFound

MAX_PRESIGN_TTL_S: Final = 60
_KEY: Final = re.compile(r"[A-Za-z0-9_=@-][A-Za-z0-9._=@-]*(?:/[A-Za-z0-9_=@-][A-Za-z0-9._=@-]*)*")
_MAX_KEY_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: key, size in bytes, ETag and time of its last write (Unix milliseconds)."""

    key: str
    size_bytes: int
    etag: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class PresignedRequest:
    """A request that its holder may make once or more until it expires.

    Attributes:
        method: ``PUT`` or ``GET``.
        url: Whole URL with its signature; a secret, never logged.
        headers: Headers that must be sent exactly so; they are signed.
        expires_at_ms: End of its life, Unix milliseconds.
    """

    method: str
    url: str = field(repr=False)
    headers: dict[str, str]
    expires_at_ms: int


class ObjectStore(Protocol):
    """What the product needs of an object store; `s3.S3ObjectStore` and `testing.FakeObjectStore` are it.

    Every method raises InvalidInput (OBJECT_KEY_INVALID) for a bad key and Unavailable (OBJECT_STORE_AWAY)
    when the store does not answer.
    """

    async def put(self, key: str, data: bytes, *, create: bool = True) -> None:
        """Store `data`; with `create` only if nothing is there.

        Raises:
            AlreadyExists: Something is there (OBJECT_EXISTS); never with ``create=False``.
        """
        ...

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from `start` up to, not including, `end` (None: to the object's end).

        Raises:
            NotFound: No such object (OBJECT_MISSING).
            InvalidInput: The range is empty or starts behind the object (RANGE_INVALID).
        """
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known about the object, or None when it is missing."""
        ...

    async def delete(self, key: str) -> None:
        """Delete the object; it may be missing."""
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the objects below `prefix` (ends with ``/``, or is empty) in byte order of keys.

        `after` skips keys up to and including it.
        """
        ...

    def presign_put(self, key: str, *, size_bytes: int, sha256: bytes, ttl_s: int) -> PresignedRequest:
        """Return the right to write exactly these bytes once.

        Length, SHA-256 and ``If-None-Match: *`` are bound. Another length or missing header is
        answered 403, other bytes 400, an existing object 412.

        Args:
            key: Where to.
            size_bytes: Length of the body in bytes.
            sha256: Its SHA-256, 32 bytes.
            ttl_s: Seconds the right lives, 1 to 60.

        Raises:
            InvalidInput: Such a right cannot be given (PRESIGN_INVALID).
        """
        ...

    def presign_get(self, key: str, *, ttl_s: int) -> PresignedRequest:
        """Return the right to read the object, ranges too, for `ttl_s` (1 to 60) seconds."""
        ...


def check_key(key: str) -> str:
    """Return `key` when it is valid.

    Raises:
        InvalidInput: It is empty, longer than 512 bytes, has other characters, or a segment that is empty
            or starts with a dot (OBJECT_KEY_INVALID).
    """
    if len(key) > _MAX_KEY_BYTES or not _KEY.fullmatch(key):
        raise InvalidInput(
            f"The object key {key[:80]!r} is not valid.",
            reason="OBJECT_KEY_INVALID",
            metadata={"key": key[:80]},
        )
    return key


def check_presign(key: str, ttl_s: int, *, size_bytes: int = 0, sha256: bytes = bytes(32)) -> None:
    """Check the arguments of the pre-signing methods; raises as they do."""
    check_key(key)
    if not 1 <= ttl_s <= MAX_PRESIGN_TTL_S or size_bytes < 0 or len(sha256) != 32:
        raise InvalidInput(
            f"A pre-signed URL lives 1 to {MAX_PRESIGN_TTL_S} s and binds a length and a SHA-256.",
            reason="PRESIGN_INVALID",
            metadata={"ttl_s": str(ttl_s)},
        )


async def storage_check(store: ObjectStore, token: str) -> list[str]:
    """Check that a store keeps the promises the product is built on, and return one line per promise kept.

    Args:
        store: The store; objects below ``check/<token>/`` are written and removed again.
        token: Name of this run, safe for a key.

    Raises:
        IntegrityFailure: A promise does not hold (STORE_UNFIT, metadata ``promise``); the store must not be
            used.
        Unavailable: The store does not answer.
    """
    key = check_key(f"check/{token}/object")
    body = hashlib.sha256(token.encode()).digest() * 32
    kept: list[str] = []
    try:
        await store.put(key, body)
        _promise(kept, "read-after-write", holds=await store.get(key) == body)
        found = await store.head(key)
        _promise(kept, "head-after-write", holds=found is not None and found.size_bytes == len(body))
        _promise(kept, "range", holds=await store.get(key, start=3, end=40) == body[3:40])
        _promise(kept, "range-to-end", holds=await store.get(key, start=1000) == body[1000:])
        _promise(kept, "create-if-absent", holds=await _refuses(store, key, AlreadyExists))
        _promise(kept, "create-leaves-old", holds=await store.get(key) == body)
        listed = [info.key async for info in store.list(f"check/{token}/")]
        _promise(kept, "list-after-write", holds=listed == [key])
        await store.put(key, body[:100], create=False)
        _promise(kept, "overwrite", holds=await store.get(key) == body[:100])
        await store.delete(key)
        _promise(kept, "delete", holds=await store.head(key) is None)
    except (AlreadyExists, NotFound, InvalidInput) as error:
        raise _unfit(error.reason.lower()) from error
    return kept


def _promise(kept: list[str], name: str, *, holds: bool) -> None:
    if not holds:
        raise _unfit(name)
    kept.append(name)


def _unfit(promise: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"The object store does not keep the promise {promise!r}. Use another store or version.",
        reason="STORE_UNFIT",
        metadata={"promise": promise},
    )


async def _refuses(store: ObjectStore, key: str, kind: type[MeshError]) -> bool:
    try:
        await store.put(key, b"other")
    except kind:
        return True
    return False
