"""Leases of sites, and the apps their devices named, in the key-value bucket `lease`."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final

from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import Conflict
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.kv import KvBucket
from syftmesh_kit.lease import Lease, lease_value

from syftmesh_router.domain.device_book import ANY_APP

_CLAIM_MS: Final = 30 * 86_400_000
_CLAIM_RENEW_MS: Final = 86_400_000
_MAX_CLAIMS: Final = 1_000
_MAX_EPOCH: Final = 2**62
_TRIES: Final = 5


class KvSiteLease:
    """`ports.SiteLease` on the kit's lease.

    The epoch is the lease's term number, raised by what is kept with the lease: when the bucket was rebuilt,
    terms start anew, and the site would refuse them as of a dead holder.

    Args:
        lease: The lease.
        router: This replica.
    """

    def __init__(self, lease: Lease, router: str) -> None:
        self._lease = lease
        self._router = router

    @property
    def epoch(self) -> int:
        """The epoch under which this replica delivers, 0 while it does not hold the lease."""
        return self._lease.term + self._base if self._lease.is_held else 0

    @property
    def _base(self) -> int:
        return int(self._lease.value.get("base", 0))

    async def acquire(self, above: int) -> bool:
        """Take the lease if it is free."""
        if not await self._lease.try_acquire():
            return False
        base = max(self._base, min(above, _MAX_EPOCH) - self._lease.term + 1)
        return await self._lease.renew({"router": self._router, "base": base})

    async def renew(self) -> bool:
        """Renew; return False when it was lost."""
        return await self._lease.renew()

    async def release(self) -> None:
        """Give it up, unless it was lost before."""
        if self._lease.is_held and await self._lease.renew({**self._lease.value, "router": ""}):
            await self._lease.release()


class KvSiteLeases:
    """`ports.SiteLeases` on the bucket `lease`.

    Args:
        bus: The bus.
        router: This replica's id.
        clock: Monotonic and wall time.
        random: Source of ids.
        term_s: Seconds of a lease.
    """

    def __init__(self, bus: Bus, router: str, clock: Clock, random: Random, term_s: float) -> None:
        self._kv: KvBucket = bus.kv(subject.KV_LEASE)
        self._router = router
        self._clock = clock
        self._random = random
        self._term_s = term_s

    def lease(self, site: str) -> KvSiteLease:
        """Return this replica's hand on the lease of `site`."""
        # A holder id of its own per desk: a desk that ends must not release what its successor took.
        holder = uuid7(self._clock, self._random)
        kept = Lease(self._kv, subject.kv_key(site), holder, self._clock, term_s=self._term_s)
        return KvSiteLease(kept, self._router)

    async def holder_of(self, site: str) -> str:
        """Return the router that delivers to the site, empty when nobody does."""
        value = await lease_value(self._kv, subject.kv_key(site))
        return str(value.get("router", ""))


class KvAppClaims:
    """`ports.AppClaims` on the bucket `lease`.

    Args:
        bus: The bus.
        clock: Wall time.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._kv: KvBucket = bus.kv(subject.KV_LEASE)
        self._clock = clock

    async def claimed(self, site: str) -> frozenset[str]:
        """Return the apps named by a device of the site within the last 30 days."""
        entry = await self._kv.get(_claim_key(site))
        return frozenset(self._live(entry.value if entry is not None else None))

    async def claim(self, site: str, apps: frozenset[str]) -> None:
        """Remember that a device names these apps now."""
        named, now_ms = apps - {ANY_APP}, self._clock.now_ms()
        for _ in range(_TRIES):
            entry = await self._kv.get(_claim_key(site))
            live = self._live(entry.value if entry is not None else None)
            if all(now_ms - live.get(app, 0) < _CLAIM_RENEW_MS for app in named):
                return
            live.update(dict.fromkeys(sorted(named), now_ms))
            newest = dict(sorted(live.items(), key=lambda item: -item[1])[:_MAX_CLAIMS])
            value = json.dumps(newest).encode()
            with suppress(Conflict):
                if entry is None:
                    await self._kv.create(_claim_key(site), value)
                else:
                    await self._kv.update(_claim_key(site), value, entry.revision)
                return

    def _live(self, value: bytes | None) -> dict[str, int]:
        oldest_ms = self._clock.now_ms() - _CLAIM_MS
        found = json.loads(value) if value else {}
        return {str(app): int(at_ms) for app, at_ms in found.items() if at_ms > oldest_ms}


def _claim_key(site: str) -> str:
    return subject.kv_key("apps", site)
