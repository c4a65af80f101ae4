"""The parts of the embedded mesh on real servers, in the process of the test."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import Unavailable
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.lease import Lease
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_standalone.info import MeshInfo, read_info
from syftmesh_standalone.lease import release_leases
from syftmesh_standalone.mesh import run_mesh
from syftmesh_standalone.options import HubPlace, MeshOptions
from syftmesh_standalone.readiness import is_serving
from syftmesh_standalone.status import mesh_status
from syftmesh_standalone.store import running_stores

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

ALICE = "alice@hospital.example"


async def until(found: Callable[[], object], within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not found():
            await asyncio.sleep(0.05)


def children(state: Path) -> list[str]:
    """Return the child processes that work on `state`; other tests of this process have servers of their own."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(str(state) in word for word in child.cmdline()):
                found.append(child.name())
    return found


async def test_a_bus_that_is_killed_comes_back_with_its_address_and_the_leases_of_the_dead_are_freed(
    tmp_path: Path,
) -> None:
    ports = free_ports(2)
    place = HubPlace(tmp_path, ports[0], ports[1])
    died: list[tuple[str, int]] = []
    async with running_stores(place, lambda name, code: died.append((name, code))) as stores:
        await S3ObjectStore(stores.s3).put("first", b"x")
        presigned = S3ObjectStore(stores.s3).presign_get("first", ttl_s=60)
        assert presigned.url.startswith(f"http://127.0.0.1:{ports[0]}/objects/syftmesh/first?")
        assert await release_leases(stores) == 0  # before any service has declared its buckets

        address, pid = stores.bus, stores.children()["nats-server"]
        bus = await Bus.connect(address.url, name="t", user=address.user, password=address.password)
        await bus.ensure_kv(topology.bucket(subject.KV_LEASE))
        await bus.ensure_kv(topology.bucket(subject.KV_JOURNAL))
        clock, key = SystemClock(), subject.kv_key("site")
        dead = Lease(bus.kv(subject.KV_LEASE), key, "dead", clock)
        assert await dead.try_acquire()

        os.kill(pid, signal.SIGKILL)
        await until(lambda: stores.children()["nats-server"] not in (0, pid))
        assert stores.bus == address
        assert died == [("nats-server", -signal.SIGKILL)]
        await bus.wait_connected(10)

        successor = Lease(bus.kv(subject.KV_LEASE), key, "successor", clock)
        assert not await successor.try_acquire()
        assert await release_leases(stores) == 1
        assert await successor.try_acquire()
        assert successor.term == dead.term + 1
        assert await release_leases(stores) == 1
        assert await release_leases(stores) == 0
        await bus.close()
    assert children(tmp_path) == []


class Run:
    """`run_mesh` in a task, with what it reported."""

    def __init__(self, state: Path, *sites: str) -> None:
        self.options = MeshOptions(state, sites, http_port=0, grpc_port=0)
        self.stop = asyncio.Event()
        self.said: list[str] = []
        self.ready: asyncio.Future[MeshInfo] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MeshInfo]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                run_mesh(self.options, self.stop, report=self.said.append, on_ready=self.ready.set_result)
            )
            async with asyncio.timeout(40):
                info = await self.ready
            yield info
            self.stop.set()


async def test_a_stop_before_the_start_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.stop.set()
    async with asyncio.timeout(5):
        await run_mesh(run.options, run.stop, report=run.said.append, on_ready=run.ready.set_result)
    assert not run.ready.done()
    assert children(tmp_path) == []
    assert read_info(tmp_path / "state/hub") is None


async def test_a_program_of_a_site_that_fails_is_begun_again_and_the_mesh_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = Run(state, ALICE)
    async with first.running() as info:
        assert info.sites == (ALICE,)
        assert set(info.children) == {"nats-server", "seaweedfs"}
        status = await mesh_status(state)
        assert status.is_ok, status.document()
        assert read_info(state / "hub") == info
    assert children(tmp_path) == []
    with pytest.raises(Unavailable) as down:
        await mesh_status(state)
    assert down.value.reason == "MESH_DOWN"

    held = os.open(state / "sites" / ALICE / "runner/runner.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    second = Run(state)
    try:
        running = asyncio.create_task(_ready_within(second))
        await until(lambda: any("STATE_IN_USE" in line for line in second.said))
        said = [line for line in second.said if "STATE_IN_USE" in line]
        assert said == [f"runner of {ALICE} failed (STATE_IN_USE) and is begun again"]
        fcntl.flock(held, fcntl.LOCK_UN)
        await running
    finally:
        os.close(held)
    assert children(tmp_path) == []


async def _ready_within(run: Run) -> None:
    async with run.running() as info:
        assert await is_serving(f"unix:{run.options.state}/sites/{ALICE}/runner/runner.sock")
        assert info.sites == (ALICE,)


async def test_an_address_without_a_server_does_not_serve() -> None:
    (port,) = free_ports(1)
    assert not await is_serving(f"127.0.0.1:{port}")
