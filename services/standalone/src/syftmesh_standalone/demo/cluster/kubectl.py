"""kubectl and helm as child processes: one command and its answer, or one that goes on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, NotFound, Unavailable
from syftmesh_kit.process import with_parent_death

_LOG_LINE: Final = re.compile(r"[EWI]\d{4} \d\d:")
"""How a line of klog begins."""

TOOL_FAILED: Final = "CLUSTER_TOOL_FAILED"
OBJECT_MISSING: Final = "CLUSTER_OBJECT_MISSING"
_TIMEOUT_S: Final = 60.0
_LONGEST_WORDS: Final = 1000
_LINE_BYTES: Final = 64 << 20


class Tool:
    """A program of the cluster's operators.

    Args:
        command: Executable and first arguments.
    """

    def __init__(self, *command: str) -> None:
        self._command = command

    async def run(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = _TIMEOUT_S) -> bytes:
        """Return what the program writes to its standard output.

        Args:
            arguments: More of them.
            stdin: What it reads.
            timeout_s: Longest time in seconds.

        Raises:
            NotFound: An object is not there (CLUSTER_OBJECT_MISSING); the program is not there (BINARY_MISSING).
            Unavailable: It failed (CLUSTER_TOOL_FAILED); the message has its last words.
            DeadlineExceeded: It took too long (CLUSTER_TOOL_FAILED).
        """
        process = await self.spawn(*arguments, stdin=stdin is not None)
        try:
            async with asyncio.timeout(timeout_s):
                out, said = await process.communicate(stdin)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{self._words(arguments)} gave no answer within {timeout_s:.0f} s", reason=TOOL_FAILED
            ) from error
        finally:
            await ended(process)
        if process.returncode:
            raise _failure(self._words(arguments), said)
        return out

    async def json(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> Any:
        """Return the document that the program writes; raises as `run`."""
        text = await self.run(*arguments, timeout_s=timeout_s)
        try:
            return json.loads(text)
        except ValueError as error:
            raise IntegrityFailure(
                f"{self._words(arguments)} wrote no document", reason=TOOL_FAILED
            ) from error

    async def spawn(self, *arguments: str, stdin: bool = True) -> asyncio.subprocess.Process:
        """Start the program and return it, with pipes; it ends with this process.

        Raises:
            NotFound: BINARY_MISSING.
        """
        name = shutil.which(self._command[0])
        if name is None:
            raise NotFound(
                f"The program {self._command[0]} is not installed.",
                reason="BINARY_MISSING",
                metadata={"program": self._command[0]},
                hint="The demo on a cluster needs kubectl and helm on the PATH.",
            )
        return await asyncio.create_subprocess_exec(
            *with_parent_death([name, *self._command[1:], *arguments]),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env=dict(os.environ),
            start_new_session=True,  # Ctrl-C of the terminal is ours to handle
        )

    def _words(self, arguments: Sequence[str]) -> str:
        return " ".join([self._command[0], *arguments[:4]])[:120]


async def ended(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs, and wait for its end."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _failure(words: str, said: bytes) -> NotFound | Unavailable:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    # What kubectl logs of its own tries says less than the line that it ends with.
    lines = [line for line in lines if not _LOG_LINE.match(line)] or lines
    last = " ".join(lines[-8:])[-_LONGEST_WORDS:] or "it said nothing"
    if "(NotFound)" in last:
        return NotFound(f"{words}: {last}", reason=OBJECT_MISSING)
    return Unavailable(
        f"{words} failed: {last}", reason=TOOL_FAILED, hint="KUBECONFIG names the cluster; is it up?"
    )
