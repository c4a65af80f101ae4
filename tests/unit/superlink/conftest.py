"""Runs, app bundles, and a Flower and stores in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh_core.errors import Conflict, IntegrityFailure, Unavailable
from syftmesh_kit.testing import FakeClock, FakeRandom
from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.keeper import Keeper
from syftmesh_superlink.domain.ports import FlowerStatus, StoredRun
from syftmesh_superlink.domain.presence import Presence
from syftmesh_superlink.domain.register import Register
from syftmesh_superlink.domain.run import Run, RunState, SiteRun, SiteState

ANNA, BOB, CARL, EVE = "anna@x.example", "bob@y.example", "carl@z.example", "eve@e.example"
PROJECT = """
[project]
name = "tiny"
version = "1.0.0"
[tool.flwr.app]
publisher = "anna"
[tool.flwr.app.components]
serverapp = "tiny.server:app"
clientapp = "tiny.client:app"
[tool.flwr.app.config]
rounds = 2
rate = 0.5
nested.flag = true
"""
START_MS = FakeClock().now_ms()


def make_fab(project: str = PROJECT) -> bytes:
    """Return a small bundle, as Flower writes it."""
    files = {"pyproject.toml": project, "tiny/server.py": "app = None\n", "tiny/client.py": "app = None\n"}
    lines = [f"{name},{sha256(text.encode()).hexdigest()},{len(text) * 8}" for name, text in files.items()]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in {**files, ".info/CONTENT": "\n".join(lines)}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


def make_run(*states: SiteState, **fields: Any) -> Run:
    """Return a run of Bob and Carl (and more) in these states."""
    names = (BOB, CARL, EVE)
    sites = tuple(SiteRun(name, state) for name, state in zip(names, states, strict=False))
    values: dict[str, Any] = {
        "run_id": "7",
        "federation": "f" * 32,
        "aggregator": ANNA,
        "app_digest": "a" * 64,
        "app_name": "anna/tiny==1.0.0",
        "dataset": "tiny",
        "sites": sites,
        "rounds": 2,
        "minimum_sites": len(sites),
        "created_ms": START_MS,
        "deadline_ms": START_MS + 1000_000,
    }
    return Run(**{**values, **fields})


class MemoryStore:
    """`RunStore` in memory; `lose` makes the next write be done and its answer lost."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.lose = 0
        self.away = False

    async def list(self) -> list[StoredRun]:
        if self.away:
            raise Unavailable("away", reason="BUS_UNREACHABLE")
        return list(self.runs.values())

    async def get(self, run_id: str) -> StoredRun | None:
        return self.runs.get(run_id)

    async def create(self, run: Run) -> int:
        if self.away:
            raise Unavailable("away", reason="BUS_UNREACHABLE")
        if run.run_id in self.runs:
            raise Conflict("there", reason="KV_CONFLICT")
        self.runs[run.run_id] = StoredRun(run, 1)
        return 1

    async def replace(self, run: Run, revision: int) -> int:
        stored = self.runs[run.run_id]
        if stored.revision != revision:
            raise Conflict("other", reason="KV_CONFLICT")
        if self.lose:
            self.lose -= 1
            self.runs[run.run_id] = StoredRun(run, revision + 1)
            raise Conflict("its own write was there already", reason="KV_CONFLICT")
        self.runs[run.run_id] = StoredRun(run, revision + 1)
        return revision + 1


@dataclass
class FakeFlower:
    """`Flower` in memory."""

    is_started: bool = True
    away: bool = False
    status: dict[str, FlowerStatus] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    started: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    tokens: int = 0

    async def start_run(self, account: str, federation: str, bundle: bytes, config: Mapping[str, Any]) -> str:
        self._answer()
        self.started.append((account, federation, dict(config)))
        run_id = str(100 + len(self.started))
        self.status[run_id] = FlowerStatus.PENDING
        return run_id

    async def stop_run(self, run_id: str) -> None:
        self._answer()
        self.stopped.append(run_id)
        self.status[run_id] = FlowerStatus.STOPPED

    async def claim(self, run_id: str) -> str | None:
        self._answer()
        if self.status.get(run_id) is not FlowerStatus.PENDING:
            return None
        self.status[run_id] = FlowerStatus.STARTING
        self.tokens += 1
        return f"token-{self.tokens}"

    async def statuses(self, run_ids: Collection[str]) -> Mapping[str, FlowerStatus]:
        self._answer()
        return {run_id: self.status[run_id] for run_id in run_ids if run_id in self.status}

    async def forget_node(self, node_id: int) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("away", reason="SUPERLINK_AWAY")


class MemoryMembers:
    """`Members` in memory."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, tuple[int, ...]]] = {}

    async def write(self, federation: str, account: str, nodes: Collection[int]) -> None:
        self.files[federation] = (account, tuple(sorted(nodes)))


class MemoryBundles:
    """`Bundles` in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def put(self, digest: str, data: bytes) -> None:
        self.files[digest] = data

    async def get(self, digest: str) -> bytes:
        if digest not in self.files:
            raise IntegrityFailure("missing", reason="RECORD_DAMAGED")
        return self.files[digest]


class MemoryNodes:
    """`Nodes` in memory."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, principal: str) -> int | None:
        return self.known.get(principal)


class World:
    """The use cases over everything in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store, self.flower, self.members = MemoryStore(), FakeFlower(), MemoryMembers()
        self.bundles, self.nodes = MemoryBundles(), MemoryNodes()
        self.presence = Presence(self.clock)
        self.build()

    def build(self) -> None:
        """Begin anew on the same store, as after a restart."""
        self.register = Register(self.store, self.members, self.nodes, self.clock)
        self.federation = Federation(
            self.register, self.flower, self.members, self.bundles, self.clock, FakeRandom()
        )
        self.keeper = Keeper(self.register, self.federation, self.flower, self.presence, self.clock)

    async def look(self, seconds: float = 0.0) -> None:
        """Let time pass and look after the runs."""
        self.clock.advance(seconds)
        await self.keeper.look()

    def heard(self, run: Run) -> None:
        """Let everybody of a run be heard."""
        for site in run.approved:
            self.presence.site_heard(site)
        self.presence.aggregator_heard(run.run_id)

    async def running(self, *sites: str, minimum: int = 0) -> Run:
        """Return a run that every site approved and whose aggregator has the task."""
        from syftmesh_superlink.domain.draft import Draft

        run = await self.federation.create(ANNA, Draft(sites, "tiny", 2, minimum), make_fab())
        for site in sites:
            await self.federation.report_site(site, run.run_id, SiteState.APPROVED, "")
        run, _ = await self.federation.acquire(ANNA, run.run_id)
        self.flower.status[run.run_id] = FlowerStatus.RUNNING
        self.heard(run)
        return run


@pytest.fixture
async def world() -> World:
    """The use cases, loaded."""
    found = World()
    await found.register.load()
    return found


@pytest.fixture
def make() -> SimpleNamespace:
    """Makers of runs and bundles, and names."""
    return SimpleNamespace(
        run=make_run, fab=make_fab, PROJECT=PROJECT, ANNA=ANNA, BOB=BOB, CARL=CARL, EVE=EVE, START_MS=START_MS,
        FAILED=RunState.FAILED, replace=replace,
    )  # fmt: skip
