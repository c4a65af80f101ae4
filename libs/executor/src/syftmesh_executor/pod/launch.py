"""Process 1 of the job's container: starts the code once all is there, bounds it, and tells how it ended.

Nothing the code prints reaches this container's log: that holds our own lines alone. The code runs as the same
user, so what it may touch is decided by mounts, and its last process is gone before a report is written.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import platform
import resource
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

from . import confine
from .log import CappedLog
from .network import NetworkCheck, targets
from .place import (
    CANCEL_MARK,
    CODE,
    ORDER_FILE,
    OUTPUT,
    REPORT,
    REPORT_FILE,
    SCRATCH,
    SOCKET_IN,
    SOCKET_OUT,
    STAGED_MARK,
    STDERR_FILE,
    STDOUT_FILE,
)

_TICK_S = 0.05
_WATCH_S = 0.25
_STAGED_POLL_S = 0.004
_GRACE_S = {"CANCELLED": 3.0, "TIMEOUT": 0.5}
_MAX_INODES = 50_000
_CHANNEL_FDS = (3, 4)
_NOT_STARTED_EXIT = 97
_PROBLEM_BYTES = 300
_ABOVE_FD = 100
_CHANNEL_S = 30.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Job:
    """The code as a process tree below this one.

    Args:
        order: What the runner asked for.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self.stdout = CappedLog(order["log_bytes"])
        self.stderr = CappedLog(order["log_bytes"])
        self._selector = selectors.DefaultSelector()
        self._pid = 0
        self._status: int | None = None
        self._ended = ""
        self._kill_at_s = 0.0
        self._counted = confine.memory_kills()
        self.problem = ""
        self.started_ms = 0
        self.ended_ms = 0

    def run(self) -> None:
        """Run the code to its end; no process of it is left afterwards."""
        channel = _open_channel() if self._order["channel"] else ()
        self._start(channel)
        for end in channel:
            os.close(end)
        deadline_s = time.monotonic() + self._order["wall_s"]
        watch_s = 0.0
        while self._status is None:
            self._read(_TICK_S)
            self._reap()
            now_s = time.monotonic()
            if self._ended:
                if now_s >= self._kill_at_s:
                    self._signal(signal.SIGKILL)
            elif CANCEL_MARK.exists() or _terminated:
                self._end("CANCELLED")
            elif now_s >= deadline_s:
                self._end("TIMEOUT")
            elif now_s >= watch_s:
                watch_s = now_s + _WATCH_S
                self._end(self._excess())
        self._sweep()

    def report(self) -> dict[str, Any]:
        """Return how it ended."""
        status = self._status if self._status is not None else 0
        code = os.waitstatus_to_exitcode(status)
        scratch, output = os.statvfs(SCRATCH), os.statvfs(OUTPUT)
        kills = confine.memory_kills()
        return {
            "ended": "ISOLATION_FAILED" if self.problem else self._ended or "EXIT",
            "problem": self.problem,
            "exit_code": code if code >= 0 else 128 - code,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
            "memory_kills": (kills or 0) - (self._counted or 0),
            "scratch_free_bytes": scratch.f_bavail * scratch.f_frsize,
            "output_free_bytes": output.f_bavail * output.f_frsize,
        }

    def _start(self, channel: tuple[int, ...]) -> None:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        program = base64.b64decode(self._order["filters"][platform.machine()])
        environment = dict(self._order["environment"])
        if channel:
            environment["CHANNEL"] = ",".join(map(str, _CHANNEL_FDS))
        self.started_ms = time.time_ns() // 1_000_000
        told_read, told_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _become_job_or_tell(
                told_write, self._order, environment, program, (out_write, err_write), channel
            )
        for end in (out_write, err_write, told_write):
            os.close(end)
        with os.fdopen(told_read, "rb") as told:
            # Ends when the code is executed, without a word unless a step failed.
            self.problem = told.read(_PROBLEM_BYTES).decode("utf-8", "replace")
        for source, log in ((out_read, self.stdout), (err_read, self.stderr)):
            os.set_blocking(source, False)
            self._selector.register(source, selectors.EVENT_READ, log)

    def _read(self, timeout_s: float) -> bool:
        """Take what the job printed; return whether there was something."""
        if not self._selector.get_map():
            time.sleep(min(timeout_s, 0.005))
            return False
        found = False
        for key, _ in self._selector.select(timeout_s):
            with suppress(BlockingIOError):
                block = os.read(key.fd, 1 << 16)
                if block:
                    key.data.feed(block)
                    found = True
                else:
                    self._selector.unregister(key.fd)
        return found

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._status = status

    def _end(self, reason: str) -> None:
        """Begin to end it: politely where there is grace, and everything at once otherwise."""
        if reason:
            self._ended = reason
            self._kill_at_s = time.monotonic() + _GRACE_S.get(reason, 0.0)
            if reason in _GRACE_S:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGTERM)
            else:
                self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(-1, number)

    def _sweep(self) -> None:
        """End every process of this container but ourselves, and keep what they printed last."""
        while True:
            self._signal(signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        while self._read(0.0):
            pass
        self.ended_ms = time.time_ns() // 1_000_000

    def _excess(self) -> str:
        """Return the limit that the job is past and that no kernel holds for us, empty for none."""
        for folder, reason in ((SCRATCH, "DISK_LIMIT"), (OUTPUT, "OUTPUT_LIMIT")):
            status = os.statvfs(folder)
            if status.f_files - status.f_ffree > _MAX_INODES:
                return "DISK_LIMIT"
            # A kernel of the pod's own (gVisor) may not hold the size of a volume.
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            if used > self._order["disk_bytes" if reason == "DISK_LIMIT" else "output_bytes"] + 2 * _PAGE:
                return reason
        if self._counted is None and confine.memory_used_bytes() > self._order["memory_bytes"]:
            return "OUT_OF_MEMORY"
        return "PROCESS_LIMIT" if _threads() > self._order["processes"] else ""


def _threads() -> int:
    """Return the threads of every process but this one."""
    found = 0
    for name in os.listdir("/proc"):  # noqa: PTH208 - four times a second
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):
                found += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return found


