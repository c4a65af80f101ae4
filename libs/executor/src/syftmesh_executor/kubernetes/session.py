"""The connection to one pod from this side: stages, carries the pipes, takes the end. It blocks in a thread."""

from __future__ import annotations

import json
import os
import select
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from syftmesh_executor.kubernetes.collect import Collection
from syftmesh_executor.kubernetes.staging import send_gathered, staging_frames
from syftmesh_executor.kubernetes.stream import ExecStream, StreamBroken
from syftmesh_executor.output import OutputTooLargeError
from syftmesh_executor.pod.wire import BLOCK, Kind, WireError, pack
from syftmesh_executor.port import Finding, OutputFile, RunSpec

_POLL_MS: Final = 200


class SessionFault(Exception):
    """The carrier cannot go on; the text names no path of the site."""


@dataclass(slots=True)
class Ended:
    """What came out of a pod; hostile but for its sizes.

    Attributes:
        report: The launcher's.
        stdout: Kept of standard output.
        stderr: Kept of standard error.
        files: Output, empty unless the code ended well.
        findings: What of it was refused.
        too_large: Why the output is refused as a whole, empty when it is not.
    """

    report: dict[str, Any] = field(default_factory=dict)
    stdout: bytes = b""
    stderr: bytes = b""
    files: tuple[OutputFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    too_large: str = ""

    def drop(self, folder: Path) -> None:
        """Remove the output again."""
        shutil.rmtree(folder, ignore_errors=True)
        self.files, self.findings = (), ()


class Session:
    """One connection.

    Args:
        spec: The run.
        order: What the launcher is told.
        stream: Streams of the carrier's session.
        pipes: This side's own copies of the run's channel.
        on_go: Called from the thread once the job starts.
        may_stage: Whether a run that was not staged may be: not one that is adopted, for nobody checked again
            whether it still may begin.
    """

    def __init__(
        self,
        spec: RunSpec,
        order: Mapping[str, Any],
        stream: ExecStream,
        pipes: Pipes | None,
        on_go: Callable[[], None],
        *,
        may_stage: bool = True,
    ) -> None:
        self._spec = spec
        self._order = order
        self._stream = stream
        self._pipes = pipes
        self._on_go = on_go
        self._may_stage = may_stage
        self._log_bytes = spec.limits.log_bytes

    def follow(self) -> Ended:
        """Stage what is not staged and return what came out once the run is over.

        Raises:
            StreamBroken: The connection is gone; another may go on.
            SessionFault: The carrier cannot go on, or does not keep to the frames.
            InvalidInput: RUN_SPEC_INVALID: code or data cannot be staged.
        """
        ended = Ended()
        logs = {Kind.STDOUT: bytearray(), Kind.STDERR: bytearray()}
        output = Collection(self._spec.output_dir, self._spec.limits.output_bytes)
        try:
            for kind, payload in self._stream.frames():
                if kind is Kind.END:
                    ended.files, ended.findings = output.end()
                    ended.stdout, ended.stderr = bytes(logs[Kind.STDOUT]), bytes(logs[Kind.STDERR])
                    return ended
                self._take(kind, payload, ended, logs, output)
        except OutputTooLargeError as error:
            output.drop()
            ended.too_large = str(error)
            ended.stdout, ended.stderr = bytes(logs[Kind.STDOUT]), bytes(logs[Kind.STDERR])
            return ended
        except (WireError, ValueError) as error:
            output.drop()
            raise SessionFault(str(error)) from error
        except StreamBroken:
            output.drop()
            raise
        raise StreamBroken

    def _take(
        self,
        kind: Kind,
        payload: bytes,
        ended: Ended,
        logs: Mapping[Kind, bytearray],
        output: Collection,
    ) -> None:
        if kind is Kind.HELLO:
            self._hello(json.loads(payload))
        elif kind is Kind.GO:
            self._on_go()
        elif kind is Kind.CHANNEL and self._pipes is not None:
            self._pipes.write(payload)
        elif kind is Kind.CHANNEL_END and self._pipes is not None:
            self._pipes.end_write()
        elif kind is Kind.REPORT:
            ended.report = dict(json.loads(payload))
            if ended.report.get("exit_code") == 0:
                output.start()
        elif kind in logs:
            # What the launcher keeps is never more than that; a job that replaced it gains nothing.
            room = self._log_bytes - len(logs[kind])
            logs[kind] += payload[: max(room, 0)]
        elif kind is Kind.ENTRY:
            output.entry(payload)
        elif kind is Kind.DATA:
            output.data(payload)
        elif kind is Kind.FAULT:
            raise SessionFault(str(json.loads(payload).get("text", ""))[:200])

    def _hello(self, said: Mapping[str, Any]) -> None:
        if said.get("staged"):
            self._on_go()
            return
        if not self._may_stage:
            raise SessionFault("it had not begun when the runner ended")
        send_gathered(staging_frames(self._spec, self._order), self._stream.send)


class Pipes:
    """This side's ends of a run's channel.

    Args:
        spec: The run; its own descriptors may be closed afterwards.
    """

    def __init__(self, spec: RunSpec) -> None:
        read, write = spec.channel_fds
        self._read, self._write = os.dup(read), os.dup(write)
        os.set_blocking(self._write, False)
        self._stopped = threading.Event()
        self._feeding = False

    def feed(self, stream: ExecStream) -> None:
        """Send what our side writes into the pod, until it ends or `stop`."""
        self._feeding = True
        try:
            while (block := self._next()) is not None:
                stream.send(pack(Kind.CHANNEL, block) if block else pack(Kind.CHANNEL_END))
                if not block:
                    return
        except (StreamBroken, OSError):
            return  # the session itself tells why the pod is gone
        finally:
            self._close("_read")

    def write(self, data: bytes) -> None:
        """Give our side what the code wrote; nothing once it takes no more."""
        view = memoryview(data)
        poll = select.poll()
        while view and not self._stopped.is_set() and self._write >= 0:
            poll.register(self._write, select.POLLOUT)
            if poll.poll(_POLL_MS):
                try:
                    view = view[os.write(self._write, view) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self._close("_write")

    def end_write(self) -> None:
        """Let our side read the end of the file."""
        self._close("_write")

    def stop(self) -> None:
        """Let both directions end; `feed` returns soon, and a `write` that waits at once."""
        self._stopped.set()

    def close(self) -> None:
        """Close what is open, once nobody writes any more."""
        self._stopped.set()
        self._close("_write")
        if not self._feeding:
            self._close("_read")

    def _next(self) -> bytes | None:
        """Return the next bytes of our side, empty at their end, None once stopped."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        while not self._stopped.is_set():
            if poll.poll(_POLL_MS):
                return os.read(self._read, BLOCK)
        return None

    def _close(self, name: str) -> None:
        fd = getattr(self, name)
        setattr(self, name, -1)
        if fd >= 0:
            os.close(fd)
