"""Small Flower apps that misbehave as they are told, and a mesh of two sites and a scientist to run them in.

What a site's app does is said by the setting `plan` of the run: JSON of partition, then round, then one of the modes
of `CLIENT`. What is not in it trains honestly.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import psutil
import syftmesh

ALICE, BOB = "alice@hospital.example", "bob@clinic.example"
CAROL, EVE = "carol@lab.example", "eve@elsewhere.example"
SITES = (ALICE, BOB)
DATASET = "doses"
QUICK = "quick"
"""The same data, whose owners let a task take `QUICK_S`."""
QUICK_S = 5
PURPOSE = "to see what faults do"
ROWS = 40
Plan = Mapping[int, Mapping[int, str]]

_PROJECT = """
[project]
name = "faulty"
version = "1.0.0"
description = "An app that does what its plan says"
license = "Apache-2.0"
dependencies = ["flwr>=1.41.0"]
[tool.flwr.app]
publisher = "syftmesh"
[tool.flwr.app.components]
{components}
[tool.flwr.app.config]
num-server-rounds = 1
more-rounds = 0
plan = "{{}}"
server = ""
"""

CLIENT = '''
import ctypes
import gc
import json
import os
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
HUGE = 1 << 30


@app.train()
def train(message, context):
    plan = json.loads(context.run_config["plan"])
    number = message.content["config"]["server-round"]
    mode = plan.get(str(context.node_config["partition-id"]), {}).get(str(number), "")
    path = os.path.join(str(context.node_config["data-dir"]), "doses.csv")
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    arrays = [np.full(4, rows.mean(), dtype=np.float32)]
    content = {"metrics": MetricRecord({"num-examples": len(rows)})}
    if mode == "sleep":
        _say(f"{context.run_id % 100000}-{number}")
        time.sleep(3)
        _say("done")
    elif mode == "hang":
        _say(f"{context.run_id % 100000}-{number}")
        time.sleep(3600)
    elif mode == "exit":
        os._exit(3)
    elif mode == "hog":
        kept = []
        while True:
            kept.append(os.urandom(1 << 20) * 16)
    elif mode == "raise":
        print(f"printed-{int(rows.sum())}")
        raise ValueError(f"private-{int(rows.sum())}")
    elif mode == "nan":
        arrays[0][2] = np.nan
    elif mode == "shape":
        arrays = [np.zeros((2, 2), dtype=np.float32)]
    elif mode == "text":
        content["note"] = ConfigRecord({"patient": str(rows[0])})
    elif mode == "bytes":
        content["note"] = ConfigRecord({"patient": rows.tobytes()})
    elif mode == "large":
        arrays = [np.ones((64 << 18) + 1000, dtype=np.float32)]
    elif mode == "huge":
        _send_huge()
    elif mode == "metrics":
        content["rows"] = MetricRecord({"all": [float(n) for n in range(1000)]})
    content["arrays"] = ArrayRecord(arrays)
    return Message(RecordDict(content), reply_to=message)


def _say(word):
    """Name the process, which is how a test outside sees where it is."""
    ctypes.CDLL(None).prctl(15, word.encode())


def _send_huge():
    """Say by the launcher's own pipe that a gigabyte follows, and send it."""
    (channel,) = [found for found in gc.get_objects() if type(found).__name__ == "Channel"]
    channel.send(4, [memoryview(bytearray(HUGE // 64))] * 64)
'''

SERVER = """
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    if context.run_config["server"] == "raise":
        raise RuntimeError("the server gave up on purpose")
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(4, dtype=np.float32)]),
        num_rounds=int(context.run_config["num-server-rounds"]) + int(context.run_config["more-rounds"]),
    )
"""


def make_app(folder: Path, *, client: str = "client_app:app", server: str = "server_app:app") -> Path:
    """Write the app into `folder` and return it; `client` and `server` are what it names, empty for nothing."""
    package = folder / "faulty"
    package.mkdir(parents=True)
    named = {"serverapp": server, "clientapp": client}
    lines = (f'{name} = "faulty.{reference}"' for name, reference in named.items() if reference)
    (folder / "pyproject.toml").write_text(_PROJECT.format(components="\n".join(lines)))
    (package / "__init__.py").write_text("")
    (package / "client_app.py").write_text(CLIENT)
    (package / "server_app.py").write_text(SERVER)
    return folder


@dataclass
class World:
    """A mesh with two sites, an owner at each, and a scientist who may see the datasets.

    Attributes:
        mesh: The mesh, see ``conftest.py``.
        app: The app that does what it is told.
        people: Clients by e-mail.
        sums: What all the private numbers of a site add up to.
    """

    mesh: Any
    app: Path
    people: dict[str, syftmesh.Client]
    sums: dict[str, int]
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    @property
    def carol(self) -> syftmesh.Client:
        return self.people[CAROL]

    def ask(self, plan: Plan | None = None, **options: Any) -> Any:
        """Create a run and return it once the sites have the proposal."""
        config: dict[str, Any] = {"plan": json.dumps(plan or {}), **options.pop("config", {})}
        wanted = {"app": self.app, "sites": SITES, "dataset": DATASET, "rounds": 1, "purpose": PURPOSE}
        return self.carol.fl.run(**{**wanted, "config": config, **options})

    def approve(self, run: Any, *owners: str) -> None:
        """Let owners, all by default, approve as they would: what they have looked at."""
        for owner in owners or SITES:
            self.people[owner].site.fl.approve(self.proposal(owner, run))

    def begin(self, plan: Plan | None = None, **options: Any) -> tuple[Any, Future[Any]]:
        """Create a run, approve it, and aggregate it in a thread; return it and what ends with it."""
        run = self.ask(plan, **options)
        self.approve(run)
        return run, self.threads.submit(run.aggregate)

    def run(self, plan: Plan | None = None, **options: Any) -> Any:
        """Return a run that has ended."""
        started = time.monotonic()
        run, ended = self.begin(plan, **options)
        ended.result(90)
        told(f"run of {run.snapshot.rounds_asked} rounds: {run.state} {run.reason}", started)
        return run

    def proposal(self, owner: str, run: Any) -> Any:
        """Return a run as an owner sees it."""
        return self.people[owner].site.fl.get(run.id)

    def tasks(self, owner: str, run: Any) -> list[tuple[str, bool, str]]:
        """Return what the owner's audit says of the tasks of a run: kind, whether it was answered, why not."""
        entries = self.people[owner].site.audit.query(kind="federated.task")
        mine = [entry.fields for entry in entries if entry.fields["run_id"] == run.id]
        return [(fields["kind"], fields["ok"], fields["reason"]) for fields in mine]

    def log(self, owner: str, run: Any) -> str:
        """Return what the app printed at a site, which its owner alone can read."""
        folder = self.mesh.state / "sites" / owner / "runner" / "runs" / run.id
        return "".join((folder / name).read_text() for name in ("stdout.txt", "stderr.txt"))

    def processes(self, mark: str) -> list[psutil.Process]:
        """Return the processes of the mesh whose command has `mark` in it."""
        found = []
        for process in psutil.Process(self.mesh.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if mark in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def apps(self) -> list[psutil.Process]:
        """Return the processes of ClientApps."""
        return self.processes(".syftmesh/client_app.py")

    def at_work(self, run: Any, number: int) -> int:
        """Return how many apps sleep or hang in a round of a run whose plan says so."""
        name = f"{int(run.id) % 100000}-{number}"
        found = 0
        for process in self.apps():
            with suppress(psutil.NoSuchProcess):
                found += process.name() == name
        return found

    def servers(self) -> list[psutil.Process]:
        """Return the processes of ServerApps, which are children of who aggregates: of this process."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if ".syftmesh/server_app.py" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def no_app_is_left(self, within_s: float = 10.0) -> float:
        """Wait until no process of any app runs, and return for how long."""
        return until(lambda: not self.apps() and not self.servers(), within_s, "no app runs")


def replies(run: Any, site: str) -> list[str]:
    """Return what a site answered in each training round: ``ok`` or the reason."""
    trained = [report for report in run.rounds if report.phase == "train"]
    found = [next((r for r in report.replies if r.site == site), None) for report in trained]
    return ["" if reply is None else "ok" if reply.ok else reply.reason for reply in found]


def until(wanted: Callable[[], Any], within_s: float, what: str) -> float:
    """Wait until something holds, and return the seconds that it took."""
    started = time.monotonic()
    while not wanted():
        assert time.monotonic() - started < within_s, f"after {within_s} s still not: {what}"
        time.sleep(0.05)
    return time.monotonic() - started


def told(what: str, started: float) -> None:
    """Print how long something took."""
    sys.stdout.write(f"{time.monotonic() - started:6.1f} s  {what}\n")


def environment(state: Path, email: str) -> dict[str, str]:
    """Return the environment in which somebody calls the program."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return {**kept, "SYFTMESH_STATE": str(state), "SYFTMESH_PROFILE": email}


@contextmanager
def world(folder: Path, *arguments: str) -> Iterator[World]:
    """Run a mesh with everybody logged in and the datasets registered, until the block ends."""
    with _conftest().mesh_process(folder / "state", ["--sites", ",".join(SITES), *arguments]) as mesh:
        for email in (CAROL, EVE):
            syftmesh.login(mesh.server, email=email, state=mesh.state)
        people = {
            email: syftmesh.connect(mesh.server, profile=email, state=mesh.state)
            for email in (*SITES, CAROL, EVE)
        }
        try:
            sums = {site: _register(folder, people[site], number) for number, site in enumerate(SITES)}
            made = World(mesh, make_app(folder / "app"), people, sums)
            yield made
            made.threads.shutdown(wait=False, cancel_futures=True)
        finally:
            for client in people.values():
                client.close()


def _register(folder: Path, owner: syftmesh.Client, number: int) -> int:
    table = folder / f"data-{number}" / "doses.csv"
    table.parent.mkdir()
    doses = [1_000_003 * (row + 7) % 999_983 + number for row in range(ROWS)]
    table.write_text("dose\n" + "".join(f"{dose}\n" for dose in doses))
    owner.site.datasets.create(DATASET, table, summary="Doses", audience=[CAROL])
    owner.site.datasets.create(
        QUICK, table, summary="Doses, in a hurry", audience=[CAROL], policy={"wall_seconds": QUICK_S}
    )
    return sum(doses)


def _conftest() -> Any:
    # Test modules are imported without packages, so a conftest has no name to be imported by.
    spec = spec_from_file_location("e2e_conftest", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
