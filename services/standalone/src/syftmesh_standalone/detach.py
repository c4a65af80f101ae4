"""``up --detach``: starts the mesh as a process of its own session and waits until it says how it went.

The child writes one JSON object a line to a pipe: ``{"progress": text}``, at last ``{"ready": info}`` or
``{"error": {...}}``. A pipe that ends without either is a child that died.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from syftmesh_core.errors import BY_CODE, Internal, MeshError, Unavailable

from syftmesh_standalone.info import MeshInfo
from syftmesh_standalone.options import MeshOptions
from syftmesh_standalone.preflight import prepare_state

START_S: Final = 90.0
LOG_FILE: Final = "mesh.log"
_MAX_LINE_BYTES: Final = 64 * 1024


class Reporter:
    """The child's end of the pipe; who does not read any more is not told.

    Args:
        descriptor: The pipe, inherited.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        os.set_inheritable(descriptor, False)

    def progress(self, text: str) -> None:
        """Tell that something was done, also in the log."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - standard error is the log here
        self._write({"progress": text})

    def ready(self, info: MeshInfo) -> None:
        """Tell that everything serves, and close the pipe."""
        self._write({"ready": info.document()})
        self._close()

    def error(self, error: MeshError) -> None:
        """Tell why it does not, and close the pipe."""
        self._write(
            {
                "error": {
                    "code": error.code,
                    "reason": error.reason,
                    "message": error.message,
                    "metadata": error.metadata,
                    "hint": error.hint,
                }
            }
        )
        self._close()

    def _write(self, document: Mapping[str, object]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(document).encode() + b"\n")
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def start_detached(
    options: MeshOptions, *, report: Callable[[str], None], timeout_s: float = START_S
) -> MeshInfo:
    """Start the mesh in a session of its own and return once everything serves.

    Args:
        options: What to run.
        report: Told in one line each what is done.
        timeout_s: Longest start in seconds; then it is ended.

    Raises:
        MeshError: As `run_mesh`; Unavailable START_TIMEOUT; Internal MESH_DIED when it ended without a word.
    """
    hub = prepare_state(options.state)
    ours, its = os.pipe()
    log = os.open(hub / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            _command(options, its),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(its,),
            cwd=hub,
            start_new_session=True,
        )
    finally:
        os.close(its)
        os.close(log)
    try:
        return outcome(ours, report, timeout_s)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(ours)


def _command(options: MeshOptions, pipe: int) -> list[str]:
    # -P: a folder that happens to be the current one gives no modules.
    command = [sys.executable, "-P", "-m", "syftmesh_standalone", "--state", str(options.state)]
    command += ["--http-port", str(options.http_port), "--grpc-port", str(options.grpc_port)]
    command += ["--sites", ",".join(options.sites), "--report-fd", str(pipe)]
    return [*command, "--processes"] if options.processes else command


def outcome(pipe: int, report: Callable[[str], None], timeout_s: float) -> MeshInfo:
    """Return what the child says at the parent's end of the pipe.

    Raises:
        MeshError: What it failed with; START_TIMEOUT, MESH_DIED.
    """
    for line in _lines(pipe, time.monotonic() + timeout_s):
        found: dict[str, Any] = json.loads(line)
        if "progress" in found:
            report(str(found["progress"]))
        elif "ready" in found:
            return MeshInfo.of_document(found["ready"])
        elif "error" in found:
            raise _error(found["error"])
    raise Internal(
        "The mesh ended while it started, without saying why.",
        reason="MESH_DIED",
        hint="The end of hub/mesh.log in the state folder says what happened.",
    )


def _lines(pipe: int, deadline: float) -> Iterator[bytes]:
    kept = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Unavailable(
                "The mesh did not become ready in time and was ended.",
                reason="START_TIMEOUT",
                hint="The end of hub/mesh.log in the state folder says what it waited for.",
            )
        chunk = os.read(pipe, _MAX_LINE_BYTES)
        if not chunk:
            return
        *lines, kept = (kept + chunk).split(b"\n")
        yield from lines


def _error(found: Mapping[str, Any]) -> MeshError:
    kind = BY_CODE.get(found["code"], Internal)
    return kind(found["message"], reason=found["reason"], metadata=found["metadata"], hint=found["hint"])


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(10.0)
    except subprocess.TimeoutExpired:
        child.kill()  # takes its own children along
        child.wait()
