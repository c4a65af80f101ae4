"""Supervision of native child processes in embedded mode: they start with us and never outlive us."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from syftmesh_core.errors import NotFound, Unavailable

_BACKOFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_STABLE_S: Final = 30.0
_POLL_S: Final = 0.02

ReadyCheck = Callable[[], Awaitable[bool]]
RestartListener = Callable[[str, int], None]


class ChildProcess:
    """One native child: started with a parent-death signal, restarted when it dies, stopped with a grace.

    Args:
        name: For the log.
        command: Executable (absolute) and arguments; never a secret among them, `ps` shows them.
        ready: Returns True once the child serves.
        log_path: File that takes its output (0600, appended to).
        environment: Its whole environment; nothing is inherited but PATH and HOME.
        start_timeout_s: Longest start in seconds.
        stop_timeout_s: Seconds from SIGTERM to SIGKILL.
        stopped_text: Line in the log after which SIGKILL is safe at once (a server that lingers when done).
        on_restart: Called with name and exit code when the child died and is started again.
    """

    def __init__(  # noqa: PLR0913 - what a child process is, each named
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: ReadyCheck,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = 20.0,
        stop_timeout_s: float = 3.0,
        stopped_text: str = "",
        on_restart: RestartListener | None = None,
    ) -> None:
        self._name = name
        self._command = list(command)
        self._ready = ready
        self._log_path = log_path
        self._environment = {**_base_environment(), **(environment or {})}
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._stopped_text = stopped_text
        self._on_restart = on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log: Any = structlog.get_logger("syftmesh.process")

    @property
    def pid(self) -> int:
        """Return the process id of the child that runs now, 0 when none does."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start the child, wait until it serves and keep it alive from a task in `tasks`.

        Raises:
            Unavailable: It ended or did not serve in time (PROCESS_START_FAILED); its log says why.
        """
        await self._launch()
        self._watch = tasks.create_task(self._keep_alive())

    async def stop(self) -> None:
        """Stop the child: SIGTERM, then SIGKILL after the grace. Does nothing when it is not running."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        seen = self._log_size()
        process.terminate()
        deadline = asyncio.get_running_loop().time() + self._stop_timeout_s
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:
            if self._stopped_text and self._stopped_text in self._log_tail(seen):
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await process.wait()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _launch(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        output = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *with_parent_death(self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # Ctrl-C of the terminal is ours to handle: children stop in order
            )
        finally:
            os.close(output)
        try:
            await self._wait_ready(self._process)
        except BaseException:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            raise

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        deadline = asyncio.get_running_loop().time() + self._start_timeout_s
        while not await self._ready():
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"{self._name} did not start. Its log is {self._log_path.name} in the state folder.",
                    reason="PROCESS_START_FAILED",
                    metadata={"process": self._name, "log": self._log_path.name},
                )
            await asyncio.sleep(_POLL_S)

    async def _keep_alive(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while (process := self._process) is not None:
            started = loop.time()
            code = await process.wait()
            failures = 0 if loop.time() - started > _STABLE_S else failures + 1
            self._log.warning("process.died", process=self._name, exit_code=code, failures=failures)
            if self._on_restart is not None:
                self._on_restart(self._name, code)
            while True:
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1] if failures else 0)
                try:
                    await self._launch()
                    break
                except (Unavailable, OSError):
                    failures += 1
                    self._log.warning("process.start_failed", process=self._name, failures=failures)
            self._log.info("process.restarted", process=self._name, pid=self.pid)

    def _log_size(self) -> int:
        return self._log_path.stat().st_size if self._log_path.exists() else 0

    def _log_tail(self, start: int) -> str:
        with self._log_path.open("rb") as log:
            log.seek(start)
            return log.read(1 << 16).decode(errors="replace")


def find_binary(name: str) -> str:
    """Return the path of an executable of a wheel: beside this interpreter, else on PATH.

    Raises:
        NotFound: It is not installed (BINARY_MISSING).
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise NotFound(
            f"The program {name} is not installed.",
            reason="BINARY_MISSING",
            metadata={"program": name},
            hint="Install syftmesh-standalone, which brings it, or give the address of a running server.",
        )
    return found


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return `count` different ports that were free a moment ago.

    They come from 20000 to 32000, below the range that kernels give to outgoing connections, so that
    nothing takes them by chance before the child binds.
    """
    ports: list[int] = []
    start = int.from_bytes(os.urandom(2), "big") % 12_000
    for step in range(12_000):
        port = 20_000 + (start + step) % 12_000
        if is_free(port, host):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise Unavailable("No free port was found.", reason="PORT_IN_USE")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether `port` can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def require_free(ports: Mapping[str, int], host: str = "127.0.0.1") -> None:
    """Refuse to start beside a process that holds one of our ports: it is never adopted.

    Raises:
        Unavailable: One is in use (PORT_IN_USE, metadata ``port`` and ``role``).
    """
    for role, port in ports.items():
        if not is_free(port, host):
            raise Unavailable(
                f"Port {port} ({role}) is in use by another process. Stop it, or choose another port.",
                reason="PORT_IN_USE",
                metadata={"port": str(port), "role": role},
            )


def write_secret_file(path: Path, text: str) -> None:
    """Write a file with credentials: 0600 from its first byte, replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    part.replace(path)


def _base_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def with_parent_death(command: Sequence[str]) -> list[str]:
    """Return `command`, whose first word is a path, so that its process ends with this one, even by SIGKILL."""
    # PR_SET_PDEATHSIG is kept across exec of an ordinary program, so setpriv can set it without a preexec
    # function, which is unsafe in a process with threads. A parent that died before it was set sends no signal
    # any more: hence the look at who the parent is, afterwards.
    setpriv, parent = shutil.which("setpriv"), str(os.getpid())
    if setpriv is None:
        return [sys.executable, "-I", "-S", "-c", _PDEATH_SHIM, parent, *command]
    return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _PARENT_CHECK, parent, *command]


_PARENT_CHECK: Final = 'test "$PPID" = "$0" || exit 1; unset PWD; exec "$@"'
_PDEATH_SHIM: Final = (
    "import ctypes,os,sys;"
    f"ctypes.CDLL(None).prctl(1,{int(signal.SIGKILL)},0,0,0);"  # PR_SET_PDEATHSIG, prctl(2)
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)
