"""The ring of signing keys in its JetStream key-value bucket, followed by every replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.errors import IntegrityFailure
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.keyset import KvMirror
from syftmesh_kit.kv import KvEntry

from syftmesh_identity.adapters.codec import JsonCodec
from syftmesh_identity.adapters.kv_store import KvRecords
from syftmesh_identity.domain.model import Stored
from syftmesh_identity.domain.ring import Ring, RingKey

_log: Any = structlog.get_logger("syftmesh.identity")


def _ring(found: dict[str, Any]) -> Ring:
    return Ring(found["root_kid"], tuple(RingKey(**key) for key in found["keys"]))


RINGS: Final = JsonCodec(_ring)


def rings_on(bus: Bus, clock: Clock) -> KvRecords[Ring]:
    """Return the ring in its bucket, which only identity's user may read."""
    return KvRecords(bus.kv(subject.KV_IDENTITY_SIGNING), RINGS, clock)


class RingFollower:
    """Shows each state of the ring to whoever signs.

    Args:
        bus: The message bus.
        follow: Takes it.
    """

    def __init__(self, bus: Bus, follow: Callable[[Stored[Ring]], None]) -> None:
        self._mirror = KvMirror(bus, subject.KV_IDENTITY_SIGNING, self._apply)
        self._follow = follow

    async def run(self) -> None:
        """Follow the bucket for ever; run it in a TaskGroup."""
        await self._mirror.run()

    def _apply(self, entry: KvEntry) -> None:
        if entry.value is None:
            return
        try:
            ring = RINGS.decode(entry.value)
        except IntegrityFailure:
            _log.error(
                "signing.ring_damaged", revision=entry.revision
            )  # whoever asks for a token is told too
            return
        self._follow(Stored(ring, entry.revision))
