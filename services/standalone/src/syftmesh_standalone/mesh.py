"""The embedded mesh: stores, hub and sites, begun in this order and ended in the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from importlib.metadata import version
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, SystemClock, to_datetime
from syftmesh_core.errors import mesh_error
from syftmesh_kit.interceptor.metric import RpcMetrics

from syftmesh_standalone.info import MeshInfo, move_profiles, remove_info, write_info
from syftmesh_standalone.lease import release_leases
from syftmesh_standalone.options import HubPlace, MeshOptions, local_token
from syftmesh_standalone.preflight import (
    choose_ports,
    known_sites,
    prepare_state,
    require_sandbox,
    require_space,
)
from syftmesh_standalone.state_lock import StateLock
from syftmesh_standalone.store import Stores, running_stores

Report = Callable[[str], None]
OnReady = Callable[[MeshInfo], None]

_FOLLOW_S: Final = 0.5

_log: Any = structlog.get_logger("syftmesh.mesh")


async def run_mesh(
    options: MeshOptions,
    stop: asyncio.Event,
    *,
    report: Report,
    on_ready: OnReady,
    clock: Clock | None = None,
) -> None:
    """Run an embedded mesh until `stop` is set, also while it starts; then end it and return.

    Nothing is left behind: every child process carries a parent-death signal, so that not even a killed
    parent leaves one.

    Args:
        options: What to run.
        stop: Ends it.
        report: Told in one line each what is done.
        on_ready: Told once, when everything serves.
        clock: Time; None is the machine's.

    Raises:
        WrongState: STATE_UNUSABLE, STATE_LOCKED (metadata ``pid``).
        Unavailable: PORT_IN_USE, NO_SPACE, SANDBOX_MISSING, PROCESS_START_FAILED, START_TIMEOUT.
        MeshError: What making a site of `options` says.
    """
    hub = await asyncio.to_thread(prepare_state, options.state)
    with await asyncio.to_thread(StateLock.acquire, hub):
        sites = tuple(dict.fromkeys([*options.sites, *known_sites(options.state)]))
        require_sandbox(sites)
        require_space(options.state)
        place = choose_ports(options, hub)
        remove_info(hub)  # of a mesh that was killed
        mesh = Mesh(options, sites, place, report, clock or SystemClock())
        try:
            await _until(mesh, stop, on_ready)
        except BaseExceptionGroup as group:
            if group.subgroup(asyncio.CancelledError) is None and (found := mesh_error(group)) is not None:
                _log.error("mesh.failed", reason=found.reason, exc_info=group)
                raise found from group
            raise
        finally:
            remove_info(hub)


async def _until(mesh: Mesh, stop: asyncio.Event, on_ready: OnReady) -> None:
    """Serve until `stop` is set; a start that is under way then is broken off."""
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(mesh.serve(stop, on_ready))

        async def break_off() -> None:
            await stop.wait()
            if not mesh.is_ready:
                serving.cancel()

        watching = tasks.create_task(break_off())
        await asyncio.wait({serving})
        watching.cancel()


class Mesh:
    """One embedded mesh.

    Args:
        options: What to run.
        sites: Every site to run.
        place: Where the hub is.
        report: Told in one line each what is done.
        clock: Time.
    """

    def __init__(
        self, options: MeshOptions, sites: tuple[str, ...], place: HubPlace, report: Report, clock: Clock
    ) -> None:
        self._options = options
        self._sites = sites
        self._place = place
        self._report = report
        self._clock = clock
        self._registry = CollectorRegistry()
        self._metrics = RpcMetrics(self._registry)
        self._groups: list[Callable[[], dict[str, int]]] = []
        self.is_ready = False

    async def serve(self, stop: asyncio.Event, on_ready: OnReady) -> None:
        """Start everything, tell `on_ready`, and end everything once `stop` is set."""
        begun_s = self._clock.monotonic_s()
        self._report("starting message bus and object store")
        async with running_stores(self._place, self._restarted) as stores:
            self._groups.append(stores.children)
            self._report(
                f"stores are up ({self._clock.monotonic_s() - begun_s:.1f} s), starting the services"
            )
            await release_leases(stores)
            async with self._hub(stores):
                await self._make_sites()
                async with self._running_sites(), self._followed() as info:
                    self.is_ready = True
                    self._report(f"ready after {self._clock.monotonic_s() - begun_s:.1f} s")
                    on_ready(info)
                    await stop.wait()
                    self._report("stopping")

    def _load(self) -> None:
        """Import what comes next while the stores start, which takes them two seconds."""
        if self._options.sites:
            import syftmesh_standalone.site_maker
        if self._options.processes:
            import syftmesh_standalone.process_mesh
        else:
            import syftmesh_standalone.hub_host
            import syftmesh_standalone.site_host  # noqa: F401 - loaded, and used below

    @asynccontextmanager
    async def _hub(self, stores: Stores) -> AsyncIterator[None]:
        place = self._place
        if self._options.processes:
            from syftmesh_standalone.process_mesh import ProcessGroup, hub_specs

            group = ProcessGroup(hub_specs(place, stores), self._restarted)
            self._groups.append(group.children)
            async with group.running():
                yield
            return
        from syftmesh_standalone.hub_host import hub_in_process

        async with hub_in_process(
            place, stores, clock=self._clock, registry=self._registry, metrics=self._metrics
        ):
            yield

    async def _make_sites(self) -> None:
        state, server = self._options.state, self._place.server
        await asyncio.to_thread(move_profiles, state, self._place.folder, server)
        if not self._options.sites:
            return
        from syftmesh_standalone.site_maker import make_site

        async with asyncio.TaskGroup() as tasks:
            for email in self._options.sites:
                tasks.create_task(make_site(state, email, server, clock=self._clock, report=self._report))

    @asynccontextmanager
    async def _running_sites(self) -> AsyncIterator[None]:
        state, server, token = self._options.state, self._place.server, local_token(self._place.folder)
        if self._options.processes:
            from syftmesh_standalone.process_mesh import ProcessGroup, site_specs

            specs = [spec for email in self._sites for spec in site_specs(state, email, server, token)]
            group = ProcessGroup(specs, self._restarted)
            self._groups.append(group.children)
            async with group.running():
                yield
            return
        from syftmesh_standalone.site_host import SiteContext, sites_in_process

        context = SiteContext(state, server, token, self._clock, self._metrics, self._report)
        async with sites_in_process(context, self._sites):
            yield

    @asynccontextmanager
    async def _followed(self) -> AsyncIterator[MeshInfo]:
        """Keep ``mesh.json`` for the block: a child that was started again has another process id."""
        info = self._info()
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow(info))
            yield info
            following.cancel()

    async def _follow(self, info: MeshInfo) -> None:
        write_info(self._place.folder, info)
        while True:
            await asyncio.sleep(_FOLLOW_S)
            children = self._children()
            if children != info.children:
                info = replace(info, children=children)
                try:
                    await asyncio.to_thread(write_info, self._place.folder, info)
                except OSError:
                    _log.warning("mesh.info_unwritable")

    def _info(self) -> MeshInfo:
        return MeshInfo(
            server=self._place.server,
            grpc=self._place.grpc,
            pid=os.getpid(),
            version=version("syftmesh-standalone"),
            processes=self._options.processes,
            sites=self._sites,
            children=self._children(),
            started_at=to_datetime(self._clock.now_ms()).astimezone(UTC).isoformat(timespec="milliseconds"),
        )

    def _children(self) -> dict[str, int]:
        return {name: pid for children in self._groups for name, pid in children().items()}

    def _restarted(self, name: str, exit_code: int) -> None:
        if not self.is_ready:
            return
        self._report(f"{name} ended (exit code {exit_code}) and is started again")
