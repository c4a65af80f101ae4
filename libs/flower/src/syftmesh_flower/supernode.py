"""A real Flower SuperNode under supervision, in process isolation: it carries messages and runs nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
from syftmesh_core.errors import Unavailable, mesh_error
from syftmesh_kit.process import ChildProcess, RestartListener

from syftmesh_flower.environment import FLOWER_ENVIRONMENT

_PROGRAM: Final = "flower-supernode"
_START_S: Final = 40.0
_STOP_S: Final = 3.0


def supernode(
    relay_port: int,
    runtime_port: int,
    secret_file: Path,
    folder: Path,
    on_restart: RestartListener | None = None,
) -> ChildProcess:
    """Return the child process of a SuperNode; the caller starts and stops it.

    Args:
        relay_port: Where `relay.fleet_relay` listens.
        runtime_port: Where executors find its Runtime API, on loopback.
        secret_file: File (0600) with what executors have to show.
        folder: Its home and log.
        on_restart: Told when it died and is started again.

    Raises:
        Unavailable: FLOWER_MISSING: the program is not installed.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [
        _program(),
        "--insecure",
        "--superlink",
        f"127.0.0.1:{relay_port}",
        "--isolation",
        "process",
        "--host",
        "127.0.0.1",
        "--port",
        str(runtime_port),
        "--superexec-auth-secret-file",
        str(secret_file),
    ]

    async def ready() -> bool:
        async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
            try:
                return (await client.get(f"http://127.0.0.1:{runtime_port}/health")).status_code == 200
            except httpx.HTTPError:
                return False

    return ChildProcess(
        "supernode",
        command,
        ready=ready,
        log_path=folder / "supernode.log",
        environment={**FLOWER_ENVIRONMENT, "FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        start_timeout_s=_START_S,
        stop_timeout_s=_STOP_S,
        on_restart=on_restart,
    )


@asynccontextmanager
async def running(child: ChildProcess) -> AsyncIterator[None]:
    """Run a child for the block, started again whenever it dies.

    Raises:
        Unavailable: PROCESS_START_FAILED: it did not come up the first time.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            await child.start(tasks)
            try:
                yield
            finally:
                await child.stop()
    except BaseExceptionGroup as group:
        if (found := mesh_error(group)) is not None:
            raise found from group
        raise


def _program() -> str:
    beside = Path(sys.executable).parent / _PROGRAM
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(_PROGRAM)
    if found is None:
        raise Unavailable(
            f"The program {_PROGRAM} is missing: install flwr into the environment of this program.",
            reason="FLOWER_MISSING",
        )
    return found
