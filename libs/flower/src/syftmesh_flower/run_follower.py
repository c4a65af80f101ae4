"""Follows one run at the hub while somebody works on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_client.node import Node
from syftmesh_core.errors import MeshError, NotFound, mesh_error

FINAL_STATES: Final = frozenset(
    {pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_PARTIAL, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED}
)
_ASK_AGAIN_S: Final = 1.0
_STREAM_AGAIN_S: Final = 1.0

_log: Any = structlog.get_logger("syftmesh.flower.follow")
RunListener = Callable[[pb.Run], None]


class RunFollower:
    """Keeps the newest state of one run while somebody works on it.

    Attributes:
        run: As last heard; None before the first word.
    """

    def __init__(self, node: Node, run_id: str, on_change: RunListener | None = None) -> None:
        self.run_id = run_id
        self.run: pb.Run | None = None
        self._stub = node.session.federated
        self._on_change = on_change
        self._event = asyncio.Event()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the run for the block, which is broken off when the hub knows no such run.

        Raises:
            NotFound: RUN_UNKNOWN.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self.follow())
                try:
                    yield
                finally:
                    following.cancel()
        except BaseExceptionGroup as group:
            if (found := mesh_error(group)) is not None:
                raise found from group
            raise

    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self.run is not None and self.run.state in FINAL_STATES

    def nodes(self) -> dict[int, str]:
        """Return the nodes of the sites that take part, in the order of partitions."""
        if self.run is None:
            return {}
        return {
            site.node_id: site.site
            for site in self.run.site_runs
            if site.state == pb.SITE_STATE_APPROVED and site.node_id
        }

    async def look(self) -> None:
        """Ask for the run now: who is connected is told in no other way."""
        self._take((await self._stub.GetRun(rpc.GetRunRequest(run_id=self.run_id))).run)

    async def changed(self, timeout_s: float) -> None:
        """Return when the run has changed, or after `timeout_s`."""
        self._event.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()

    async def final(self) -> pb.Run:
        """Return the run once it is final."""
        while self.run is None or not self.is_final:
            await self.changed(_ASK_AGAIN_S)
        return self.run

    async def follow(self) -> None:
        """Follow the run until it is final or the hub says that there is none.

        Raises:
            NotFound: RUN_UNKNOWN.
        """
        while not self.is_final:
            try:
                async for answer in self._stub.WatchRun(rpc.WatchRunRequest(run_id=self.run_id)):
                    self._take(answer.run)
            except NotFound:
                raise
            except MeshError as error:
                _log.info("flower.watch_again", run_id=self.run_id, reason=error.reason)
            if not self.is_final:
                await asyncio.sleep(_STREAM_AGAIN_S)

    def _take(self, run: pb.Run) -> None:
        self.run = run
        self._event.set()
        if self._on_change is not None:
            self._on_change(run)
