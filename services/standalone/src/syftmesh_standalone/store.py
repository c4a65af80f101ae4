"""The two native servers of a hub, started at the same time and as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from syftmesh_core.errors import Internal
from syftmesh_kit.native import NatsAddress, NatsServer, SeaweedServer
from syftmesh_kit.process import RestartListener
from syftmesh_kit.s3 import S3Config, S3ObjectStore

from syftmesh_standalone.options import HubPlace


class Stores:
    """Message bus and object store, both on disk; see `running_stores`."""

    def __init__(self, place: HubPlace, on_restart: RestartListener) -> None:
        self._place = place
        self._nats = NatsServer(place.folder / "nats", on_restart=on_restart)
        self._weed = SeaweedServer(place.folder / "s3", on_restart=on_restart)
        self._bus: NatsAddress | None = None
        self._s3: S3Config | None = None

    @property
    def bus(self) -> NatsAddress:
        """Return where the bus is."""
        if self._bus is None:
            raise Internal("The stores were asked before they were started.")
        return self._bus

    @property
    def s3(self) -> S3Config:
        """Return where the object store is; its pre-signed requests lead through the gateway."""
        if self._s3 is None:
            raise Internal("The stores were asked before they were started.")
        return self._s3

    def children(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {"nats-server": self._nats.pid, "seaweedfs": self._weed.pid}

    async def start(self, tasks: asyncio.TaskGroup, meanwhile: Callable[[], None]) -> None:
        """Start both, make the bucket, and do `meanwhile` in a thread at the same time.

        Raises:
            Unavailable: One does not start (PROCESS_START_FAILED), or OBJECT_STORE_AWAY.
            IntegrityFailure: The bus does not sync every write (STORE_NOT_DURABLE).
            NotFound: A program is not installed (BINARY_MISSING).
        """
        async with asyncio.TaskGroup() as starting:
            starting.create_task(self._start_bus(tasks))
            starting.create_task(self._start_store(tasks))
            await asyncio.sleep(0)  # both are launched before the thread takes its share
            starting.create_task(asyncio.to_thread(meanwhile))

    async def stop(self) -> None:
        """Stop both."""
        await self._weed.stop()
        await self._nats.stop()

    async def _start_bus(self, tasks: asyncio.TaskGroup) -> None:
        self._bus = await self._nats.start(tasks)

    async def _start_store(self, tasks: asyncio.TaskGroup) -> None:
        direct = await self._weed.start(tasks)
        await S3ObjectStore(direct).ensure_bucket()
        # The gateway sets the store's own host on what it passes on, so that is what signatures name.
        self._s3 = replace(direct, url_base=self._place.object_base)


@asynccontextmanager
async def running_stores(
    place: HubPlace, on_restart: RestartListener, *, meanwhile: Callable[[], None] = lambda: None
) -> AsyncIterator[Stores]:
    """Run both servers for the block; each is started again on its port when it dies.

    Args:
        place: Where the hub is.
        on_restart: Told of a server that died.
        meanwhile: Work for a thread while they start.

    Raises:
        MeshError: See `Stores.start`; in a group.
    """
    stores = Stores(place, on_restart)
    (place.folder / "nats").mkdir(exist_ok=True, mode=0o700)
    (place.folder / "s3").mkdir(exist_ok=True, mode=0o700)
    async with asyncio.TaskGroup() as tasks:
        try:
            await stores.start(tasks, meanwhile)
            yield stores
        finally:
            await stores.stop()
