"""Composition root of the router: the only place that builds adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
from mesh.rpc.v1 import rpc_service_pb2_grpc as grpc_api
from syftmesh_core.clock import Clock, Random, system_random, uuid7
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.filelog import FileLog, ObjectReader, StoredRules
from syftmesh_kit.waiting import Waiting

from syftmesh_router.adapters.call_log import JetStreamCallLog, JetStreamReplies
from syftmesh_router.adapters.call_records import KvCallRecords
from syftmesh_router.adapters.file_right import FileLogRights
from syftmesh_router.adapters.peer import NatsPeers, PeerServer
from syftmesh_router.adapters.site_lease import KvAppClaims, KvSiteLeases
from syftmesh_router.domain.acceptance import Acceptance
from syftmesh_router.domain.board import CallBoard
from syftmesh_router.domain.delivery import DeliveryTimes, SiteDelivery
from syftmesh_router.domain.desk import Desks, SiteDesk
from syftmesh_router.domain.device_book import DeviceBook
from syftmesh_router.domain.dispatch import Dispatch, LocalDeliveries
from syftmesh_router.domain.ending import Ending
from syftmesh_router.domain.ports import RightCheck
from syftmesh_router.domain.rate import CallRates, Rate
from syftmesh_router.servicer import SERVICE, RpcServicer
from syftmesh_router.settings import RouterSettings

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Parts:
    bus: Bus
    log: FileLog
    board: CallBoard
    ending: Ending
    desks: Desks
    peers: PeerServer
    servicer: RpcServicer


class RouterModule:
    """The service as its host sees it (`syftmesh_kit.server.ServiceModule`); made by `build`."""

    public_methods: frozenset[str] = frozenset()

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._prepared = False

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "router"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        grpc_api.add_RpcServiceServicer_to_server(self._parts.servicer, server)
        return (SERVICE,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to declare the state and to read the logs; `ready` says when that is done."""
        tasks.create_task(self._parts.log.run())
        tasks.create_task(self._prepare(tasks))

    async def ready(self) -> None:
        """Return when calls can be taken.

        Raises:
            Unavailable: Not yet (STARTING, LOG_LOADING), or the bus does not answer.
        """
        if not self._prepared:
            raise Unavailable("The state of the router is being declared.", reason="STARTING")
        self._parts.log.check()
        await self._parts.bus.stream_state(subject.CALLS)

    async def drain(self) -> None:
        """End the streams, so that devices go to another replica, and give up the leases."""
        await self._parts.desks.drain()

    async def _prepare(self, tasks: asyncio.TaskGroup) -> None:
        parts, waiting = self._parts, Waiting("router.waiting")
        while True:
            try:
                for stream in (topology.CALLS, topology.REPLIES, topology.DEAD):
                    await parts.bus.ensure_stream(stream)
                for bucket in (subject.KV_CALL, subject.KV_LEASE):
                    await parts.bus.ensure_kv(topology.bucket(bucket))
                await parts.peers.start(tasks)
            except MeshError as error:
                waiting.note(error)
                await asyncio.sleep(_RETRY_S)
                continue
            break
        tasks.create_task(parts.board.follow())
        tasks.create_task(parts.board.expire(parts.ending.expire))
        parts.desks.start(tasks)
        self._prepared = True


async def build(
    settings: RouterSettings,
    *,
    bus: Bus,
    object_store: ObjectReader,
    clock: Clock,
    random: Random = system_random,
    rights: RightCheck | None = None,
) -> RouterModule:
    """Return the service with its adapters; nothing is asked of bus or store before it is started.

    Args:
        settings: Settings; those of connections have been used by the caller already.
        bus: The message bus.
        object_store: The object store, for the content of rule files.
        clock: Time.
        random: Source of ids.
        rights: Decides who may call what; by default the file log does.
    """
    router = uuid7(clock, random)
    log = FileLog(bus, StoredRules(object_store))
    records, calls, replies = KvCallRecords(bus, clock), JetStreamCallLog(bus), JetStreamReplies(bus)
    board = CallBoard(records, clock)
    ending = Ending(records, replies, clock, board.note)
    acceptance = Acceptance(records, calls)
    local, peers = LocalDeliveries(), NatsPeers(bus, router)
    leases = KvSiteLeases(bus, router, clock, random, settings.lease_s)
    times = DeliveryTimes(
        direct_s=settings.direct_ms / 1000, stored_s=settings.received_s, attempts=settings.attempts
    )

    def new_delivery(site: str, book: DeviceBook, epoch: Callable[[], int]) -> SiteDelivery:
        return SiteDelivery(
            site,
            book=book,
            acceptance=acceptance,
            records=records,
            log=calls,
            ending=ending,
            clock=clock,
            epoch=epoch,
            times=times,
        )

    def new_desk(site: str) -> SiteDesk:
        return SiteDesk(
            site,
            lease=leases.lease(site),
            leases=leases,
            peers=peers,
            claims=KvAppClaims(bus, clock),
            local=local,
            new_delivery=new_delivery,
            clock=clock,
        )

    desks = Desks(new_desk)
    dispatch = Dispatch(
        rights=rights or FileLogRights(log, clock),
        rates=_rates(settings, clock),
        acceptance=acceptance,
        records=records,
        ending=ending,
        board=board,
        local=local,
        leases=leases,
        peers=peers,
        clock=clock,
    )
    servicer = RpcServicer(dispatch, desks, ending)
    return RouterModule(
        _Parts(bus, log, board, ending, desks, PeerServer(bus, router, local, desks), servicer)
    )


def _rates(settings: RouterSettings, clock: Clock) -> CallRates:
    return CallRates(
        clock,
        sender=Rate(settings.sender_per_s, settings.sender_burst),
        app=Rate(settings.app_per_s, settings.app_burst),
    )
