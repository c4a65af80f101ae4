"""The object store by site and object id."""

from __future__ import annotations

from typing import Final

from syftmesh_kit.filelog import object_key
from syftmesh_kit.object_store import MAX_PRESIGN_TTL_S, ObjectStore, PresignedRequest

_TTL_S: Final = MAX_PRESIGN_TTL_S


class ObjectShelf:
    """See `domain.ports.Objects`. Proofs of possession lie apart, below the operation that put them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def size(self, site: str, object_id: str) -> int | None:
        """Return the size of a stored object, None when there is none."""
        return await self._size(object_key(site, object_id))

    async def proof_size(self, operation_id: str, object_id: str) -> int | None:
        """Return the size of what was put as proof of possession, None when nothing was."""
        return await self._size(_proof_key(operation_id, object_id))

    async def read(self, site: str, object_id: str) -> bytes:
        """Return the bytes; raises NotFound when there are none."""
        return await self._store.get(object_key(site, object_id))

    def grant_put(self, site: str, object_id: str, size_bytes: int) -> PresignedRequest:
        """Return the right to put the object once."""
        return self._grant(object_key(site, object_id), object_id, size_bytes)

    def grant_proof(self, operation_id: str, object_id: str, size_bytes: int) -> PresignedRequest:
        """Return the right to put the same bytes aside."""
        return self._grant(_proof_key(operation_id, object_id), object_id, size_bytes)

    def grant_get(self, site: str, object_id: str) -> PresignedRequest:
        """Return the right to get the object."""
        return self._store.presign_get(object_key(site, object_id), ttl_s=_TTL_S)

    async def _size(self, key: str) -> int | None:
        found = await self._store.head(key)
        return None if found is None else found.size_bytes

    def _grant(self, key: str, object_id: str, size_bytes: int) -> PresignedRequest:
        digest = bytes.fromhex(object_id)
        return self._store.presign_put(key, size_bytes=size_bytes, sha256=digest, ttl_s=_TTL_S)


def _proof_key(operation_id: str, object_id: str) -> str:
    return f"proofs/{operation_id}/{object_id}"
