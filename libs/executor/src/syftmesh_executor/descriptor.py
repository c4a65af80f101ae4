"""Descriptors that clean up after themselves, and waiting for them on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import ExitStack
from io import FileIO


def pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    """Return the read and the write end of a new pipe, closed with the stack at the latest."""
    read, write = os.pipe()
    return stack.enter_context(FileIO(read, "rb")), stack.enter_context(FileIO(write, "wb"))


def memory_file(stack: ExitStack, content: bytes) -> FileIO:
    """Return an anonymous file that holds `content`, positioned at its start."""
    file = stack.enter_context(FileIO(os.memfd_create("syftmesh"), "r+b"))
    file.write(content)
    file.seek(0)
    return file


def folder(stack: ExitStack, path: str) -> int:
    """Return a descriptor of a folder; the mount it lies on stays as long as it is open."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def process(stack: ExitStack, pid: int) -> int:
    """Return a descriptor of a process (pidfd_open(2)): readable when it has ended, never another's."""
    fd = os.pidfd_open(pid)
    stack.callback(os.close, fd)
    return fd


def send(process_fd: int, signal_number: signal.Signals) -> None:
    """Signal a process; one that has ended is no error."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process_fd, signal_number)


async def readable(fd: int) -> None:
    """Wait until a descriptor has something to read or has ended."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop.add_reader(fd, ready)
    try:
        await waiter
    finally:
        loop.remove_reader(fd)


async def read_to_end(pipe_end: FileIO, limit_bytes: int) -> bytes:
    """Read until the other side closes, at most `limit_bytes`."""
    received = b""
    while len(received) < limit_bytes:
        await readable(pipe_end.fileno())
        block = os.read(pipe_end.fileno(), limit_bytes - len(received))
        if not block:
            break
        received += block
    return received
