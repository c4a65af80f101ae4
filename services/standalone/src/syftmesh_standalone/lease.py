"""Leases that a killed mesh left behind, given up in its name.

Whoever holds the lock of a state is the only mesh on it, so every holder from before is dead. Without this,
sites and journals would wait for a term of ten seconds after each kill.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import structlog
from syftmesh_core.errors import Conflict, NotFound
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.kv import KvBucket
from syftmesh_kit.lease import freed_lease

from syftmesh_standalone.store import Stores

_BUCKETS: Final = (subject.KV_LEASE, subject.KV_JOURNAL)
_OF_THE_HOLDER: Final = ("router",)
"""What a site's lease says of the router that held it: where others sent its calls."""

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
        freed = freed_lease(entry.value or b"", forget=_OF_THE_HOLDER)
        if freed is None:
            continue
        with suppress(Conflict):
            await bucket.update(entry.key, freed, entry.revision)
            released += 1
    return released
