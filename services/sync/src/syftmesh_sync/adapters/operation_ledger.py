"""Operations in the key-value bucket `sync_operation`; the bucket forgets them after two days."""

from __future__ import annotations

import json
from typing import Final, Protocol

from syftmesh_core.errors import Conflict, Internal, Unavailable
from syftmesh_kit.kv import KvEntry
from syftmesh_kit.subject import kv_key

from syftmesh_sync.domain.operation import Holding, Operation, Uploader

_TRIES: Final = 8


class Bucket(Protocol):
    """The part of `syftmesh_kit.kv.KvBucket` that is needed here."""

    async def get(self, key: str) -> KvEntry | None:
        """Return the value of `key`."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Write `value` only if the key is missing."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write `value` only if the revision is still `revision`."""
        ...


class OperationLedger:
    """See `domain.ports.Ledger`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def find(self, operation_id: str) -> Operation | None:
        """Return the operation, None when it is unknown or forgotten."""
        found = await self._bucket.get(kv_key(operation_id))
        return None if found is None else _decode(operation_id, found)

    async def save(self, operation: Operation) -> Operation:
        """See `domain.ports.Ledger.save`; two windows of one operation saved at once both stay."""
        key = kv_key(operation.operation_id)
        for _ in range(_TRIES):
            found = await self._bucket.get(key)
            try:
                if found is None:
                    await self._bucket.create(key, _encode(operation))
                    return operation
                joined = _decode(operation.operation_id, found).joined(operation)
                await self._bucket.update(key, _encode(joined), found.revision)
            except Conflict:
                continue
            return joined
        raise Unavailable("The operation is being written from many places: try again.", reason="BUSY")


def _encode(operation: Operation) -> bytes:
    value = {
        "principal": operation.owner.principal,
        "device": operation.owner.device_id,
        "site": operation.site,
        "objects": {object_id: holding.value for object_id, holding in operation.objects.items()},
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _decode(operation_id: str, entry: KvEntry) -> Operation:
    try:
        value = json.loads(entry.value or b"")
        return Operation(
            operation_id,
            Uploader(value["principal"], value["device"]),
            value["site"],
            {object_id: Holding(held) for object_id, held in value["objects"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Internal("An entry of the operation ledger is damaged.") from error
