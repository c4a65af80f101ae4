"""A job in our sandbox, from the order to its checked output, against bare bubblewrap and Python."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
import uuid
from pathlib import Path

from bench.measure import Row, Target, compared, pairs
from syftmesh_executor import EndReason, RunSpec, SandboxExecutor

RUNS = 10


async def job_start(folder: Path, count: int) -> list[Row]:
    """Run an empty program both ways."""
    code, data = folder / "code", folder / "data"
    code.mkdir()
    data.mkdir()
    (code / "main.py").write_text("pass\n")
    (data / "table.csv").write_text("a\n1\n")
    executor = SandboxExecutor()
    report = await executor.probe()
    if not report.passed:
        raise RuntimeError(f"the sandbox does not hold: {report.failures}")

    async def ours() -> float:
        started = time.perf_counter()
        for _ in range(RUNS):
            name = uuid.uuid4().hex
            outcome = await executor.run(RunSpec(name, code, "main.py", {"people": data}, folder / name))
            if outcome.reason is not EndReason.OK:
                raise RuntimeError(f"the run ended with {outcome.reason}: {outcome.detail}")
        return (time.perf_counter() - started) * 1000 / RUNS

    async def bare() -> float:
        started = time.perf_counter()
        for _ in range(RUNS):
            process = await asyncio.create_subprocess_exec(*_bare(code / "main.py"))
            if await process.wait():
                raise RuntimeError(f"bare bubblewrap ended with {process.returncode}")
        return (time.perf_counter() - started) * 1000 / RUNS

    try:
        found = await pairs(count, ours, bare)
    finally:
        await executor.close()
    return [compared("job start in the sandbox", "ms", "bwrap + python", found, Target(2.5))]


def _bare(program: Path) -> list[str]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise RuntimeError("bubblewrap is not installed")
    options = "--unshare-all --die-with-parent --ro-bind / / --dev /dev --proc /proc --tmpfs /run"
    return [bwrap, *options.split(), sys.executable, "-I", str(program)]
