"""An owner's client at the end of a `kubectl exec`: a program in the site's console, begun again when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, Unavailable

from syftmesh_standalone.demo.cluster.kubectl import Tool, ended
from syftmesh_standalone.demo.cluster.wire import LINE_INVALID, decode, decode_error, encode

CONSOLE_AWAY: Final = "CONSOLE_AWAY"
MODULES: Final = (
    "syftmesh_standalone.demo.cluster.wire",
    "syftmesh_standalone.demo.forgery",
    "syftmesh_standalone.demo.cluster.console",
)
"""What is sent into the console, each after what it imports; the image has none of them."""
_FIRST: Final = """
import json, sys, types
sent = json.loads(sys.stdin.readline())
for name, text in sent["modules"]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)
module.main(sent["email"])
"""
_START_S: Final = 90.0


class ConsoleSession:
    """Requests to the program in a console.

    Args:
        kubectl: Runs it.
        namespace: Of the site.
        pod: Of the site.
        email: The owner.
    """

    def __init__(self, kubectl: Tool, namespace: str, pod: str, email: str) -> None:
        self._kubectl = kubectl
        self._place = ("exec", "-i", "-n", namespace, pod, "-c", "console", "--")
        self._email = email
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self._starting = asyncio.Lock()

    async def ask(self, op: str, /, *args: Any, **kwargs: Any) -> Any:
        """Return what an operation of the console gives.

        Raises:
            Unavailable: CONSOLE_AWAY: the program ended, or does not start; the next call begins it again.
            MeshError: What the operation raised there.
        """
        process = await self._running()
        self._last += 1
        number = self._last
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await _send(
                process, {"id": number, "op": op, "args": encode(list(args)), "kwargs": encode(kwargs)}
            )
            answer = await future
        except asyncio.CancelledError:
            with suppress(Unavailable):
                await _send(process, {"cancel": number})
            raise
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise decode_error(answer["error"])
        return decode(answer["result"])

    async def close(self) -> None:
        """End the program."""
        process, self._process = self._process, None
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        if process is not None:
            await ended(process)

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is not None:
                return self._process
            await self.close()
            self._process = await self._started()
            self._reader = asyncio.create_task(self._read(self._process))
            return self._process

    async def _started(self) -> asyncio.subprocess.Process:
        process = await self._kubectl.spawn(*self._place, "python", "-u", "-c", _FIRST)
        try:
            async with asyncio.timeout(_START_S):
                modules = await asyncio.to_thread(_sources)
                await _send(process, {"modules": modules, "email": self._email})
                line = await _line(process)
        except TimeoutError as error:
            await ended(process)
            raise DeadlineExceeded("the console gave no answer", reason=CONSOLE_AWAY) from error
        except BaseException:
            await ended(process)
            raise
        if line is None or not line.get("ready"):
            said = b"" if process.stderr is None else await process.stderr.read()
            await ended(process)
            if line is not None:
                raise decode_error(line["error"])
            last = " ".join(said.decode(errors="replace").split("\n")[-3:]).strip()[-400:]
            raise Unavailable(f"the console of {self._email} does not start: {last}", reason=CONSOLE_AWAY)
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        drain = asyncio.create_task(_drained(process))
        try:
            while (line := await _line(process)) is not None:
                future = self._waiting.get(int(line.get("id", 0)))
                if future is not None and not future.done():
                    future.set_result(line)
        finally:
            drain.cancel()
            if self._process is process:
                self._process = None  # first: whoever is told now may ask again at once
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_away())
            await ended(process)


class RemoteClient:
    """Answers as a `syftmesh.AsyncClient` does: ``await client.site.jobs.get(id)`` runs in the console.

    What its methods return are the same dataclasses, without methods that need the connection; `follow` calls one of
    those there.

    Args:
        session: To the console.
        path: Names so far.
    """

    def __init__(self, session: ConsoleSession, path: tuple[str, ...] = ()) -> None:
        self._session = session
        self._path = path

    def __getattr__(self, name: str) -> RemoteClient:
        """Return what answers for a part or method of the client."""
        if name.startswith("_"):
            raise AttributeError(name)
        return RemoteClient(self._session, (*self._path, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Call the method; raises as it does, and Unavailable (CONSOLE_AWAY)."""
        return self._session.ask("client", ".".join(self._path), *args, **kwargs)

    def follow(
        self, path: str, args: tuple[Any, ...], then: str, then_args: tuple[Any, ...]
    ) -> Coroutine[Any, Any, Any]:
        """Call a method, and then one of what it returns, there; raises as both do."""
        return self._session.ask("client", path, *args, then=(then, then_args))


@asynccontextmanager
async def remote_client(session: ConsoleSession) -> AsyncIterator[RemoteClient]:
    """Give a client for the block; the session is begun with its first call and ended with the block."""
    try:
        yield RemoteClient(session)
    finally:
        await session.close()


def _sources() -> list[tuple[str, str]]:
    found = []
    for name in MODULES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise IntegrityFailure(f"the demo has no source of {name}", reason="INSTALLATION_DAMAGED")
        found.append((name, Path(spec.origin).read_text()))
    return found


async def _send(process: asyncio.subprocess.Process, line: dict[str, Any]) -> None:
    if process.stdin is None:
        raise _away()
    try:
        process.stdin.write(json.dumps(line).encode() + b"\n")
        await process.stdin.drain()
    except (ConnectionError, RuntimeError) as error:
        raise _away() from error


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """Return the next line of the program, None at its end."""
    if process.stdout is None:
        return None
    text = await process.stdout.readline()
    if not text.endswith(b"\n"):
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise IntegrityFailure("a line of the console cannot be read", reason=LINE_INVALID) from error
    if not isinstance(found, dict):
        raise IntegrityFailure("a line of the console cannot be read", reason=LINE_INVALID)
    return found


async def _drained(process: asyncio.subprocess.Process) -> None:
    """Read and drop what the program says beside its answers, so that it never waits for a reader."""
    while process.stderr is not None and await process.stderr.read(1 << 16):
        pass


def _away() -> Unavailable:
    return Unavailable("the site's console is away", reason=CONSOLE_AWAY)
