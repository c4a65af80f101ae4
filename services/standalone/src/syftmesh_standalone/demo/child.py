"""The demo's mesh: a child process on a state of its own, started again on the same ports when it dies."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from syftmesh_core.errors import Internal, NotFound, Unavailable
from syftmesh_kit.native import seaweed_address
from syftmesh_kit.process import ChildProcess, free_ports
from syftmesh_kit.s3 import S3ObjectStore

from syftmesh_standalone.demo.step import Tell
from syftmesh_standalone.info import MeshInfo, read_info
from syftmesh_standalone.options import LOOPBACK

LOG_FILE: Final = "mesh.log"
_START_S: Final = 45.0
_STOP_S: Final = 8.0
_LONGEST_WORDS: Final = 500
_STARTS: Final = 3
_QUICK_S: Final = 20.0
"""A start that fails later than this has another cause than a port."""
_INHERITED: Final = ("PYTHONPATH", "TMPDIR", "XDG_RUNTIME_DIR", "LANG", "LC_ALL", "TZ")


@dataclass(frozen=True, slots=True)
class MeshPorts:
    """The two ports of the mesh, chosen once, so that it comes back where it was."""

    http: int
    grpc: int


class DemoMesh:
    """The mesh as the demo sees it: from outside, by its state folder, its address and its process.

    Args:
        state: State folder.
        sites: E-mails of the sites to make.
        processes: Whether each service gets a process of its own.
        tell: Takes a line when the mesh died and is started again.
    """

    def __init__(self, state: Path, sites: Sequence[str], *, processes: bool, tell: Tell) -> None:
        self._hub = state / "hub"
        self._command = [sys.executable, "-m", "syftmesh_standalone", "--state", str(state)]
        self._command += ["--sites", ",".join(sites)]
        self._command += ["--processes"] if processes else []
        self._tell = tell
        self._tasks: asyncio.TaskGroup | None = None
        self.ports, self._child = self._new_child()

    def _new_child(self) -> tuple[MeshPorts, ChildProcess]:
        ports = MeshPorts(*free_ports(2))
        child = ChildProcess(
            "the mesh",
            [*self._command, "--http-port", str(ports.http), "--grpc-port", str(ports.grpc)],
            ready=self._is_ready,
            log_path=self._hub / LOG_FILE,
            environment={name: os.environ[name] for name in _INHERITED if name in os.environ},
            start_timeout_s=_START_S,
            stop_timeout_s=_STOP_S,
            on_restart=self._restarted,
        )
        return ports, child

    @property
    def hub(self) -> Path:
        """Return the folder of everything the hub holds."""
        return self._hub

    @property
    def server(self) -> str:
        """Return the hub's address."""
        return f"http://{LOOPBACK}:{self.ports.http}"

    @asynccontextmanager
    async def lifetime(self) -> AsyncIterator[None]:
        """Keep what `start` starts alive for the block, and end it; errors of the block come in a group."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                await self._child.stop()

    async def start(self) -> None:
        """Start it, inside `lifetime`; it is started again whenever it dies.

        Raises:
            Unavailable: PROCESS_START_FAILED, with the last words of its log.
        """
        if self._tasks is None:
            raise Internal("the mesh of the demo was started outside its lifetime")
        for left in reversed(range(_STARTS)):
            begun_s = time.monotonic()
            try:
                await self._child.start(self._tasks)
                return
            except Unavailable as error:
                said = await asyncio.to_thread(self._last_words)
                if not left or time.monotonic() - begun_s > _QUICK_S:
                    raise Unavailable(
                        f"the mesh did not start; the last it said is: {said}",
                        reason=error.reason,
                        metadata=error.metadata,
                    ) from error
                # Ports that were free a moment ago may be somebody else's by now; there are others.
                self._tell(f"        the mesh did not start ({said}); again on other ports")
                self.ports, self._child = self._new_child()

    def _last_words(self) -> str:
        """Return the last two lines of the log: what was wrong, and the hint."""
        try:
            text = (self._hub / LOG_FILE).read_text(errors="replace")
        except OSError:
            return "nothing"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " ".join(lines[-2:])[-_LONGEST_WORDS:] or "nothing"

    def info(self) -> MeshInfo:
        """Return what it says of itself.

        Raises:
            Unavailable: MESH_AWAY: it is being started again.
        """
        found = read_info(self._hub)
        if found is None or found.pid != self._child.pid:
            raise Unavailable("the mesh is being started", reason="MESH_AWAY")
        return found

    async def healthz(self) -> dict[str, str]:
        """Return the state of each part by name, as the gateway tells.

        Raises:
            Unavailable: MESH_AWAY: it does not answer.
        """
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
                document = (await client.get(f"{self.server}/healthz")).json()
            return {str(name): str(word) for name, word in document["parts"].items()}
        except (httpx.HTTPError, ValueError, KeyError, AttributeError) as error:
            raise Unavailable("the gateway does not answer", reason="MESH_AWAY") from error

    def object_store(self) -> S3ObjectStore:
        """Return the hub's object store, with the hub's own credentials, as it is reached now.

        Raises:
            Unavailable: MESH_AWAY: it is being started again.
        """
        try:
            return S3ObjectStore(seaweed_address(self._hub / "s3"))
        except NotFound as error:
            raise Unavailable("the object store is being started", reason="MESH_AWAY") from error

    async def _is_ready(self) -> bool:
        found = await asyncio.to_thread(read_info, self._hub)
        return found is not None and found.pid == self._child.pid

    def _restarted(self, name: str, exit_code: int) -> None:
        self._tell(f"        {name} ended (exit code {exit_code}) and is started again")
