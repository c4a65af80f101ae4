"""Federated rounds beside stock Flower: the same app, the same number of sites, both up at the same time.

Of each run the first phase is left out, for it starts the apps; the sample is the median of the others. The runs that
do not count, one of each side and model, are those in which memory is looked at.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.flower_app import LARGE, SMALL, Model, Peaks, write_app
from bench.flower_ours import OurRun, Ours, running_ours
from bench.flower_stock import Stock, running_stock
from bench.measure import Row, Target, alone, compared

ROUNDS: Final = 4
SMALL_RATIO, LARGE_RATIO, FIRST_S = 1.0, 1.5, 15.0
STOCK: Final = "stock Flower"
IDLE_S: Final = 20.0
"""A run's sites are told of its end, and give memory back, a moment after the aggregator knows."""
_LOOK_S: Final = 0.5


async def rounds(folder: Path, count: int) -> list[Row]:
    """Train a model of 1 KB and one of 50 MB, `count` pairs of runs of each."""
    app = write_app(folder)
    async with running_stock(folder / "stock", app) as stock, running_ours(folder / "ours", app) as ours:
        before = ours.memory()["mesh"]
        small = await _model(stock, ours, SMALL, Target(SMALL_RATIO), count)
        large = await _model(stock, ours, LARGE, Target(LARGE_RATIO), count)
        await asyncio.sleep(IDLE_S)
        after = ours.memory()["mesh"]
    return [
        *small.rows(),
        *large.rows(),
        alone("fl.run to the first phase, highest", "s", small.to_first_s, FIRST_S, highest=True),
        *small.memory_rows(),
        *large.memory_rows(),
        alone("memory of the mesh before any run", "MB", [before], None),
        alone("memory of the mesh after each run, 1 KB", "MB", small.mesh_mb, None),
        alone("memory of the mesh after each run, 50 MB", "MB", large.mesh_mb, None),
        alone(f"memory of the mesh {IDLE_S:g} s after the last run", "MB", [after], None),
    ]


class Found:
    """What was found with one model."""

    def __init__(self, model: Model, target: Target) -> None:
        self.model = model
        self.target = target
        self.pairs: list[tuple[float, float]] = []
        self.reports_s: list[float] = []
        self.to_first_s: list[float] = []
        self.mesh_mb: list[float] = []
        self.our_peaks = Peaks()
        self.stock_peaks = Peaks()

    def take(self, run: OurRun, mesh_mb: float) -> None:
        """Note one of our runs."""
        self.reports_s.append(statistics.median(run.reports_s[1:]))
        self.to_first_s.append(run.to_first_s)
        self.mesh_mb.append(mesh_mb)

    def rows(self) -> list[Row]:
        """Return the rows of time."""
        what = f"federated phase, two sites, {self.model.name}"
        return [
            compared(what, "s", STOCK, self.pairs, self.target),
            alone(f"{what}, by the aggregator's reports", "s", self.reports_s, None),
        ]

    def memory_rows(self) -> list[Row]:
        """Return the rows of memory: parts that both have beside each other, then our own."""
        ours, stock = self.our_peaks.mb, self.stock_peaks.mb
        return [*_shared(self.model, ours, stock), *_single(self.model, ours, stock)]


async def _model(stock: Stock, ours: Ours, model: Model, target: Target, count: int) -> Found:
    found = Found(model, target)

    async def mine() -> float:
        run = await ours.run(model, ROUNDS)
        found.take(run, ours.memory()["mesh"])
        return run.sample.median_s

    async def theirs() -> float:
        return (await stock.run(model, ROUNDS)).median_s

    async with looking(ours.memory, found.our_peaks):
        await mine()
    async with looking(stock.memory, found.stock_peaks):
        await theirs()
    for number in range(count):
        if number % 2:
            peer = await theirs()
            found.pairs.append((await mine(), peer))
        else:
            own = await mine()
            found.pairs.append((own, await theirs()))
    return found


@asynccontextmanager
async def looking(look: Callable[[], Mapping[str, float]], peaks: Peaks) -> AsyncIterator[None]:
    """Look at the memory of the parts again and again during the block."""

    async def again() -> None:
        while True:
            peaks.see(await asyncio.to_thread(look))
            await asyncio.sleep(_LOOK_S)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _shared(model: Model, ours: Mapping[str, float], stock: Mapping[str, float]) -> list[Row]:
    return [
        compared(f"peak memory of a {part}, {model.name}", "MB", STOCK, [(ours[part], stock[part])], None)
        for part in ours
        if part in stock
    ]


def _single(model: Model, ours: Mapping[str, float], stock: Mapping[str, float]) -> list[Row]:
    rows = [
        alone(f"peak memory of the {part}, {model.name}", "MB", [ours[part]], None)
        for part in ours
        if part not in stock
    ]
    both = [("ours", ours), (STOCK, stock)]
    return rows + [
        alone(f"one of each part, {model.name}, {who}", "MB", [sum(parts.values())], None)
        for who, parts in both
    ]
