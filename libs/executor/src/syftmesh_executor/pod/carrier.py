"""The container beside the job: takes code and data in, hands the output out, and runs nothing of either.

``hold`` is its main process. ``session`` is started in it by the runner through the cluster and speaks `wire`
on its standard streams; when that connection breaks, a new one goes on where the run is. ``cancel`` asks the
launcher to end the job, and ``feed`` writes into the code's pipe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from .place import (
    CANCEL_MARK,
    CODE,
    DATA,
    ORDER_FILE,
    OUTPUT,
    REPORT,
    REPORT_FILE,
    SOCKET_IN,
    SOCKET_OUT,
    STAGED_MARK,
    STDERR_FILE,
    STDOUT_FILE,
)
from .wire import BLOCK, FrameReader, Kind, WireError, pack, pack_json

_ROOTS = {"code": CODE, "data": DATA}
_ALIVE_S = 15.0
_QUICK_S, _QUICK_POLL_S, _SLOW_POLL_S = 10.0, 0.01, 0.05
_PIPE_END_S = 2.0
_LAUNCHER_S = 60.0
_MAX_ENTRIES = 20_000
_MAX_DEPTH = 64


class _Out:
    """Our standard output, for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.written_s = time.monotonic()

    def send(self, frame: bytes) -> None:
        """Write a whole frame."""
        with self._lock:
            view = memoryview(frame)
            while view:
                view = view[os.write(1, view) :]
            self.written_s = time.monotonic()


def hold(deadline_s: float) -> None:
    """Stay until told to end, at most `deadline_s`, and reap what is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ends_s = time.monotonic() + deadline_s
    while time.monotonic() < ends_s:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.5)


def session() -> None:
    """Stage the run unless that is done, carry its pipes, wait for its end and give everything out."""
    out = _Out()
    staged = STAGED_MARK.exists()
    out.send(pack_json(Kind.HELLO, {"staged": staged}))
    frames = _frames()
    pipe: threading.Thread | None = None
    try:
        if not staged:
            order = _stage(frames)
            if order["channel"]:
                pipe = _open_pipe(out)
            _commit(order)
            out.send(pack(Kind.GO))
        _wait_for_end(out)
        if pipe is not None:
            pipe.join(_PIPE_END_S)
        _give_out(out)
    except (OSError, WireError, ValueError, KeyError, TypeError) as error:
        name = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        out.send(pack_json(Kind.FAULT, {"text": name[:200]}))


def cancel() -> None:
    """Ask the launcher to end the job."""
    CANCEL_MARK.touch()


def _frames() -> Iterator[tuple[Kind, bytes]]:
    reader = FrameReader()
    while block := os.read(0, BLOCK):
        yield from reader.feed(block)


def _stage(frames: Iterator[tuple[Kind, bytes]]) -> dict[str, Any]:
    """Write what the runner sends; the mark comes last, so a part is never taken for the whole."""
    order: dict[str, Any] = {}
    for kind, payload in frames:
        if kind is Kind.ORDER:
            _clear()
            order = json.loads(payload)
        elif kind is Kind.FOLDER:
            _place(json.loads(payload)).mkdir(parents=True, exist_ok=True)
        elif kind is Kind.FILE:
            _take_file(_place(json.loads(payload)), frames)
        elif kind is Kind.GO:
            return order
        else:
            raise WireError(f"a frame of kind {kind} came while staging")
    raise WireError("the connection ended while staging")


def _commit(order: dict[str, Any]) -> None:
    """Let the launcher go on."""
    ORDER_FILE.write_text(json.dumps(order))
    # Exclusive: of two sessions that stage at once one fails, and the job starts once.
    os.close(os.open(STAGED_MARK, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _clear() -> None:
    """Remove what a session before this one, which broke, had staged."""
    for root in _ROOTS.values():
        for place in root.iterdir():
            if place.is_dir():
                import shutil  # seldom needed, and slow to import

                shutil.rmtree(place)
            else:
                place.unlink()


def _place(named: dict[str, str]) -> Path:
    path = PurePosixPath(named["path"])
    if path.is_absolute() or ".." in path.parts:
        raise WireError("a path leads out of its folder")
    return _ROOTS[named["root"]] / path


def _take_file(place: Path, frames: Iterator[tuple[Kind, bytes]]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with place.open("xb", buffering=0) as file:
        for kind, payload in frames:
            if kind is Kind.DATA:
                digest.update(payload)
                file.write(payload)
            elif kind is Kind.FILE_END:
                if payload.decode() != digest.hexdigest():
                    raise WireError("a file arrived changed")
                return
            else:
                break
    raise WireError("a file arrived in part")


def feed() -> None:
    """Write what the runner sends into the code's pipe, until either side ends."""
    with contextlib.suppress(OSError, WireError), _launcher(_listen(SOCKET_IN)) as sink:
        for kind, payload in _frames():
            if kind is Kind.CHANNEL_END:
                return
            if kind is Kind.CHANNEL:
                sink.sendall(payload)