def _open_channel() -> tuple[int, int]:
    """Return the code's ends; who listens for each is started only now, from outside."""
    return _connect(SOCKET_IN), _connect(SOCKET_OUT)


def _connect(name: str) -> int:
    ends_s = time.monotonic() + _CHANNEL_S
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        try:
            client.connect(name)
            return client.detach()
        except OSError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(_STAGED_POLL_S)


def _become_job_or_tell(told: int, *arguments: Any) -> NoReturn:
    """Turn the child into the code, or tell which step failed; nothing of the code has run then."""
    told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, _ABOVE_FD)
    try:
        _become_job(*arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the code has not run
        os.write(told, f"{type(error).__name__}: {error}".encode()[:_PROBLEM_BYTES])
    finally:
        os._exit(_NOT_STARTED_EXIT)


def _become_job(
    order: dict[str, Any],
    environment: dict[str, str],
    program: bytes,
    logs: tuple[int, int],
    channel: tuple[int, ...],
) -> None:
    """Turn the child into the code; the filter is last, for it denies what the steps before need."""
    os.setsid()
    for received in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(received, signal.SIG_DFL)
    wanted = (os.open(os.devnull, os.O_RDONLY), *logs, *channel)
    # Away from the numbers they are to get, so that none overwrites another; all of it ends with the execution,
    # as everything that Python opens does, but for the copies made last.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_FD) for fd in wanted]
    for number, fd in enumerate(moved):
        os.dup2(fd, number, inheritable=True)
    os.chdir(CODE)
    confine.apply_limits(order["rlimits"])
    confine.install_filter(program)
    os.execve(sys.executable, [sys.executable, order["entrypoint"]], environment)  # noqa: S606


_terminated = False


def _terminate(*_: object) -> None:
    global _terminated  # noqa: PLW0603 - a signal handler has nowhere else to say so
    _terminated = True


def _wait_for_order(deadline_s: float) -> dict[str, Any] | None:
    ends_s = time.monotonic() + deadline_s
    while not STAGED_MARK.exists():
        if _terminated or CANCEL_MARK.exists() or time.monotonic() > ends_s:
            return None
        time.sleep(_STAGED_POLL_S)
    order: dict[str, Any] = json.loads(ORDER_FILE.read_bytes())
    return order


def _write_report(report: dict[str, Any], stdout: bytes, stderr: bytes) -> None:
    """Replace whatever the job left in the folder of the report; the report itself comes last, whole."""
    for name in os.listdir(REPORT):  # noqa: PTH208
        place = REPORT / name
        if place.is_dir() and not place.is_symlink():
            import shutil  # takes longer to import than most jobs need to be reported

            shutil.rmtree(place)
        else:
            place.unlink()
    for name, content in (
        (STDOUT_FILE, stdout),
        (STDERR_FILE, stderr),
        ("staged", json.dumps(report).encode()),
    ):
        with (REPORT / name).open("xb") as file:
            file.write(content)
    (REPORT / "staged").rename(REPORT / REPORT_FILE)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Wait for the order, run it and return the container's exit code."""
    os.umask(0o022)
    confine.hide_process()
    signal.signal(signal.SIGTERM, _terminate)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    network = NetworkCheck(targets())
    order = _wait_for_order(float(arguments[0]))
    if order is None:
        _say("job: nothing was staged; it did not start")
        return _NOT_STARTED_EXIT
    seen = network.reached(order["network_s"])
    if "OPEN" in seen.values():
        _write_report({"ended": "ISOLATION_FAILED", "exit_code": None, "network": seen}, b"", b"")
        _say("job: the network is not closed; it did not start")
        return _NOT_STARTED_EXIT
    _say("job: started")
    job = Job(order)
    job.run()
    report: dict[str, Any] = {**job.report(), "network": seen}
    _write_report(report, job.stdout.value(), job.stderr.value())
    _say(f"job: ended ({report['ended']}, exit code {report['exit_code']})")
    return 0 if report["ended"] == "EXIT" and report["exit_code"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
