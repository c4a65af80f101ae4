"""The sites whose devices are connected to this replica: their lease, or the way to who holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.ending import AGAIN_S
from syftmesh_core.errors import MeshError, Unavailable

from syftmesh_router.domain.delivery import SiteDelivery
from syftmesh_router.domain.device_book import DeviceBook
from syftmesh_router.domain.dispatch import LocalDeliveries
from syftmesh_router.domain.link import StreamLink
from syftmesh_router.domain.ports import AppClaims, DeviceLink, Peers, SiteLease, SiteLeases

RENEW_S: Final = 2.0
"""Seconds between renewals of a lease, and between attachments to its holder."""

_STALE_S: Final = 3 * RENEW_S
_EPOCH_WAIT_S: Final = 15.0

_log: Any = structlog.get_logger("syftmesh.router")

NewDelivery = Callable[[str, DeviceBook, Callable[[], int]], SiteDelivery]
"""Make the delivery to a site from its devices and its lease's epoch."""


@dataclass(slots=True)
class _Remote:
    link: DeviceLink
    router: str
    seen_s: float


class SiteDesk:
    """One site with devices here. `run` ends when the last of them has gone.

    Args:
        site: The datasite.
        lease: This replica's hand on its lease.
        leases: Who holds it otherwise.
        peers: The other replicas.
        claims: Apps that devices of the site have named.
        local: Where deliveries of this replica are found.
        new_delivery: Makes the delivery.
        clock: Monotonic time.
    """

    def __init__(
        self,
        site: str,
        *,
        lease: SiteLease,
        leases: SiteLeases,
        peers: Peers,
        claims: AppClaims,
        local: LocalDeliveries,
        new_delivery: NewDelivery,
        clock: Clock,
    ) -> None:
        self.site = site
        self._lease = lease
        self._leases = leases
        self._peers = peers
        self._claims = claims
        self._local = local
        self._clock = clock
        self._book = DeviceBook()
        self._links: dict[str, StreamLink] = {}
        self._remote: dict[str, _Remote] = {}
        self._delivery = new_delivery(site, self._book, lambda: lease.epoch)
        self._running: asyncio.Task[None] | None = None
        self._holder = ""
        self._epoch = 0
        self._highest = 0
        self._known = asyncio.Event()
        self._kick = asyncio.Event()
        self.ended = False
        self._gone = asyncio.Event()

    def find(self, device_id: str) -> StreamLink | None:
        """Return the stream of a device that is connected here."""
        return self._links.get(device_id)

    def put(self, link: StreamLink, highest_epoch: int) -> None:
        """Take in a device's stream; an older one of the same device is ended."""
        old = self._links.get(link.device_id)
        if old is not None:
            self._book.drop(old)
            old.close()
        self._links[link.device_id] = link
        self._highest = max(self._highest, highest_epoch)
        if self._running is not None:
            self._book.put(link)
        else:
            # Who holds the lease must hear of this device before its stream says that all is well.
            self._known.clear()
        self._kick.set()

    async def epoch_for(self, link: StreamLink) -> int:
        """Return the epoch under which deliveries to `link` come, once it is known.

        Raises:
            Unavailable: Nobody can be found who delivers to the site (NO_HOLDER).
        """
        await self._claims.claim(self.site, link.apps)
        try:
            async with asyncio.timeout(_EPOCH_WAIT_S):
                await self._known.wait()
        except TimeoutError:
            raise Unavailable("Nobody delivers to this site yet. Try again.", reason="NO_HOLDER") from None
        return self._epoch

    async def remove(self, link: StreamLink) -> None:
        """Forget a stream that has ended."""
        link.close()
        if self._links.get(link.device_id) is not link:
            return
        del self._links[link.device_id]
        self._book.drop(link)
        self._kick.set()
        if self._holder:
            with suppress(MeshError):
                await self._peers.detach(self._holder, self.site, link)

    async def attach(self, router: str, device_id: str, apps: frozenset[str]) -> int:
        """Take in a device that is connected to the replica `router`; return the epoch.

        Raises:
            Unavailable: The lease is not held here (NOT_HOLDER).
        """
        if not self._lease.epoch or not self._running:
            raise Unavailable("This replica does not deliver to the site.", reason="NOT_HOLDER")
        known = self._remote.get(device_id)
        if known is None or known.router != router or known.link.apps != apps:
            known = _Remote(self._peers.link(router, self.site, device_id, apps), router, 0.0)
            self._remote[device_id] = known
            self._book.put(known.link)
        known.seen_s = self._clock.monotonic_s()
        return self._lease.epoch

    def detach(self, router: str, device_id: str) -> None:
        """Forget a device of another replica."""
        known = self._remote.get(device_id)
        if known is not None and known.router == router:
            del self._remote[device_id]
            self._book.drop(known.link)

    async def end(self) -> None:
        """Let every device go and return when the lease is given up."""
        for link in list(self._links.values()):
            await self.remove(link)
        await self._gone.wait()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Hold the lease, or stay attached to who holds it, as long as a device is connected here."""
        try:
            while self._links:
                self._kick.clear()
                try:
                    await self._turn(tasks)
                except MeshError as error:
                    _log.info("desk.waiting", site=self.site, reason=error.reason)
                with suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_S if self._known.is_set() else RENEW_S / 10):
                        await self._kick.wait()
        finally:
            self.ended = True
            await self._stop()
            with suppress(MeshError):
                await self._lease.release()
            self._gone.set()

    async def _turn(self, tasks: asyncio.TaskGroup) -> None:
        if self._running is not None:
            if self._lease.epoch and await self._lease.renew():
                self._drop_stale()
                return
            await self._stop()
        if await self._lease.acquire(self._highest):
            await self._start(tasks)
            return
        router = await self._leases.holder_of(self.site)
        if router:
            for link in list(self._links.values()):
                self._epoch = await self._peers.attach(router, self.site, link)
            self._holder = router
            self._known.set()

    async def _start(self, tasks: asyncio.TaskGroup) -> None:
        self._holder = ""
        self._epoch = self._lease.epoch
        self._book.claim(await self._claims.claimed(self.site))
        for link in self._links.values():
            self._book.put(link)
        self._running = tasks.create_task(self._deliver())
        self._local.put(self._delivery)
        self._known.set()
        _log.info("site.taken", site=self.site, epoch=self._epoch)

    async def _stop(self) -> None:
        self._local.drop(self._delivery)
        running, self._running = self._running, None
        # Asked again where a cancellation was lost (see `EndingGroup`): the lease is given up only after its end.
        while running is not None and not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=AGAIN_S)
        for link in self._book.links():
            self._book.drop(link)
        self._remote.clear()

    async def _deliver(self) -> None:
        while True:
            try:
                await self._delivery.run()
            except Exception:  # noqa: BLE001 - a consumer loop: one site's fault must not end the others
                _log.exception("delivery.failed", site=self.site)
            await asyncio.sleep(RENEW_S / 2)

    def _drop_stale(self) -> None:
        oldest_s = self._clock.monotonic_s() - _STALE_S
        for device_id, known in list(self._remote.items()):
            if known.seen_s < oldest_s:
                self.detach(known.router, device_id)


class Desks:
    """All desks of this replica.

    Args:
        new_desk: Makes the desk of a site.
    """

    def __init__(self, new_desk: Callable[[str], SiteDesk]) -> None:
        self._new_desk = new_desk
        self._desks: dict[str, SiteDesk] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._streams: set[StreamLink] = set()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run the desks in `tasks`."""
        self._tasks = tasks

    async def add(self, site: str, link: StreamLink, highest_epoch: int) -> int:
        """Take in a device's stream and return the epoch under which its deliveries come.

        Raises:
            Unavailable: NO_HOLDER, STARTING.
        """
        if self._tasks is None:
            raise Unavailable("The router is starting. Try again in a moment.", reason="STARTING")
        self._streams.add(link)
        desk = self._desks.get(site)
        if desk is None or desk.ended:
            desk = self._desks[site] = self._new_desk(site)
            desk.put(link, highest_epoch)
            self._tasks.create_task(self._run(desk, self._tasks))
        else:
            desk.put(link, highest_epoch)
        return await desk.epoch_for(link)

    async def remove(self, site: str, link: StreamLink) -> None:
        """See `SiteDesk.remove`."""
        self._streams.discard(link)
        desk = self._desks.get(site)
        if desk is not None:
            await desk.remove(link)
        link.close()

    def find(self, site: str) -> SiteDesk | None:
        """Return the desk of a site with devices here."""
        return self._desks.get(site)

    async def drain(self) -> None:
        """End every stream and return when the leases are given up; no new stream is taken."""
        self._tasks = None
        for link in list(self._streams):
            link.close()
        for desk in list(self._desks.values()):
            await desk.end()

    async def _run(self, desk: SiteDesk, tasks: asyncio.TaskGroup) -> None:
        try:
            await desk.run(tasks)
        finally:
            if self._desks.get(desk.site) is desk:
                del self._desks[desk.site]
