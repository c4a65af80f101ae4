"""The mesh with two sites and all its protection, and a scientist's process that proposes and aggregates.

``bench.flower_ours STATE SERVER APP FOLDER ROUNDS ARRAYS FLOATS`` is that process: it says what it proposed, waits
for the owners like anybody, and says what came of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import syftmesh
from bench.child import ChildFailed, module, running, wait_line
from bench.flower_app import Model, Sample, memory, phases
from syftmesh_client.profile import ProfileStore, node_login
from syftmesh_client.site import open_account
from syftmesh_core.errors import MeshError

OWNERS: Final = ("owner@hospital-a.example", "owner@hospital-b.example")
SCIENTIST: Final = "scientist@lab.example"
DATASET: Final = "bench"
PARTS: Final = {
    "flower_child": "SuperLink",
    "flower-supernode": "SuperNode",
    "server_app.py": "ServerApp",
    "client_app.py": "ClientApp",
    "bench.flower_ours": "aggregator",
    "syftmesh_standalone": "mesh",
}
_ROWS: Final = 200
_PATIENCE_S: Final = 60.0
_RUN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class OurRun:
    """One run.

    Attributes:
        sample: Phases by the ServerApp's clock, as for the peer.
        reports_s: Phases by the reports of the aggregator, all of them.
        to_first_s: Seconds from the call of `fl.run` to the first phase.
    """

    sample: Sample
    reports_s: tuple[float, ...]
    to_first_s: float


@dataclass(slots=True)
class Ours:
    """A mesh that runs, and its owners.

    Attributes:
        folder: Where state and results lie.
        app: The app.
        server: Its address.
        pid: Its process.
        owners: The owners' clients.
        aggregator: Process id of the scientist's process, 0 when there is none.
    """

    folder: Path
    app: Path
    server: str
    pid: int
    owners: Mapping[str, Any]
    aggregator: int = 0

    async def run(self, model: Model, rounds: int) -> OurRun:
        """Propose, approve as both owners, aggregate.

        Raises:
            ChildFailed: It did not succeed.
            ValueError: Some round is missing.
        """
        results = self.folder / "results"
        arguments = map(str, (self.folder / "state", self.server, self.app, results, rounds))
        sizes = (str(model.arrays), str(model.floats))
        command = (*module("bench.flower_ours"), *arguments, *sizes)
        async with running(*command, log=self.folder / "scientist.log", word="proposed") as (process, line):
            self.aggregator = process.pid
            try:
                run_id = line.split()[1]
                await asyncio.gather(*(_approve(client, run_id) for client in self.owners.values()))
                said = json.loads((await wait_line(process, "ended", _RUN_S)).partition(" ")[2])
            finally:
                self.aggregator = 0
        if said["state"] != "succeeded":
            raise ChildFailed(f"the run ended as {said['state']}: {said['message']}")
        log = (results / run_id / "logs" / "server.txt").read_text()
        return OurRun(Sample(phases(log, rounds)), tuple(said["reports_s"]), said["to_first_s"])

    def memory(self) -> dict[str, float]:
        """Return the memory of its parts now."""
        return memory([pid for pid in (self.pid, self.aggregator) if pid], PARTS)


@asynccontextmanager
async def running_ours(folder: Path, app: Path) -> AsyncIterator[Ours]:
    """Run a mesh with two sites for the block, each with a table."""
    folder.mkdir()
    state = folder / "state"
    command = (
        *(*module("syftmesh_standalone"), "--state", str(state), "--sites", ",".join(OWNERS)),
        *("--http-port", "0", "--grpc-port", "0"),
    )
    log = folder / "mesh.log"
    async with running(*command, log=log, word="SyftMesh is ready") as (process, line):
        server = line.split()[-1]
        store = ProfileStore(state)
        login = node_login(state, server)
        await open_account(store.save(SCIENTIST, server), login, keep_phrase=lambda _words: None)
        async with AsyncExitStack() as stack:
            owners = {}
            for owner in OWNERS:
                opening = syftmesh.connect_async(server, profile=owner, state=state)
                owners[owner] = await stack.enter_async_context(opening)
                await _register(owners[owner], folder / f"{owner}.csv")
            yield Ours(folder, app, server, process.pid, owners)


async def _register(client: Any, table: Path) -> None:
    rows = "".join(f"{number},{number % 7}\n" for number in range(_ROWS))
    table.write_text(f"value,group\n{rows}")
    end = time.monotonic() + _PATIENCE_S
    while not (await client.site.status()).connected:
        if time.monotonic() > end:
            raise ChildFailed(f"the site {client.email} did not connect")
        await asyncio.sleep(0.2)
    await client.site.datasets.create(
        DATASET, table, mock="generate", summary="Numbers", audience=(SCIENTIST,), policy={"min_cell": 5}
    )


async def _approve(client: Any, run_id: str) -> None:
    """Approve as soon as the proposal is there."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await client.site.fl.approve(run_id)
            return
        except MeshError as error:
            if error.reason != "RUN_UNKNOWN" or time.monotonic() > end:
                raise
        await asyncio.sleep(0.05)


async def _scientist(state: Path, server: str, app: Path, results: Path, rounds: int, model: Model) -> None:
    async with syftmesh.connect_async(server, profile=SCIENTIST, state=state) as client:
        asked_s = time.time()
        run = await client.fl.run(
            app,
            OWNERS,
            DATASET,
            rounds=rounds,
            config={"arrays": model.arrays, "floats": model.floats},
            purpose="measures rounds",
            deadline_s=3600,
        )
        _say(f"proposed {run.id}")
        await run.aggregate()
        await run.results(results / run.id)
    reports = run.rounds
    document = {
        "state": str(run.state),
        "message": run.message,
        "reports_s": [(report.ended_ms - report.started_ms) / 1000 for report in reports],
        "to_first_s": reports[0].started_ms / 1000 - asked_s if reports else 0.0,
    }
    _say(f"ended {json.dumps(document)}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _where = [Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])]
    asyncio.run(_scientist(*_where, Model("", int(sys.argv[6]), int(sys.argv[7]))))  # type: ignore[arg-type]
