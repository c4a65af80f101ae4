"""Composition of the key directory: the only place that builds its adapters."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from mesh.crypto.v1 import crypto_service_pb2_grpc as grpc_api
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.journal import Journaler, JournalMetrics, wait_journaled
from syftmesh_kit.object_store import ObjectStore
from syftmesh_kit.waiting import Waiting

from syftmesh_crypto.adapters.key_log import JournalBarrier, KeyLog
from syftmesh_crypto.domain.lookup import LookUpDevices
from syftmesh_crypto.domain.publish import PublishDeviceList
from syftmesh_crypto.servicer import SERVICE, KeyDirectoryServicer
from syftmesh_crypto.settings import CryptoSettings

_RETRY_S: Final = 0.5


class CryptoModule:
    """The key directory as a `syftmesh_kit.server.ServiceModule`; made by `build`."""

    public_methods: frozenset[str] = frozenset()

    def __init__(self, bus: Bus, log: KeyLog, journaler: Journaler | None) -> None:
        self._bus = bus
        self._key_log = log
        self._journaler = journaler
        self._prepared = False

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "crypto"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        servicer = KeyDirectoryServicer(PublishDeviceList(self._key_log), LookUpDevices(self._key_log))
        grpc_api.add_KeyDirectoryServiceServicer_to_server(servicer, server)
        return (SERVICE,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Declare the log, then read and journal it; `ready` says when it has been read."""
        tasks.create_task(self._prepare(tasks))

    async def ready(self) -> None:
        """Return when the log was read and the bus answers.

        Raises:
            Unavailable: Not yet, or not now.
        """
        if not self._prepared:
            raise Unavailable("The key log is being declared.", reason="STARTING")
        self._key_log.check()
        await self._bus.stream_state(subject.KEYLOG)

    async def drain(self) -> None:
        """Do nothing: what was acknowledged is durable."""

    async def _prepare(self, tasks: asyncio.TaskGroup) -> None:
        waiting = Waiting("crypto.waiting")
        while not self._prepared:
            try:
                await self._bus.ensure_stream(topology.KEYLOG)
                await self._bus.ensure_kv(topology.bucket(subject.KV_JOURNAL))
            except MeshError as error:
                waiting.note(error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._prepared = True
        tasks.create_task(self._key_log.run())
        if self._journaler is not None:
            tasks.create_task(self._journaler.run())


async def build(
    settings: CryptoSettings,
    *,
    bus: Bus,
    object_store: ObjectStore,
    clock: Clock,
    random: Random = system_random,
    journal_metrics: JournalMetrics | None = None,
) -> CryptoModule:
    """Return the service with its adapters; nothing is asked of bus or store before it is started.

    Args:
        settings: Settings; those of connections have been used by the caller already.
        bus: The message bus.
        object_store: Where the journal of the key log goes.
        clock: Time.
        random: Randomness.
        journal_metrics: Where the journal shows its lag; services of one process share it.
    """
    if not settings.journal:
        return CryptoModule(bus, KeyLog(bus), None)
    metrics = journal_metrics or JournalMetrics(CollectorRegistry())
    journaler = Journaler(bus, object_store, subject.KEYLOG, clock, metrics, random=random)
    return CryptoModule(bus, KeyLog(bus, _barrier(bus, settings.journal_wait_s)), journaler)


def _barrier(bus: Bus, timeout_s: float) -> JournalBarrier | None:
    if not timeout_s:
        return None

    async def wait(sequence: int) -> None:
        await wait_journaled(bus, subject.KEYLOG, sequence, timeout_s=timeout_s)

    return wait
