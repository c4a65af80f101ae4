"""Stock Flower as its own documentation starts it: a SuperLink, two SuperNodes, ``flwr run``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from bench.child import ChildFailed, end, program
from bench.flower_app import Model, Sample, memory, phases
from syftmesh_flower.environment import FLOWER_ENVIRONMENT
from syftmesh_kit.process import free_ports

SITES: Final = 2
PARTS: Final = {
    "flower-superlink": "SuperLink",
    "flower-supernode": "SuperNode",
    "flwr-serverapp": "ServerApp",
    "flwr-clientapp": "ClientApp",
    "flower-superexec": "SuperExec",
}
_START_S: Final = 60.0
_RUN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Stock:
    """A deployment of stock Flower that runs.

    Attributes:
        folder: Where its state lies.
        app: The app.
        roots: Its processes.
    """

    folder: Path
    app: Path
    roots: tuple[int, ...]

    async def run(self, model: Model, rounds: int) -> Sample:
        """Run the app once.

        Raises:
            ChildFailed: `flwr run` failed, or took too long.
            ValueError: Some round is missing.
        """
        config = f"num-server-rounds={rounds} arrays={model.arrays} floats={model.floats}"
        process = await asyncio.create_subprocess_exec(
            program("flwr"),
            *("run", str(self.app), "bench", "--stream", "-c", config),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(self.folder / "cli"),
        )
        try:
            async with asyncio.timeout(_RUN_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise ChildFailed(f"flwr run did not end within {_RUN_S:.0f} s") from None
        finally:
            await end(process)
        text = output.decode(errors="replace")
        if process.returncode:
            raise ChildFailed(f"flwr run ended with {process.returncode}\n{text[-2000:]}")
        return Sample(phases(text, rounds))

    def memory(self) -> dict[str, float]:
        """Return the memory of its parts now."""
        return memory(self.roots, PARTS)


@asynccontextmanager
async def running_stock(folder: Path, app: Path) -> AsyncIterator[Stock]:
    """Run stock Flower with two sites for the block, insecure on loopback, with a database in a file."""
    port, *site_ports = free_ports(1 + SITES)
    folder.mkdir()
    _write_cli(folder / "cli", port)
    async with AsyncExitStack() as stack:
        link = (
            *("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)),
            *("--database", str(folder / "state.db"), "--disable-runtime-dependency-installation"),
        )
        roots = [await stack.enter_async_context(_child(folder / "superlink", *link))]
        await _healthy(port)
        for number, site_port in enumerate(site_ports):
            node = (
                *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"),
                *("--host", "127.0.0.1", "--port", str(site_port)),
                *("--node-config", f"partition-id={number} num-partitions={SITES}"),
            )
            roots.append(await stack.enter_async_context(_child(folder / f"site-{number}", *node)))
        for site_port in site_ports:
            await _healthy(site_port)
        yield Stock(folder, app, tuple(roots))


@asynccontextmanager
async def _child(home: Path, name: str, *arguments: str) -> AsyncIterator[int]:
    home.mkdir(parents=True)
    with (home / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program(name), *arguments, stdout=log, stderr=log, env=_environment(home)
        )
    try:
        yield process.pid
    finally:
        await end(process)


def _environment(home: Path) -> dict[str, str]:
    # Flower looks for its other programs on the path.
    path = f"{Path(program('flwr')).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **FLOWER_ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path, "PYTHONUNBUFFERED": "1"}


def _write_cli(home: Path, port: int) -> None:
    home.mkdir(parents=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )


async def _healthy(port: int) -> None:
    async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
        for _ in range(int(_START_S / 0.2)):
            try:
                if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
    raise ChildFailed(f"nothing serves on port {port} within {_START_S:.0f} s")