def _listen(name: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(name)
    server.listen(1)
    server.settimeout(_LAUNCHER_S)
    return server


def _launcher(server: socket.socket) -> socket.socket:
    """Return the connection of the launcher, after which nobody can make another."""
    with server:
        connection, _ = server.accept()
    connection.settimeout(None)
    return connection


def _open_pipe(out: _Out) -> threading.Thread:
    server = _listen(SOCKET_OUT)
    reading = threading.Thread(target=_drain_pipe, args=(server, out), daemon=True)
    reading.start()
    return reading


def _drain_pipe(server: socket.socket, out: _Out) -> None:
    with contextlib.suppress(OSError), _launcher(server) as source:
        while block := source.recv(BLOCK):
            out.send(pack(Kind.CHANNEL, block))
    out.send(pack(Kind.CHANNEL_END))


def _wait_for_end(out: _Out) -> None:
    began_s = time.monotonic()
    report = REPORT / REPORT_FILE
    while not report.exists():
        now_s = time.monotonic()
        if now_s - out.written_s > _ALIVE_S:
            out.send(pack(Kind.ALIVE))
        time.sleep(_QUICK_POLL_S if now_s - began_s < _QUICK_S else _SLOW_POLL_S)


def _give_out(out: _Out) -> None:
    """Send report, logs and output; the launcher is the only process the job's container has left."""
    report = (REPORT / REPORT_FILE).read_bytes()
    out.send(pack(Kind.REPORT, report))
    for kind, name in ((Kind.STDOUT, STDOUT_FILE), (Kind.STDERR, STDERR_FILE)):
        with (REPORT / name).open("rb") as file:
            _send_content(out, kind, file, os.fstat(file.fileno()).st_size)
    if json.loads(report)["exit_code"] == 0:
        left = [json.loads(ORDER_FILE.read_bytes())["output_bytes"], _MAX_ENTRIES]
        _send_folder(out, os.open(OUTPUT, os.O_RDONLY | os.O_DIRECTORY), b"", left)
    out.send(pack(Kind.END))


def _send_folder(out: _Out, folder: int, prefix: bytes, left: list[int]) -> None:
    """Send what lies in a folder; with more than the limits allow, what exceeds them is still announced."""
    for name in sorted(os.listdir(folder)):
        path = prefix + os.fsencode(name)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        sort = _sort(status)
        left[1] -= 1
        size = min(status.st_size, left[0] + 1) if sort == "file" else 0
        entry = {"path": path.hex(), "type": sort, "links": status.st_nlink, "size": size}
        if left[0] < 0 or left[1] < 0:
            break
        out.send(pack_json(Kind.ENTRY, entry))
        if sort == "folder" and path.count(b"/") < _MAX_DEPTH:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            _send_folder(out, inner, path + b"/", left)
        elif sort == "file" and status.st_nlink == 1:
            left[0] -= size
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with os.fdopen(source, "rb") as file:
                _send_content(out, Kind.DATA, file, size)
    os.close(folder)


def _sort(status: os.stat_result) -> str:
    for sort, matches in (("file", stat.S_ISREG), ("folder", stat.S_ISDIR), ("link", stat.S_ISLNK)):
        if matches(status.st_mode):
            return sort
    return "other"


def _send_content(out: _Out, kind: Kind, file: BinaryIO, size: int) -> None:
    while size > 0:
        block = file.read(min(BLOCK, size))
        if not block:
            raise WireError("a file became shorter while it was read")
        out.send(pack(kind, block))
        size -= len(block)


def main(arguments: list[str]) -> None:
    """Do what the first argument names."""
    os.umask(0o022)
    if arguments[0] == "hold":
        hold(float(arguments[1]))
    elif arguments[0] == "session":
        session()
    elif arguments[0] == "feed":
        feed()
    elif arguments[0] == "cancel":
        cancel()
    else:
        raise SystemExit(f"unknown: {arguments[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
