"""The Flower app that both sides run, times and the memory of a family of processes: what both sides share."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

_PHASE: Final = re.compile(r"^PHASE (\d+) (\d+\.\d+)\s*$", re.MULTILINE)

_PROJECT: Final = """\
[project]
name = "bench-fl"
version = "1.0.0"
description = "Adds a constant to the model: what is measured is the way, not the training"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["flwr>=1.41.0", "numpy>=2"]

[tool.flwr.app]
publisher = "syftmesh"

[tool.flwr.app.components]
serverapp = "bench_fl.server_app:app"
clientapp = "bench_fl.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 4
arrays = 1
floats = 256
"""
_SERVER: Final = '''\
"""FedAvg without evaluation; says when each round was over."""

import time

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    """Average what two sites send."""
    config = context.run_config
    random = np.random.default_rng(0)
    shape = (int(config["floats"]),)
    arrays = [random.random(shape, dtype=np.float32) for _ in range(int(config["arrays"]))]

    def told(number, arrays):
        print(f"PHASE {number} {time.time():.6f}", flush=True)

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(arrays),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=told,
    )
'''
_CLIENT: Final = '''\
"""Adds a constant, another one at each site: equal updates would be stored once."""

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    """Answer with the model and a constant."""
    added = np.float32(1 + int(context.node_config["partition-id"]))
    arrays = [array + added for array in message.content["arrays"].to_numpy_ndarrays()]
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 100})}
    return Message(RecordDict(content), reply_to=message)
'''


@dataclass(frozen=True, slots=True)
class Model:
    """What is trained.

    Attributes:
        name: For the table.
        arrays: How many arrays of float32.
        floats: Values in each.
    """

    name: str
    arrays: int
    floats: int


SMALL: Final = Model("1 KB", 1, 256)
LARGE: Final = Model("50 MB", 10, 1_250_000)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds of each phase after the first, which also starts the apps."""

    phases_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Return the median phase."""
        return statistics.median(self.phases_s)


@dataclass(slots=True)
class Peaks:
    """Highest memory of the parts, in megabytes, as it was seen."""

    mb: dict[str, float] = field(default_factory=dict)

    def see(self, found: Mapping[str, float]) -> None:
        """Take one look at all parts."""
        for part, value in found.items():
            self.mb[part] = max(value, self.mb.get(part, 0.0))


def write_app(folder: Path) -> Path:
    """Write the app and return its folder."""
    code = folder / "app" / "bench_fl"
    code.mkdir(parents=True)
    (code.parent / "pyproject.toml").write_text(_PROJECT)
    (code / "__init__.py").write_text('"""Measures federated rounds."""\n')
    (code / "server_app.py").write_text(_SERVER)
    (code / "client_app.py").write_text(_CLIENT)
    return code.parent


def phases(log: str, rounds: int) -> tuple[float, ...]:
    """Return the seconds from each end of a round to the next one, as the ServerApp said them.

    Raises:
        ValueError: Some round is missing.
    """
    ends = {int(number): float(at) for number, at in _PHASE.findall(log)}
    missing = [number for number in range(1, rounds + 1) if number not in ends]
    if missing or rounds < 2:
        raise ValueError(f"of {rounds} rounds, {missing} did not end; the log says {log[-500:]!r}")
    return tuple(
        later - earlier for earlier, later in itertools.pairwise(ends[n] for n in range(1, rounds + 1))
    )


def memory(roots: Iterable[int], parts: Mapping[str, str]) -> dict[str, float]:
    """Return the memory (PSS, MB) of the largest process of each part below `roots`, and of nothing else.

    Args:
        roots: Process ids; their children belong to them.
        parts: Part by a word of its command line; the first that fits counts.
    """
    found: dict[str, float] = {}
    for process in _families(roots):
        try:
            command = " ".join(process.cmdline())
            part = next((name for word, name in parts.items() if word in command), None)
            if part is not None:
                found[part] = max(found.get(part, 0.0), process.memory_full_info().pss / 1e6)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue  # it has just ended
    return found


def _families(roots: Iterable[int]) -> Sequence[psutil.Process]:
    found: list[psutil.Process] = []
    for root in roots:
        try:
            process = psutil.Process(root)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found
