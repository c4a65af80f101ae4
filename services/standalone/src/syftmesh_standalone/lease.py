"""Leases that a killed mesh left behind, given up in its name.

Whoever holds the lock of a state is the only mesh on it, so every holder from before is dead. Without this,
sites and journals would wait for a term of ten seconds after each kill.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

import structlog
from syftmesh_core.errors import Conflict, NotFound
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.kv import KvBucket

from syftmesh_standalone.store import Stores

_BUCKETS: Final = (subject.KV_LEASE, subject.KV_JOURNAL)

_log: Any = structlog.get_logger("syftmesh.mesh")


async def release_leases(stores: Stores) -> int:
    """Give up every lease on the bus and return how many were held; call it before a service starts.

    Terms stay, because they fence off what a dead holder may have sent.

    Raises:
        Unavailable: The bus does not answer.
    """
    address = stores.bus
    bus = await Bus.connect(address.url, name="mesh", user=address.user, password=address.password)
    try:
        released = 0
        for name in _BUCKETS:
            with suppress(NotFound):  # the first start: nobody has declared it yet
                released += await _release(bus.kv(name))
        if released:
            _log.info("mesh.leases_released", count=released)
        return released
    finally:
        await bus.close()


async def _release(bucket: KvBucket) -> int:
    released = 0
    async for entry in bucket.entries():
        freed = freed_lease(entry.value or b"")
        if freed is None:
            continue
        with suppress(Conflict):
            await bucket.update(entry.key, freed, entry.revision)
            released += 1
    return released


def freed_lease(value: bytes) -> bytes | None:
    """Return a lease's entry without its holder, None for an entry that is no lease or has none."""
    try:
        found = json.loads(value)
        if not found["holder"]:
            return None
        kept = found["value"]
        if "router" in kept:
            kept = {**kept, "router": ""}
        return json.dumps({"holder": "", "term": int(found["term"]), "value": kept}).encode()
    except (ValueError, KeyError, TypeError):
        return None
