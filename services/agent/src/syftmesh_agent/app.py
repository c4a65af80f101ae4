"""Composition root of the agent: the only place that builds its parts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from mesh.agent.v1 import agent_service_pb2_grpc as grpc_api
from syftmesh_client.inbox import SqliteInbox, open_database
from syftmesh_client.incoming import AppHandler
from syftmesh_client.node import Node, NodeLogin, open_node, read_private
from syftmesh_client.serving import Refusal, ServingLoop
from syftmesh_client.traffic import Traffic
from syftmesh_client.traffic_ledger import TrafficLedger
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_core.layout import standard_layout

from syftmesh_agent.adapters.supernode_watch import SuperNodeWatch
from syftmesh_agent.consumers import UnknownApp
from syftmesh_agent.domain.status import AgentStatus
from syftmesh_agent.servicer import PUBLIC_METHODS, SERVICE, AgentServicer
from syftmesh_agent.settings import AgentSettings

SOCKET_FILE: Final = "agent.sock"
DATABASE_FILE: Final = "agent.sqlite"
SUPERNODE_FOLDER: Final = "supernode"
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_KEEP_S: Final = 10.0

_log: Any = structlog.get_logger("syftmesh.agent")


class AgentModule:
    """The agent as a `syftmesh_kit.server.ServiceModule`; made by `build`.

    Args:
        settings: Settings.
        connection: The agent's database.
        apps: Handlers by app.
        clock: Time.
        random: Randomness.
    """

    public_methods = PUBLIC_METHODS

    def __init__(
        self,
        settings: AgentSettings,
        connection: sqlite3.Connection,
        apps: Mapping[str, AppHandler],
        clock: Clock,
        random: Random,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._inbox = SqliteInbox(connection)
        self._traffic = Traffic()
        self._ledger = TrafficLedger(connection, self._inbox.lock, self._traffic)
        self._apps = apps
        self._clock = clock
        self._random = random
        self._stop = asyncio.Event()
        self._done = asyncio.Event()
        self._node: Node | None = None
        self._loop: ServingLoop | None = None
        self._missing: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "agent"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        servicer = AgentServicer(self.status, version("syftmesh-agent"))
        grpc_api.add_AgentServiceServicer_to_server(servicer, server)
        return (SERVICE,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to connect; a hub that is away is waited for, keys that do not open end the process."""
        tasks.create_task(self._run())

    async def ready(self) -> None:
        """Return when calls are taken.

        Raises:
            Unavailable: Not connected to the hub (now).
        """
        if self._loop is None or not self._loop.is_connected:
            raise Unavailable("The agent is not connected to the hub.", reason="HUB_AWAY")

    async def drain(self) -> None:
        """Let handlers that run finish, then disconnect."""
        self._stop.set()
        await self._done.wait()

    def status(self) -> AgentStatus:
        """Return the state of the site.

        Raises:
            Unavailable: The agent is starting (STARTING).
        """
        node = self._node
        if node is None:
            raise Unavailable("The agent is starting: ask again in a moment.", reason="STARTING")
        return AgentStatus(
            site=node.principal,
            device_id=node.keystore.device.device_id,
            is_connected=self._loop is not None and self._loop.is_connected,
            bytes_sent=self._ledger.totals(),
            layout_missing=self._missing,
        )

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while not self._stop.is_set():
                try:
                    await self._serve()
                except Unavailable as error:
                    _log.info("agent.waiting", reason=error.reason)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stop.wait()
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._ledger.save()
            self._connection.close()
            self._done.set()

    async def _serve(self) -> None:
        settings = self._settings
        login = NodeLogin(settings.local_token_file, settings.join_token_file, "agent")
        passphrase = None
        if settings.passphrase_file is not None:
            passphrase = await asyncio.to_thread(read_private, settings.passphrase_file)
        async with open_node(
            settings.folder,
            settings.hub_url,
            login=login,
            passphrase=passphrase,
            ca_file=settings.ca_file,
            traffic=self._traffic,
            clock=self._clock,
            random=self._random,
        ) as node:
            self._node = node
            self._loop = node.serving(self._inbox, self._apps, audit=_note_refusal)
            side = [asyncio.create_task(self._accompany(node, self._loop))]
            if settings.runner_socket is not None:
                watch = SuperNodeWatch(
                    node, settings.hub_url, settings.runner_socket, settings.folder / SUPERNODE_FOLDER
                )
                side.append(asyncio.create_task(watch.run()))
            try:
                await self._loop.run(self._stop)
            finally:
                for task in side:
                    task.cancel()
                await asyncio.wait(side)

    async def _accompany(self, node: Node, loop: ServingLoop) -> None:
        """Look at the layout once connected, then keep the traffic counters."""
        await loop.wait_connected()
        while True:
            if self._missing is None:
                with suppress(MeshError):
                    self._missing = await _missing_layout(node)
            await asyncio.sleep(_KEEP_S)
            await asyncio.to_thread(self._ledger.save)


async def build(
    settings: AgentSettings,
    *,
    clock: Clock,
    random: Random = system_random,
    apps: Mapping[str, AppHandler] | None = None,
) -> AgentModule:
    """Return the agent of one site; it connects when its host starts it.

    Args:
        settings: Settings.
        clock: Time.
        random: Randomness.
        apps: Handlers of apps that this agent hosts; every app without one is answered with NOT_FOUND.
    """
    connection = await asyncio.to_thread(open_database, settings.folder / DATABASE_FILE)
    return AgentModule(settings, connection, {"*": UnknownApp(), **(apps or {})}, clock, random)


def listen_address(settings: AgentSettings) -> str:
    """Return the address of the local API: the socket in the site's folder unless another is set."""
    return settings.listen or f"unix:{socket_file(settings.folder)}"


def socket_file(folder: Path) -> Path:
    """Return the socket of the agent whose state is in `folder`."""
    return folder / SOCKET_FILE


async def _missing_layout(node: Node) -> tuple[str, ...]:
    """Return the rule files that the site lacks; only an admin device can sign them, so none is written."""
    missing = [path for path in standard_layout(node.principal) if await node.files.stat(path) is None]
    if missing:
        _log.warning("site.layout_missing", site=node.principal, paths=missing)
    return tuple(missing)


async def _note_refusal(refusal: Refusal) -> None:
    _log.warning("call.refused", call_id=refusal.call_id, sender=refusal.sender, reason=refusal.reason)
