"""A Flower app as a process in the sandbox, with two pipes to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from syftmesh_executor.port import EndReason, Executor, RunOutcome, RunSpec

from syftmesh_flower.launch import syftmesh_channel
from syftmesh_flower.launch.syftmesh_channel import Channel, ChannelClosed, Frame, FrameTooLarge

LAUNCH_FOLDER: Final = ".syftmesh"
CLIENT_LAUNCHER: Final = f"{LAUNCH_FOLDER}/client_app.py"
SERVER_LAUNCHER: Final = f"{LAUNCH_FOLDER}/server_app.py"
_PIPE_BYTES: Final = 1 << 20
_END_S: Final = 10.0
_LAST_WORDS_S: Final = 2.0

T = TypeVar("T")
_log: Any = structlog.get_logger("syftmesh.flower.app")

_ENDS: Final[Mapping[EndReason, str]] = {
    EndReason.OK: "APP_ENDED",
    EndReason.EXIT_NONZERO: "APP_ENDED",
    EndReason.RUNNER_LOST: "APP_ENDED",
    EndReason.CANCELLED: "APP_ENDED",
    EndReason.TIMEOUT: "APP_TIMEOUT",
}


class AppFailure(Exception):
    """The app did not do what it was asked.

    Args:
        reason: APP_NOT_LOADED, APP_RAISED, APP_ANSWERED_ERROR, APP_ENDED, APP_TIMEOUT, APP_GARBLED,
            UPDATE_TOO_LARGE, or what the sandbox says (OUT_OF_MEMORY, …).
        is_over: Whether the process is of no more use.
    """

    def __init__(self, reason: str, *, is_over: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_over = is_over


def add_launchers(code: Path) -> None:
    """Put the launchers beside the app in `code`; bundles cannot have files of that name."""
    folder = code / LAUNCH_FOLDER
    folder.mkdir()
    source = Path(syftmesh_channel.__file__).parent
    for name in ("syftmesh_channel.py", "syftmesh_grid.py", "client_app.py", "server_app.py"):
        shutil.copyfile(source / name, folder / name)


class AppProcess:
    """A running app; made by `start`.

    Attributes:
        outcome: How it ended, once it did.
    """

    def __init__(
        self, executor: Executor, spec: RunSpec, channel: Channel, running: asyncio.Task[RunOutcome]
    ) -> None:
        self._executor = executor
        self._spec = spec
        self._channel = channel
        self._running = running
        # One thread of its own: a pipe that waits must not hold up others.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flower-app")
        self._ends: list[FileIO] = []
        self._end: EndReason = EndReason.OK
        self.outcome: RunOutcome | None = None

    @classmethod
    async def start(
        cls, executor: Executor, spec: RunSpec, setup: Mapping[str, Any], *, limit_bytes: int
    ) -> AppProcess:
        """Start the launcher that `spec` names and give it `setup`.

        Args:
            executor: Isolates it.
            spec: The run, without a channel.
            setup: JSON values for the launcher.
            limit_bytes: Largest frame that is taken from it.
        """
        their_read, write = os.pipe()
        read, their_write = os.pipe()
        with suppress(OSError):
            _widen(write, read)
        run = replace(spec, channel=(FileIO(their_read, "rb"), FileIO(their_write, "wb")))
        running = asyncio.create_task(executor.run(run), name=f"flower-app {spec.run_id}")
        # However it ends, also when it is refused at once, the pipes must not seem to have somebody behind them.
        running.add_done_callback(lambda _: run.close_channel())
        app = cls(executor, run, Channel(read, write, limit_bytes=limit_bytes), running)
        app._ends = [FileIO(read, "rb"), FileIO(write, "wb")]
        try:
            await app.send(syftmesh_channel.SETUP, [json.dumps(setup).encode()])
        except AppFailure:
            pass  # whoever asks it something next is told
        except BaseException:
            await app.end()
            raise
        return app

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._running.done()

    async def ask(self, kind: int, parts: Sequence[bytes], *, timeout_s: float | None) -> Frame:
        """Send a frame and return the answer.

        Raises:
            AppFailure: With what went wrong; the process is ended where the pipes cannot be used any more.
        """
        return await self._talk(lambda: self._channel.ask(kind, parts), timeout_s)

    async def receive(self, *, timeout_s: float | None) -> Frame:
        """Return the next frame; raises as `ask`."""
        return await self._talk(self._channel.receive, timeout_s)

    async def send(self, kind: int, parts: Sequence[bytes] = ()) -> None:
        """Send a frame; raises as `ask`."""
        await self._talk(lambda: self._channel.send(kind, parts), _END_S)

    async def end(self) -> RunOutcome | None:
        """End the process with all below it and return how it ended; None when it never ran."""
        if not self._running.done():
            await self._executor.cancel(self._spec.run_id)
        await asyncio.wait({self._running})
        if self._running.cancelled():
            self.outcome = None
        elif (error := self._running.exception()) is not None:
            _log.error("flower.app_not_run", reason=getattr(error, "reason", type(error).__name__))
        else:
            self.outcome = self._running.result()
        # With the other ends closed a thread that still reads or writes comes back.
        self._spec.close_channel()
        self._thread.shutdown(wait=False)
        for end in self._ends:
            end.close()
        return self.outcome

    async def wait(self) -> RunOutcome | None:
        """Wait until the process has ended by itself, then return how."""
        await asyncio.wait({self._running})
        return await self.end()

    async def _talk(self, work: Callable[[], T], timeout_s: float | None) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                return await loop.run_in_executor(self._thread, work)
        except TimeoutError:
            await self.end()
            raise AppFailure("APP_TIMEOUT", is_over=True) from None
        except FrameTooLarge:
            await self.end()
            raise AppFailure("UPDATE_TOO_LARGE", is_over=True) from None
        except (ChannelClosed, OSError):
            # It is about to end by itself as a rule, and then its own end says more.
            await asyncio.wait({self._running}, timeout=_LAST_WORDS_S)
            outcome = await self.end()
            reason = outcome.reason if outcome is not None else EndReason.ISOLATION_FAILED
            if outcome is not None and outcome.detail:
                _log.warning("flower.app_ended", reason=reason.value, detail=outcome.detail)
            self._end = reason
            raise AppFailure(_ENDS.get(reason, reason.value), is_over=True) from None
        except RuntimeError:  # its thread was shut down
            raise AppFailure(_ENDS.get(self._end, self._end.value), is_over=True) from None


def _widen(*descriptors: int) -> None:
    import fcntl

    for fd in descriptors:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
