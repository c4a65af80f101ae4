"""Programs that a bench starts: ready when they say so, ended by their own process id."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

TESTS = Path(__file__).parents[1]


class ChildFailed(Exception):
    """A program ended before it was ready, or did not become ready."""


async def wait_line(process: asyncio.subprocess.Process, word: str, timeout_s: float) -> str:
    """Return the first line of stdout that begins with `word`.

    Raises:
        ChildFailed: The program ended before, or the time is over.
    """
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            while line := (await process.stdout.readline()).decode():
                if line.startswith(word):
                    return line.strip()
    except TimeoutError:
        raise ChildFailed(f"no {word!r} within {timeout_s} s") from None
    raise ChildFailed(f"ended with {await process.wait()} before {word!r}")


@asynccontextmanager
async def running(
    *command: str,
    log: Path,
    word: str = "ready",
    timeout_s: float = 60.0,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a program for the block; give it and the line with which it said that it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "GRPC_VERBOSITY": "ERROR", **(variables or {})}
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment
        )
    try:
        try:
            line = await wait_line(process, word, timeout_s)
        except ChildFailed as error:
            tail = log.read_text(errors="replace")[-2000:]
            raise ChildFailed(f"{' '.join(command[1:4])}: {error}\n{tail}") from None
        yield process, line
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process, by: signal.Signals = signal.SIGTERM) -> None:
    """End a program, by force after 20 s."""
    if process.returncode is not None:
        return
    process.send_signal(by)
    try:
        async with asyncio.timeout(20):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def module(name: str) -> tuple[str, str, str]:
    """Return the command that runs a module of this environment."""
    return sys.executable, "-m", name


def program(name: str) -> str:
    """Return the path of a program of this environment."""
    return str(Path(sys.executable).with_name(name))
