"""Runs a SuperNode for as long as the site's runner needs one, with a relay to the hub.

The runner says so on its own socket: it holds approvals and data, and has no part in the SuperNode's talk with the
hub. The SuperNode has neither data nor keys.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from mesh.federated.v1 import site_service_pb2 as rpc
from mesh.federated.v1 import site_service_pb2_grpc as grpc_api
from syftmesh_client.node import Node
from syftmesh_core.errors import MeshError
from syftmesh_kit.channel import open_channel

_AGAIN_S: Final = 1.0
_IDLE_S: Final = 20.0
"""How long a SuperNode stays when no run needs it: the next run of a study comes soon as a rule."""

_log: Any = structlog.get_logger("syftmesh.agent.supernode")


class SuperNodeWatch:
    """Starts and stops the SuperNode of one site.

    Args:
        node: The agent's device at work.
        hub_url: Base address of the hub.
        runner_socket: The runner's socket.
        folder: Home and log of the SuperNode.
    """

    def __init__(self, node: Node, hub_url: str, runner_socket: Path, folder: Path) -> None:
        self._node = node
        self._hub_url = hub_url
        self._socket = runner_socket
        self._folder = folder
        self._wanted: rpc.WatchSuperNodeResponse | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Attend until cancelled; a runner that is away is asked again."""
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._listen())
                    tasks.create_task(self._attend())
            except* Exception as group:  # noqa: BLE001 - the site goes on without a SuperNode until the next try
                _log.error("supernode.watch_failed", exc_info=group)
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> None:
        while True:
            channel = open_channel(f"unix:{self._socket}")
            try:
                stub: grpc_api.SiteRunServiceAsyncStub = grpc_api.SiteRunServiceStub(channel)
                async for word in stub.WatchSuperNode(rpc.WatchSuperNodeRequest()):
                    self._wanted = word
                    self._changed.set()
            except MeshError as error:
                _log.debug("supernode.runner_away", reason=error.reason)
            finally:
                await channel.close()
            await asyncio.sleep(_AGAIN_S)

    async def _attend(self) -> None:
        while True:
            await self._until(needed=True)
            wanted = self._wanted
            if wanted is None:
                continue
            try:
                await self._run_one(wanted)
            except MeshError as error:
                _log.warning("supernode.not_started", reason=error.reason)
                await asyncio.sleep(_AGAIN_S)

    async def _run_one(self, wanted: rpc.WatchSuperNodeResponse) -> None:
        # Flower is looked at only now: most agents never need it.
        from syftmesh_flower.relay import fleet_relay
        from syftmesh_flower.supernode import running, supernode

        async with AsyncExitStack() as stack:
            session = self._node.session
            port = await stack.enter_async_context(
                fleet_relay(self._hub_url, session.access_token, self._node.traffic, self._node.trust)
            )
            child = supernode(port, wanted.runtime_port, Path(wanted.secret_file), self._folder, _restarted)
            await stack.enter_async_context(running(child))
            _log.info("supernode.started", pid=child.pid)
            await self._until_idle(wanted.runtime_port)
        _log.info("supernode.stopped")

    async def _until_idle(self, runtime_port: int) -> None:
        """Return when no SuperNode was needed for a while, or one is needed elsewhere."""
        while True:
            await self._until(needed=False, other_than=runtime_port)
            if self._wanted is not None and self._wanted.needed:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._until(needed=True)
                    continue
            return

    async def _until(self, *, needed: bool, other_than: int = 0) -> None:
        while True:
            wanted = self._wanted
            if wanted is not None and wanted.needed is needed:
                return
            if wanted is not None and other_than and wanted.needed and wanted.runtime_port != other_than:
                return
            self._changed.clear()
            await self._changed.wait()


def _restarted(name: str, exit_code: int) -> None:
    _log.warning("supernode.restarted", child=name, exit_code=exit_code)
