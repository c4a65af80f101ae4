"""The policy fence on a bus of three servers: what orders messages there is a vote, not one server's disk."""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from mesh.sync.v1 import sync_pb2
from syftmesh_core.errors import Conflict, MeshError
from syftmesh_core.path import parse_path
from syftmesh_core.record import SignedRecord
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.filelog import LogPosition, fence_subject
from syftmesh_sync.adapters.record_log import RecordLog
from syftmesh_sync.domain.ports import NewRecord

sys.path.insert(0, str(Path(__file__).parent))
from test_bus_cluster import servers

pytestmark = pytest.mark.integration

SITE = "alice@site.example"
RULES = "syft.pub.yaml"
WRITES = 40
CHANGES = 25


@dataclass(frozen=True)
class Epoch:
    position: LogPosition


async def _newest(bus: Bus, name: str) -> int:
    found = await bus.last_message(name, stream=subject.FILES)
    return found.sequence if found else 0


async def _declared(bus: Bus) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await bus.ensure_stream(topology.FILES)
            except MeshError:  # members find one another first
                await asyncio.sleep(0.2)
            else:
                return


def _record(name: str, number: int, *, last: int, fence: int | None) -> NewRecord:
    signed = SignedRecord(f"{name} {number}".encode(), b"", b"")
    digest = f"{name} {number} {last} {fence}".encode()
    return NewRecord(parse_path(f"{SITE}/{name}"), signed, digest, last, fence or 0, fence)


class Race:
    """Three replicas, each at a server of its own: changes of policy against writes that were decided before."""

    def __init__(self, buses: list[Bus]) -> None:
        self._buses = buses
        self._logs = [RecordLog(bus, Epoch(LogPosition(1, 0))) for bus in buses]
        self._rng = random.Random(5)  # noqa: S311 - an order to be tried, no secret
        self.lost = 0
        self.written = 0

    async def write(self, number: int) -> None:
        for count in range(WRITES):
            while True:
                fence = await _newest(self._buses[number], fence_subject(SITE))
                await asyncio.sleep(self._rng.random() * 0.01)
                new = _record(f"w{number}-{count}", count, last=0, fence=fence)
                if await self._append(number, new):
                    break
        self.written += WRITES

    async def change(self) -> None:
        last = 0
        for count in range(CHANGES):
            while not (
                sequence := await self._append(count % 3, _record(RULES, count, last=last, fence=None))
            ):
                self.lost -= 1  # another message to the same subject was on its way
            last = sequence
            await asyncio.sleep(self._rng.random() * 0.04)

    async def _append(self, number: int, new: NewRecord) -> int:
        """Return the sequence, 0 when something it was decided on has changed."""
        try:
            return (await self._logs[number].append([new])).sequences[0]
        except Conflict:
            self.lost += 1
            await asyncio.sleep(self._rng.random() * 0.01)
            return 0

    async def judge(self) -> None:
        """Read the log as it is written, until every write was judged by the fence before it."""
        newest, judged = 0, 0
        async with aclosing(self._buses[0].ordered_consumer(subject.FILES)) as messages:
            async for message in messages:
                if message.subject == fence_subject(SITE):
                    newest = message.sequence
                elif message.type_name == sync_pb2.FileEntry.DESCRIPTOR.full_name:
                    entry = message.decode(sync_pb2.FileEntry)
                    if entry.path != f"{SITE}/{RULES}":
                        judged += 1
                        assert entry.checked_at.sequence == newest, (entry.path, message.sequence)
                if judged == 3 * WRITES:
                    return


async def test_no_record_passes_a_newer_fence_in_a_cluster(tmp_path: Path) -> None:
    async with servers(tmp_path) as (cluster, _):
        addresses = [f"nats://127.0.0.1:{port}" for port in cluster.clients]
        buses = [await Bus.connect(address, name="sync") for address in addresses]
        for bus in buses:
            bus.replicas = 3
        await _declared(buses[0])
        race = Race(buses)
        async with asyncio.timeout(80), asyncio.TaskGroup() as tasks:
            tasks.create_task(race.judge())
            tasks.create_task(race.change())
            for number in range(3):
                tasks.create_task(race.write(number))
        for bus in buses:
            await bus.close()
    assert race.written == 3 * WRITES
    assert race.lost > 0
