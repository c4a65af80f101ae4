from __future__ import annotations

import asyncio
import importlib.util
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest


def _load(name: str):
    if name not in sys.modules:
        path = Path(__file__).parent / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


world = _load("mesh_world")


class Hub:
    """The sync service's use cases over a hub in memory; one operation id for all unless another is given."""

    def __init__(self) -> None:
        self.bus, self.store = world.FakeBus(), world.FakeStore()
        self.clock = world.FixedClock()
        self.bus.now_ms = self.clock.now_ms
        self.bucket = world.FakeBucket()
        self.people = {
            world.ALICE: world.Person.create(world.ALICE, admins=1, others=1),
            world.BOB: world.Person.create(world.BOB),
            world.EVE: world.Person.create(world.EVE),
        }
        for person in self.people.values():
            world.publish_devices(self.bus, person)
        self.tasks: list[asyncio.Task] = []
        self.operation = str(uuid.UUID(int=7))
        self.build()

    def build(self) -> None:
        from syftmesh_kit.filelog import FileLog, StoredRules
        from syftmesh_sync.adapters.key_log import KeyLog
        from syftmesh_sync.adapters.object_shelf import ObjectShelf
        from syftmesh_sync.adapters.operation_ledger import OperationLedger
        from syftmesh_sync.adapters.record_log import RecordLog
        from syftmesh_sync.adapters.watch import Watch
        from syftmesh_sync.domain.candidate import Examine
        from syftmesh_sync.domain.commit import Commit
        from syftmesh_sync.domain.query import Query
        from syftmesh_sync.domain.upload import OpenUpload

        rules = StoredRules(self.store)
        self.log, self.keys = FileLog(self.bus, rules), KeyLog(self.bus)
        self.shelf, self.ledger = ObjectShelf(self.store), OperationLedger(self.bucket)
        self.upload = OpenUpload(self.log, self.ledger, self.shelf, self.clock)
        examine = Examine(self.keys, self.shelf, rules)
        self.commits = Commit(self.log, self.ledger, examine, RecordLog(self.bus, self.log), self.clock)
        self.query = Query(self.log, self.shelf, self.clock)
        self.watch = Watch(self.log, self.clock, heartbeat_s=10.0)

    async def start(self) -> None:
        self.tasks = [asyncio.create_task(self.log.run()), asyncio.create_task(self.keys.run())]
        async with asyncio.timeout(5):
            await self.log.wait_for(0, 5)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def restart(self) -> None:
        await self.stop()
        self.build()
        await self.start()

    def device(self, who: str):
        return self.people[who].device

    def caller(self, who: str, device=None):
        from syftmesh_sync.domain.operation import Uploader

        return Uploader(who, (device or self.device(who)).device_id)

    async def put(self, who: str, site: str, data: bytes, operation: str = "") -> None:
        """Upload `data` as a client does."""
        from syftmesh_sync.domain.upload import ObjectSpec

        spec = ObjectSpec(__import__("hashlib").sha256(data).digest(), len(data))
        targets = await self.upload.run(self.caller(who), operation or self.operation, site, [spec])
        if targets[0].grant is not None:
            status, _ = self.store.do("PUT", targets[0].grant.url, data)
            assert status == 200

    async def commit(self, who: str, *records, operation: str = "", device=None, **options):
        return await self.commits.run(
            self.caller(who, device), operation or self.operation, list(records), **options
        )

    async def write(self, path: str, data: bytes, *, who: str = "", device=None, replaces=None, kind=None):
        """Upload and commit one file; return its record and outcome."""
        site = path.partition("/")[0]
        who = who or site
        signer = device or self.device(who)
        is_plain = path.endswith(("syft.pub.yaml", "syft.groups.yaml")) if kind is None else kind == "plain"
        content = world.plain(data) if is_plain else world.sealed(data)
        operation = str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"{who}{signer.device_id}{path}{len(self.bus.messages)}")
        )
        from syftmesh_sync.domain.upload import ObjectSpec

        spec = ObjectSpec(bytes.fromhex(content.object_id), len(data))
        caller = self.caller(who, signer)
        for target in await self.upload.run(caller, operation, site, [spec]):
            if target.grant is not None:
                assert self.store.do("PUT", target.grant.url, data)[0] == 200
        signed = world.record(path, content, signer, replaces=replaces)
        (outcome,) = await self.commits.run(caller, operation, [signed])
        return signed, outcome


@pytest.fixture
def mesh():
    return world


@pytest.fixture
async def hub():
    made = Hub()
    await made.start()
    yield made
    await made.stop()
