"""Composition of the superlink service: the only place that builds its adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
from mesh.federated.v1 import federated_service_pb2_grpc as grpc_api
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import InvalidInput, MeshError, Unavailable
from syftmesh_kit.bus import Bus
from syftmesh_kit.caller import Caller
from syftmesh_kit.http_server import HttpServer
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.token import Revocation, TokenVerifier
from syftmesh_kit.waiting import Waiting

from syftmesh_superlink.adapters import state_files
from syftmesh_superlink.adapters.kv_runs import KvRuns
from syftmesh_superlink.adapters.state_files import BundleFiles, MemberFiles, NodeBook
from syftmesh_superlink.adapters.superlink import SuperLink
from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.keeper import Keeper
from syftmesh_superlink.domain.presence import Presence
from syftmesh_superlink.domain.register import Register
from syftmesh_superlink.domain.run import Run
from syftmesh_superlink.domain.wake import Wakes
from syftmesh_superlink.servicer import SERVICE, FederationServicer, Front
from syftmesh_superlink.servicer.control import PREFIX as CONTROL
from syftmesh_superlink.servicer.control import Control
from syftmesh_superlink.servicer.fleet import PREFIX as FLEET
from syftmesh_superlink.servicer.fleet import Fleet
from syftmesh_superlink.servicer.front import Handler
from syftmesh_superlink.servicer.runtime import PREFIX as RUNTIME
from syftmesh_superlink.servicer.runtime import Runtime
from syftmesh_superlink.settings import SuperlinkSettings

LOOK_S: Final = 1.0
"""Seconds between two looks at the runs."""

_RETRY_S: Final = 0.5


class Callers:
    """Who shows which token, known once keys and revocations were read.

    Args:
        bus: The message bus.
        issuer: Whose tokens count.
        clock: Time.
    """

    def __init__(self, bus: Bus, issuer: str, clock: Clock) -> None:
        self._keys = KeySetWatcher(bus)
        self._verifier = TokenVerifier(self._keys, issuer, clock)
        self._keys.on_retired(self._verifier.forget_key)
        self._revocations = RevocationWatcher(bus, self._verifier)
        self._is_ready = False

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Follow keys and revocations."""
        tasks.create_task(self._keys.run())
        tasks.create_task(self._revocations.run())
        tasks.create_task(self._prepare())

    def verify(self, token: str) -> Caller:
        """Return the caller that a token proves.

        Raises:
            Unavailable: Keys or revocations are not known yet (KEY_SET_PENDING): a SuperNode that were told that
                its token is wrong would end itself.
            Unauthenticated: TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED.
        """
        if not self._is_ready:
            raise Unavailable("The keys of tokens have not been read yet.", reason="KEY_SET_PENDING")
        return self._verifier.verify(token, "superlink")

    def on_revoked(self, listener: Callable[[Revocation], None]) -> None:
        """Call `listener` at each revocation."""
        self._verifier.on_revoked(listener)

    async def _prepare(self) -> None:
        while not self._is_ready:
            try:
                await self._keys.ready()
                await self._revocations.ready()
                self._is_ready = True
            except MeshError:
                await asyncio.sleep(_RETRY_S / 10)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the module is made of."""

    bus: Bus
    runs: KvRuns
    register: Register
    keeper: Keeper
    flower: SuperLink
    wakes: Wakes
    callers: Callers
    http: HttpServer
    front: Front
    servicer: FederationServicer


class SuperlinkModule:
    """The superlink service as a `syftmesh_kit.server.ServiceModule`; made by `build`."""

    public_methods: frozenset[str] = frozenset()

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keeping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "superlink"

    @property
    def http_port(self) -> int:
        """Return the port of Flower's HTTP APIs, 0 before `start`."""
        return self._parts.http.port

    @property
    def flower_pid(self) -> int:
        """Return the process id of Flower's SuperLink, 0 while it does not run."""
        return self._parts.flower.pid

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        grpc_api.add_FederationServiceServicer_to_server(self._parts.servicer, server)
        return (SERVICE,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Take requests, read the runs and look after them from then on.

        Raises:
            Unavailable: The HTTP port is in use (PORT_IN_USE).
        """
        parts = self._parts
        parts.http.bind()
        parts.flower.attach(tasks)
        parts.callers.start(tasks)
        await parts.http.start(parts.front, tasks)
        self._keeping = tasks.create_task(self._keep())

    async def ready(self) -> None:
        """Return when runs can be asked for.

        Raises:
            Unavailable: The bus is not connected (BUS_UNREACHABLE), or the runs are not read yet (STARTING).
        """
        await self._parts.bus.wait_connected(0.5)
        self._parts.register.require_loaded()

    async def drain(self) -> None:
        """Take nothing new, then end Flower's SuperLink: its runs go on when it is back."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._parts.wakes.close()
        await asyncio.gather(self._parts.http.stop(), self._parts.flower.stop())

    async def _keep(self) -> None:
        parts, waiting = self._parts, Waiting("superlink.waiting")
        await self._load(waiting)
        while True:
            try:
                if parts.keeper.has_work():
                    await parts.flower.ensure()
                await parts.keeper.look()
                waiting.clear()
            except MeshError as error:
                waiting.note(error)
            await asyncio.sleep(LOOK_S)

    async def _load(self, waiting: Waiting) -> None:
        while True:
            try:
                await self._parts.runs.declare()
                await self._parts.register.load()
            except MeshError as error:
                waiting.note(error)
                await asyncio.sleep(_RETRY_S)
            else:
                return


async def build(
    settings: SuperlinkSettings, *, bus: Bus, clock: Clock, random: Random = system_random
) -> SuperlinkModule:
    """Return the service; its state folder is made, nothing is asked of the bus before it is started.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
    """
    host, port = _address(settings.http_listen)
    folder = settings.state_dir.absolute()
    await asyncio.to_thread(state_files.prepare, folder)
    nodes, members, runs = NodeBook(folder), MemberFiles(folder), KvRuns(bus)
    await asyncio.to_thread(nodes.load)
    flower, wakes, presence = SuperLink(folder, random), Wakes(), Presence(clock)
    register = Register(runs, members, nodes, clock)
    federation = Federation(register, flower, members, BundleFiles(folder), clock, random)
    callers = Callers(bus, settings.issuer, clock)
    handlers: dict[str, Handler] = {
        FLEET: Fleet(flower, federation, register, nodes, presence, wakes),
        RUNTIME: Runtime(flower, federation, presence, wakes),
        CONTROL: Control(flower, federation),
    }

    front = Front(handlers, callers.verify, clock, random)
    callers.on_revoked(front.end_revoked)

    def wake(run: Run) -> None:
        wakes.wake(("run", run.run_id))

    return SuperlinkModule(
        Parts(
            bus=bus,
            runs=runs,
            register=register,
            keeper=Keeper(register, federation, flower, presence, clock),
            flower=flower,
            wakes=wakes,
            callers=callers,
            http=HttpServer(host, port, settings.drain_s, tls=settings.tls, peers=settings.tls_peers),
            front=front,
            servicer=FederationServicer(federation, presence, wake, nodes.of),
        )
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(
            "The address of Flower's HTTP APIs is host:port.",
            reason="SETTING_INVALID",
            metadata={"variable": "SYFTMESH_SUPERLINK_HTTP_LISTEN"},
        )
    return host.strip("[]"), int(port)
