"""Composition root of the sync service: the only place that builds adapters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import structlog
from mesh.sync.v1 import sync_service_pb2 as pb
from mesh.sync.v1 import sync_service_pb2_grpc as pb_grpc
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, Random, system_random, uuid7
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.filelog import FileLog, StoredRules
from syftmesh_kit.journal import Journaler, JournalMetrics
from syftmesh_kit.object_store import ObjectStore, storage_check
from syftmesh_kit.waiting import Waiting

from syftmesh_sync.adapters.freshness import Freshness
from syftmesh_sync.adapters.key_log import KeyLog
from syftmesh_sync.adapters.object_shelf import ObjectShelf
from syftmesh_sync.adapters.operation_ledger import OperationLedger
from syftmesh_sync.adapters.record_log import RecordLog
from syftmesh_sync.adapters.watch import Watch
from syftmesh_sync.domain.candidate import Examine
from syftmesh_sync.domain.commit import Commit
from syftmesh_sync.domain.query import Query
from syftmesh_sync.domain.upload import OpenUpload
from syftmesh_sync.servicer import SyncServicer
from syftmesh_sync.settings import SyncSettings

_RETRY_S: Final = 0.5
_MAX_LAG: Final = 10_000

_log: Any = structlog.get_logger("syftmesh.sync")


class BucketStore(ObjectStore, Protocol):
    """An object store whose bucket this service makes."""

    async def ensure_bucket(self) -> None:
        """Make the bucket when it is missing."""
        ...


@dataclass(frozen=True, slots=True)
class _Parts:
    bus: Bus
    store: BucketStore
    log: FileLog
    keys: KeyLog
    servicer: SyncServicer
    journaler: Journaler | None
    clock: Clock
    random: Random


class SyncModule:
    """The service as its host sees it (`syftmesh_kit.server.ServiceModule`)."""

    public_methods: frozenset[str] = frozenset()
    """Methods that need no token."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._prepared = False

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "sync"

    @property
    def log(self) -> FileLog:
        """Return the read model, for tests and for hosts that look into it."""
        return self._parts.log

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        pb_grpc.add_SyncServiceServicer_to_server(self._parts.servicer, server)
        return (pb.DESCRIPTOR.services_by_name["SyncService"].full_name,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to prepare the store and to read the logs; `ready` says when that is done."""
        tasks.create_task(self._prepare(tasks))

    async def ready(self) -> None:
        """Return when everything was read and bus and store answer.

        Raises:
            Unavailable: Not yet, or not now.
        """
        parts = self._parts
        if not self._prepared:
            raise Unavailable("The streams and the bucket are being prepared.", reason="STARTING")
        parts.log.check()
        parts.keys.check()
        state = await parts.bus.stream_state(subject.FILES)
        if state.last_sequence - parts.log.position.sequence > _MAX_LAG:
            raise Unavailable("The read model is behind the log.", reason="LOG_BEHIND")
        await parts.store.head("ready")

    async def drain(self) -> None:
        """Do nothing: every acknowledged commit is durable already."""

    async def _prepare(self, tasks: asyncio.TaskGroup) -> None:
        parts, waiting = self._parts, Waiting("sync.waiting")
        while True:
            try:
                for stream in (topology.FILES, topology.KEYLOG):
                    await parts.bus.ensure_stream(stream)
                for bucket in (subject.KV_SYNC_OPERATION, subject.KV_JOURNAL):
                    await parts.bus.ensure_kv(topology.bucket(bucket))
                await parts.store.ensure_bucket()
                kept = await storage_check(parts.store, uuid7(parts.clock, parts.random))
            except Unavailable as error:
                waiting.note(error)
                await asyncio.sleep(_RETRY_S)
                continue
            except MeshError as error:
                # Going on with such a store would lose files; the service stays NOT_SERVING and says why.
                _log.error("sync.store_refused", reason=error.reason, promise=error.metadata.get("promise"))
                await asyncio.sleep(10 * _RETRY_S)
                continue
            break
        _log.info("sync.store_checked", promises=len(kept))
        tasks.create_task(parts.keys.run())
        tasks.create_task(parts.log.run())
        if parts.journaler is not None:
            tasks.create_task(parts.journaler.run())
        self._prepared = True


async def build(
    settings: SyncSettings,
    *,
    bus: Bus,
    object_store: BucketStore,
    clock: Clock,
    random: Random = system_random,
    journal_metrics: JournalMetrics | None = None,
) -> SyncModule:
    """Return the service with its adapters; nothing is asked of bus or store before it is started.

    Args:
        settings: Settings; those of connections have been used by the caller already.
        bus: The message bus.
        object_store: The object store.
        clock: Time.
        random: Randomness.
        journal_metrics: Where the journal shows its lag; services of one process share it.
    """
    rules = StoredRules(object_store)
    log = FileLog(bus, rules)
    keys = KeyLog(bus)
    shelf = ObjectShelf(object_store)
    ledger = OperationLedger(bus.kv(subject.KV_SYNC_OPERATION))
    commit = Commit(log, ledger, Examine(keys, shelf, rules), RecordLog(bus, log), clock)
    servicer = SyncServicer(
        log,
        OpenUpload(log, ledger, shelf, clock),
        commit,
        Query(log, shelf, clock),
        Watch(log, clock, settings.heartbeat_s),
        Freshness(bus, log),
    )
    journaler = None
    if settings.journal:
        metrics = journal_metrics or JournalMetrics(CollectorRegistry())
        journaler = Journaler(bus, object_store, subject.FILES, clock, metrics, random=random)
    return SyncModule(_Parts(bus, object_store, log, keys, servicer, journaler, clock, random))
