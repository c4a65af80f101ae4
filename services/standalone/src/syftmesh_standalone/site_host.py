"""Agent and runner of the sites in this process, each begun again when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from syftmesh_agent.app import build as build_agent
from syftmesh_agent.app import listen_address
from syftmesh_agent.settings import AgentSettings
from syftmesh_client.node import NodeLogin, open_node
from syftmesh_client.site import SiteFolders
from syftmesh_core.clock import Clock
from syftmesh_core.ending import EndingGroup
from syftmesh_core.errors import mesh_error
from syftmesh_executor.sandbox import SandboxExecutor
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.settings import load_settings
from syftmesh_runner.app import build as build_runner
from syftmesh_runner.settings import RunnerSettings

from syftmesh_standalone.options import RUNNER_SOCKET
from syftmesh_standalone.readiness import host_ready

Report = Callable[[str], None]
Program = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

SITE_READY_S: Final = 15.0
DRAIN_S: Final = 1.2
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0

_log: Any = structlog.get_logger("syftmesh.site")


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What the programs of every site share.

    Attributes:
        state: The state folder.
        server: The hub's address.
        local_token: With which they log in by themselves.
        clock: Time.
        metrics: RPC metrics of the process.
        report: Told when a program fails and is begun again.
    """

    state: Path
    server: str
    local_token: Path
    clock: Clock
    metrics: RpcMetrics
    report: Report


@asynccontextmanager
async def sites_in_process(context: SiteContext, sites: Sequence[str]) -> AsyncIterator[None]:
    """Serve the sites for the block, which begins when they are ready or have had the time to be."""
    stop = asyncio.Event()
    hosts = [SiteHost(context, email) for email in sites]
    async with EndingGroup() as tasks:
        running = [tasks.create_task(program(stop)) for host in hosts for program in host.programs()]
        try:
            await wait_for_sites(context.report, {host.email: host.wait_ready for host in hosts})
            yield
        finally:
            stop.set()
            if running:
                await asyncio.wait(running, timeout=DRAIN_S + 0.5)
            tasks.end()


async def wait_for_sites(report: Report, sites: dict[str, Callable[[], Awaitable[None]]]) -> None:
    """Wait until every site is ready, and say which are not in time: they go on trying."""

    async def one(email: str, ready: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(SITE_READY_S):
                await ready()
        except TimeoutError:
            report(f"site of {email} is not connected yet: syftmesh status says how it stands")
        else:
            report(f"site of {email} is connected")

    async with asyncio.TaskGroup() as tasks:
        for email, ready in sites.items():
            tasks.create_task(one(email, ready))


class SiteHost:
    """One site."""

    def __init__(self, context: SiteContext, email: str) -> None:
        self.email = email
        self._context = context
        self._folders = SiteFolders.of(context.state, email)
        self._agent_ready = asyncio.Event()
        self._runner_ready = asyncio.Event()

    def programs(self) -> tuple[Program, Program]:
        """Return agent and runner, each a function that serves until its event is set and never fails."""
        return (
            lambda stop: self._keep("agent", self._agent, stop),
            lambda stop: self._keep("runner", self._runner, stop),
        )

    async def wait_ready(self) -> None:
        """Return when the agent is connected and the runner serves."""
        await self._agent_ready.wait()
        await self._runner_ready.wait()

    async def _keep(self, name: str, serve: Program, stop: asyncio.Event) -> None:
        pause_s, said = _FIRST_PAUSE_S, ""
        while not stop.is_set():
            try:
                await serve(stop)
                continue
            except Exception as error:  # noqa: BLE001 - as a process supervisor: one site's defect ends no other
                known = mesh_error(error)
                reason = known.reason if known else "INTERNAL"
                _log.warning(
                    "site.program_failed", site=self.email, program=name, reason=reason, exc_info=error
                )
            if reason != said:
                self._context.report(f"{name} of {self.email} failed ({reason}) and is begun again")
            said = reason
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stop.wait()
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _agent(self, stop: asyncio.Event) -> None:
        context = self._context
        settings = load_settings(
            AgentSettings,
            folder=self._folders.agent,
            hub_url=context.server,
            local_token_file=context.local_token,
            runner_socket=self._folders.runner / RUNNER_SOCKET,
        )
        module = await build_agent(settings, clock=context.clock)
        await self._serve(module, listen_address(settings), stop, self._agent_ready)

    async def _runner(self, stop: asyncio.Event) -> None:
        context, folders = self._context, self._folders
        settings = load_settings(
            RunnerSettings,
            state_dir=folders.runner,
            keystore_dir=folders.runner_keys,
            server_url=context.server,
            local_token_file=context.local_token,
        )
        login = NodeLogin(context.local_token, label="runner")
        async with open_node(folders.runner_keys, context.server, login=login, clock=context.clock) as node:
            module = build_runner(settings, node=node, executor=SandboxExecutor())
            try:
                await self._serve(module, module.address, stop, self._runner_ready)
            finally:
                module.close()

    async def _serve(self, module: Any, address: str, stop: asyncio.Event, ready: asyncio.Event) -> None:
        interceptor = ServerInterceptor(
            verifier=None, metrics=self._context.metrics, public_methods=module.public_methods
        )
        host = ServiceHost([module], interceptor=interceptor, address=address, drain_s=DRAIN_S)
        async with host.running(), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_note(host, ready))
            await stop.wait()
            waiting.cancel()


async def _note(host: ServiceHost, ready: asyncio.Event) -> None:
    await host_ready(host)
    ready.set()
