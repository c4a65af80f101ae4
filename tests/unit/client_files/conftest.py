from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import httpx
import pytest
from syftmesh_client.directory import PrincipalKeys
from syftmesh_client.files import FileClient
from syftmesh_client.keystore import KeyStore
from syftmesh_client.revision import RevisionMemory
from syftmesh_core.clock import system_random
from syftmesh_core.errors import NotFound
from syftmesh_kit.caller import Caller, bind_caller


def _load(folder: str, name: str, alias: str):
    if alias not in sys.modules:
        path = Path(__file__).parents[1] / folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(alias, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module
        spec.loader.exec_module(module)
    return sys.modules[alias]


world = _load("sync", "mesh_world", "mesh_world")
Hub = _load("sync", "conftest", "sync_conftest").Hub


class Stub:
    """The sync service's stub: calls the servicer itself, as the caller, and lets a test change answers."""

    def __init__(self, servicer, caller: Caller) -> None:
        self._servicer = servicer
        self._caller = caller
        self.tamper = {}
        self.calls: list[str] = []

    def __getattr__(self, name):
        method = getattr(self._servicer, name)

        if name == "WatchChanges":

            async def stream(request):
                bind_caller(self._caller)
                async for answer in method(request, None):
                    yield self.tamper.get(name, lambda a: a)(answer)

            return stream

        async def call(request):
            self.calls.append(name)
            bind_caller(self._caller)
            return self.tamper.get(name, lambda a: a)(await method(request, None))

        return call


class Session:
    def __init__(self, stub: Stub) -> None:
        self.sync = stub


class Directory:
    """Verified device lists of the people of the world."""

    def __init__(self, people) -> None:
        self.people = people
        self.removed: set[str] = set()

    async def devices_of(self, principal: str, *, refresh: bool = False) -> PrincipalKeys:
        person = self.people.get(principal)
        if person is None:
            raise NotFound("", reason="PRINCIPAL_UNKNOWN")
        devices = tuple(d for d in person.publics() if d.device_id not in self.removed)
        return PrincipalKeys(principal, person.root.public_key, len(person.chain), devices)


class Desk:
    """One device with its file client."""

    def __init__(self, hub: Hub, directory: Directory, device, root: bytes, folder: Path) -> None:
        from syftmesh_sync.adapters.freshness import Freshness
        from syftmesh_sync.servicer import SyncServicer

        self.hub = hub
        self.stub = Stub(
            SyncServicer(hub.log, hub.upload, hub.commits, hub.query, hub.watch, Freshness(hub.bus, hub.log)),
            Caller(device.principal, device.device_id, "token"),
        )
        self.directory = directory
        self.keystore = KeyStore.create(folder, device=device, own_root=root)
        self.requests: list[httpx.Request] = []
        self.answer = self._store
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(lambda r: self._take(r)), trust_env=False)
        self.memory = RevisionMemory(folder)
        self.files = FileClient(
            Session(self.stub),
            directory,
            self.keystore,
            hub.clock,
            system_random,
            self.http,
            memory=self.memory,
        )

        async def no_sleep(seconds: float) -> None:
            await asyncio.sleep(0)

        self.files._transfer._sleep = no_sleep

    def _take(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answer(request)
        return httpx.Response(answer.status_code, stream=httpx.ByteStream(answer.content))

    def _store(self, request: httpx.Request) -> httpx.Response:
        status, body = self.hub.store.do(request.method, str(request.url), request.content)
        return httpx.Response(status, content=body)

    async def close(self) -> None:
        await self.http.aclose()
        self.memory.close()


@pytest.fixture
def mesh():
    return world


@pytest.fixture
async def hub():
    made = Hub()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def desks(hub, tmp_path):
    """Desks by name: `alice` (admin), `runner` (alice's other device), `bob`, `eve`."""
    directory = Directory(hub.people)
    made = {}
    alice = hub.people[world.ALICE]
    for name, person, device in (
        ("alice", alice, alice.devices[0]),
        ("runner", alice, alice.devices[1]),
        ("bob", hub.people[world.BOB], hub.people[world.BOB].device),
        ("eve", hub.people[world.EVE], hub.people[world.EVE].device),
    ):
        made[name] = Desk(hub, directory, device, person.root.public_key, tmp_path / name)
    yield made
    for desk in made.values():
        await desk.close()
