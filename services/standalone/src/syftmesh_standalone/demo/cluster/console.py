"""The program that works for an owner in the console of the site: requests in, answers out, one JSON line each.

Its source arrives over the line before the first request (`session`), so it needs nothing in the image but the SDK.
A request is ``{"id", "op", "args", "kwargs"}``; `op` is ``client`` (a method of the owner's client by its path, and
perhaps one of what it returns), ``forged`` or ``phrase``. ``{"cancel": id}`` ends one that is under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TextIO

import syftmesh
from syftmesh.card import DatasetCard
from syftmesh_client.profile import ProfileStore, default_state
from syftmesh_core.errors import InvalidInput, MeshError, NotFound

from syftmesh_standalone.demo.cluster.wire import decode, encode, encode_error
from syftmesh_standalone.demo.forgery import forged_approval

SOCKETS_VARIABLE: Final = "SYFTMESH_SITE_SOCKETS"
RUNNER_SOCKET: Final = "runner.sock"

Operation = Callable[..., Awaitable[Any]]
ReadLine = Callable[[], str]


class Desk:
    """What the owner does, as operations that a request may name.

    Args:
        client: The owner's client, open.
        email: The owner.
        state: State folder of the site.
        sockets: Folder of the sockets of the site's programs.
    """

    def __init__(self, client: Any, email: str, state: Path, sockets: Path) -> None:
        self._client = client
        self._email = email
        self._state = state
        self._sockets = sockets
        self.operations: dict[str, Operation] = {
            "client": self.call,
            "forged": self.forged,
            "phrase": self.phrase,
        }

    async def call(
        self, path: str, *args: Any, then: tuple[str, tuple[Any, ...]] | None = None, **kw: Any
    ) -> Any:
        """Call a method of the client by its path, and then perhaps one of its result."""
        found = await _method(self._client, path)(*args, **kw)
        if then is not None:
            path, args = then
            found = await _method(found, path)(*args)
        return portable(found)

    async def forged(self, job_id: str, change: dict[str, Any]) -> str:
        """Forge an approval; see `forged_approval`."""
        profile = ProfileStore(self._state).find(self._email)
        if profile is None:
            raise NotFound(f"{self._email} has no profile here", reason="PROFILE_UNKNOWN")
        return await forged_approval(profile.folder, self._sockets / RUNNER_SOCKET, job_id, change)

    async def phrase(self) -> tuple[int, int]:
        """Return the number of words and the mode of the owner's recovery phrase."""
        path = self._state / "recovery" / f"{self._email}.txt"
        try:
            return len(path.read_text().split()), stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError as error:
            raise NotFound("there is no recovery phrase", reason="RECOVERY_FILE_MISSING") from error


def portable(found: Any) -> Any:
    """Return what a line can carry of a result: a dataset without the connection behind its mock."""
    if isinstance(found, list):
        return [portable(item) for item in found]
    if isinstance(found, DatasetCard):
        return DatasetCard(**{field.name: getattr(found, field.name) for field in fields(DatasetCard)})
    return found


def _method(thing: Any, path: str) -> Any:
    for name in path.split("."):
        if name.startswith("_"):
            raise InvalidInput(f"{path} is no method of the client", reason="METHOD_UNKNOWN")
        thing = getattr(thing, name)
    return thing


async def serve(operations: dict[str, Operation], read: ReadLine, write: Callable[[str], object]) -> None:
    """Answer requests until there are no more, several at a time.

    Args:
        operations: What may be asked for.
        read: Returns the next line, an empty text at the end; called in a thread.
        write: Takes a line.
    """
    running: dict[int, asyncio.Task[None]] = {}

    async def answer(number: int, request: dict[str, Any]) -> None:
        try:
            operation = operations[request["op"]]
            found = await operation(*decode(request["args"]), **decode(request["kwargs"]))
            line = {"id": number, "result": encode(found)}
        except MeshError as error:
            line = {"id": number, "error": encode_error(error)}
        except (TypeError, KeyError, AttributeError, ValueError, OSError) as error:
            words = f"the console cannot do that: {type(error).__name__}: {error}"
            line = {"id": number, "error": encode_error(MeshError(words, reason="CONSOLE_FAULT"))}
        finally:
            running.pop(number, None)
        write(json.dumps(line))

    while line := await asyncio.to_thread(read):
        request = json.loads(line)
        if "cancel" in request:
            if (task := running.get(request["cancel"])) is not None:
                task.cancel()
            continue
        number = int(request["id"])
        running[number] = asyncio.create_task(answer(number, request))
    for task in list(running.values()):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def work(email: str, output: TextIO) -> None:
    """Open the owner's client and serve standard input."""
    state = default_state()

    def write(line: str) -> None:
        output.write(line + "\n")
        output.flush()

    try:
        async with syftmesh.connect_async(profile=email) as client:
            sockets = Path(os.environ.get(SOCKETS_VARIABLE, str(state)))
            write(json.dumps({"ready": True}))
            await serve(Desk(client, email, state, sockets).operations, sys.stdin.readline, write)
    except MeshError as error:
        write(json.dumps({"ready": False, "error": encode_error(error)}))


def main(email: str) -> None:
    """Work for `email`; standard output is ours alone, whatever else writes goes to standard error."""
    output, sys.stdout = sys.stdout, sys.stderr
    asyncio.run(work(email, output))
