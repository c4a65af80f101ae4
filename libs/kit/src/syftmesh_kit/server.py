"""One gRPC server for any number of service modules: health per service, reflection, interceptors, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

import grpc
import structlog
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from syftmesh_core.ending import EndingGroup
from syftmesh_core.errors import MeshError

from syftmesh_kit.binding import bind
from syftmesh_kit.channel import TRANSPORT_MESSAGE_BYTES
from syftmesh_kit.interceptor import ServerInterceptor

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

_OPTIONS: Final = [
    ("grpc.max_send_message_length", TRANSPORT_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two servers on one port would share its calls in silence
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
]


class ServiceModule(Protocol):
    """One service as the host sees it; a deployable hosts one, embedded mode all of them."""

    @property
    def name(self) -> str:
        """Return the service's name, e.g. ``identity``."""
        ...

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicers and return the full names of the gRPC services added."""
        ...

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Declare streams, connect, start background work in `tasks`; return soon, do not wait to be ready.

        Background tasks recover by themselves: an exception that leaves one ends the whole host.
        """
        ...

    async def ready(self) -> None:
        """Return when the service can do its work now, raise a MeshError when it cannot."""
        ...

    async def drain(self) -> None:
        """Stop taking new work (consumers, leases), finish what was begun; the gRPC server stops after it."""
        ...


class ServiceHost:
    """Builds and runs one server.

    Args:
        modules: The services; started in this order, drained in reverse.
        interceptor: See `interceptor.ServerInterceptor`; its public methods are the union of the modules'.
        address: ``host:port`` (port 0 picks a free one) or ``unix:<path>`` (mode 0600).
        credentials: Server credentials for TLS; None is plaintext.
        check_interval_s: Seconds between readiness checks while all is well; a quarter while it is not.
        ready_timeout_s: A module whose `ready` takes longer counts as not ready.
        drain_s: Longest drain in seconds.
        health: Health service to tell of readiness, where another server serves it too (`health.health_port`).
    """

    def __init__(
        self,
        modules: Sequence[ServiceModule],
        *,
        interceptor: ServerInterceptor,
        address: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
        check_interval_s: float = 2.0,
        ready_timeout_s: float = 2.0,
        drain_s: float = 5.0,
        health: grpc_health.aio.HealthServicer | None = None,
    ) -> None:
        self._modules = list(modules)
        self._interceptor = interceptor
        self._address = address
        self._credentials = credentials
        self._check_interval_s = check_interval_s
        self._ready_timeout_s = ready_timeout_s
        self._drain_s = drain_s
        self._health = health or grpc_health.aio.HealthServicer()
        self._services: dict[str, tuple[str, ...]] = {}
        self._ready: dict[str, bool] = {}
        self._kick = asyncio.Event()
        self._became_ready = asyncio.Event()
        self._log: Any = structlog.get_logger("syftmesh.server")

    def check_now(self) -> None:
        """Check readiness at once; give this to `Bus.on_state` so that health follows the connection."""
        self._kick.set()

    async def wait_ready(self) -> None:
        """Return when every module was ready at the same time."""
        await self._became_ready.wait()

    @property
    def is_ready(self) -> bool:
        """Return whether every module was ready at the last check."""
        return bool(self._ready) and all(self._ready.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain."""
        async with self.running():
            await stop.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve inside the block; gives the address that clients dial (``host:port`` or ``unix:<path>``).

        Raises:
            Unavailable: The address cannot be bound (PORT_IN_USE).
        """
        server = grpc.aio.server(interceptors=(self._interceptor,), options=_OPTIONS)
        await self._register(server)
        target = bind(server, self._address, self._credentials)
        await server.start()
        self._log.info("server.started", address=target, services=sorted(self._services))
        failure: Exception | None = None
        try:
            async with EndingGroup() as tasks:
                for module in self._modules:
                    await module.start(tasks)
                watch = tasks.create_task(self._watch_readiness())
                try:
                    yield target
                except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
                    failure = error
                finally:
                    watch.cancel()
                    await self._drain(server)
                    tasks.end()
                raise _Stopped  # ends the background work of the modules, which runs until here by design
        except* _Stopped:
            pass
        finally:
            await server.stop(0)
            self._log.info("server.stopped", address=target)
        if failure is not None:
            raise failure

    async def _register(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [grpc_health.SERVICE_NAME, reflection.SERVICE_NAME]
        for module in self._modules:
            self._services[module.name] = module.register(server)
            self._ready[module.name] = False
            names += self._services[module.name]
            for service in self._services[module.name]:
                await self._health.set(service, _NOT_SERVING)
        await self._health.set("", _NOT_SERVING)
        reflection.enable_server_reflection(names, server)

    async def _watch_readiness(self) -> None:
        while True:
            self._kick.clear()
            for module in self._modules:
                await self._check(module)
            overall = _SERVING if self.is_ready else _NOT_SERVING
            await self._health.set("", overall)
            if self.is_ready:
                self._became_ready.set()
            pause_s = self._check_interval_s if self.is_ready else self._check_interval_s / 4
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._kick.wait()

    async def _check(self, module: ServiceModule) -> None:
        why = ""
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                await module.ready()
        except MeshError as error:
            why = error.reason
        except TimeoutError:
            why = "DEADLINE_EXCEEDED"
        except Exception:  # noqa: BLE001 - a failing check is an answer, and the watch must outlive it
            self._log.exception("service.check_failed", service=module.name)
            why = "INTERNAL"
        if self._ready[module.name] == (not why):
            return
        self._ready[module.name] = not why
        self._log.info("service.readiness_changed", service=module.name, ready=not why, reason=why)
        for service in self._services[module.name]:
            await self._health.set(service, _NOT_SERVING if why else _SERVING)

    async def _drain(self, server: grpc.aio.Server) -> None:
        await self._health.enter_graceful_shutdown()
        deadline = asyncio.get_running_loop().time() + self._drain_s
        try:
            async with asyncio.timeout_at(deadline):
                for module in reversed(self._modules):
                    try:
                        await module.drain()
                    except MeshError as error:
                        self._log.warning("service.drain_failed", service=module.name, reason=error.reason)
        except TimeoutError:
            self._log.warning("server.drain_timed_out", drain_s=self._drain_s)
        await server.stop(max(0.1, deadline - asyncio.get_running_loop().time()))


class _Stopped(Exception):
    pass
