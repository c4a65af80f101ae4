"""The embedded mesh: how fast it comes up and goes, what it holds, and how long the demo takes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from bench.child import ChildFailed, end, program, wait_line
from bench.measure import Row, alone

SITES: Final = "alice@hospital.example,bob@clinic.example"
UP_S, STOP_S, DEMO_S, PSS_MB = 6.0, 5.0, 90.0, 700.0
IDLE_S: Final = 5.0
"""The runners probe their sandboxes meanwhile."""
DEMO_TIMEOUT_S: Final = 300.0
END_TIMEOUT_S: Final = 30.0
DEMO_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds until ready, megabytes when idle, seconds from Ctrl-C to the end."""

    up_s: float
    pss_mb: float
    stop_s: float


async def up(folder: Path, count: int) -> list[Row]:
    """Start with two sites on a fresh state and again on the same, `count` times."""
    fresh, again = [], []
    for number in range(count):
        state = folder / f"state-{number}"
        fresh.append(await _start(state))
        again.append(await _start(state))
    both = fresh + again
    return [
        alone("up with two sites, fresh state, to ready", "s", [s.up_s for s in fresh], UP_S),
        alone("up with two sites, second time, to ready", "s", [s.up_s for s in again], UP_S),
        alone("memory of the mesh, idle (PSS)", "MB", [s.pss_mb for s in both], PSS_MB),
        alone("Ctrl-C to the end, highest", "s", [s.stop_s for s in both], STOP_S, highest=True),
    ]


async def demo(folder: Path, _count: int) -> list[Row]:
    """Run the demo, once to warm up and then some times more; its own steps are shown."""
    await run_demo(folder / "demo.log")
    runs = [await run_demo(folder / "demo.log") for _ in range(DEMO_RUNS)]
    return demo_rows("demo", runs, DEMO_S)


def demo_rows(
    name: str, runs: Sequence[tuple[float, Sequence[dict[str, Any]]]], limit: float | None
) -> list[Row]:
    """Return the rows of runs of the demo: the whole, and its steps.

    Args:
        name: What the demo is called.
        runs: From `run_demo`.
        limit: Upper bound of the whole in seconds.
    """
    rows = [alone(f"{name}, warm", "s", [wall_s for wall_s, _ in runs], limit)]
    for step in runs[0][1]:
        number = step["number"]
        seconds = [other["seconds"] for _, steps in runs for other in steps if other["number"] == number]
        rows.append(alone(f"{name}, step {number}: {step['title']}", "s", seconds, None))
    return rows


async def _start(state: Path) -> Start:
    command = ["up", "--sites", SITES, "--port", "0", "--grpc-port", "0", "--state", str(state)]
    started = time.monotonic()
    with state.with_suffix(".log").open("ab") as log:
        # A session of its own: Ctrl-C at a terminal reaches the whole group, and so it does here.
        process = await asyncio.create_subprocess_exec(
            program("syftmesh"),
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
        )
    try:
        await wait_line(process, "SyftMesh is ready", 60)
        up_s = time.monotonic() - started
        await asyncio.sleep(IDLE_S)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        pss_mb = sum(_pss_bytes(member) for member in family) / 1e6
        stopping = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        await _ended(process, family, state.with_suffix(".log"))
        stop_s = time.monotonic() - stopping
        left = [member.pid for member in family if member.is_running()]
        if left:
            raise RuntimeError(f"{len(left)} processes of the mesh are left behind")
        return Start(up_s, pss_mb, stop_s)
    finally:
        await end(process)


async def _ended(process: asyncio.subprocess.Process, family: Sequence[psutil.Process], log: Path) -> None:
    try:
        await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
    except TimeoutError:
        there = ", ".join(f"{member.name()} {member.status()}" for member in family if member.is_running())
        said = log.read_text(errors="replace")[-2000:]
        raise ChildFailed(f"not ended {END_TIMEOUT_S} s after Ctrl-C; there are {there}\n{said}") from None


def _pss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:  # the probe of a sandbox that has just ended
        return 0


async def run_demo(
    log: Path, *arguments: str, timeout_s: float = DEMO_TIMEOUT_S
) -> tuple[float, Sequence[dict[str, Any]]]:
    """Return how many seconds a demo took from its start to its end, and its steps.

    Args:
        log: Takes what it tells.
        arguments: Further ones.
        timeout_s: Longest time.

    Raises:
        ChildFailed: It failed; with its last words.
    """
    started = time.monotonic()
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            program("syftmesh"), "demo", "--json", *arguments, stdout=asyncio.subprocess.PIPE, stderr=errors
        )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        await end(process)
    wall_s = time.monotonic() - started
    if process.returncode:
        raise ChildFailed(
            f"the demo ended with {process.returncode}\n{log.read_text(errors='replace')[-2000:]}"
        )
    return wall_s, json.loads(output)["steps"]
