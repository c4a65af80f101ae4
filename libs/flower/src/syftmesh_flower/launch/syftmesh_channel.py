"""Frames over the two pipes between a Flower app in the sandbox and who started it.

A frame is a kind (one byte), a number of parts (one byte), the length of each part (8 bytes, big-endian), then the
parts. This file is copied beside the app, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

SETUP: Final = 1
READY: Final = 2
TASK: Final = 3
REPLY: Final = 4
FAILED: Final = 5
NODES: Final = 6
PUSH: Final = 7
PULL: Final = 8
CHECKPOINT: Final = 9
RESULT: Final = 10
DONE: Final = 11

MAX_PARTS: Final = 255
_BLOCK: Final = 1 << 20

Frame = tuple[int, list[bytes]]


class ChannelClosed(Exception):
    """The other side is gone."""


class FrameTooLarge(Exception):
    """A frame is larger than what is taken."""


class Channel:
    """One side of the two pipes; blocking.

    Args:
        read_fd: Descriptor to read from.
        write_fd: Descriptor to write to.
        limit_bytes: Largest frame that is taken, all parts together; None takes any.
    """

    def __init__(self, read_fd: int, write_fd: int, *, limit_bytes: int | None = None) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self.limit_bytes = limit_bytes

    @classmethod
    def inherited(cls) -> Channel:
        """Return the channel whose descriptors this process was started with."""
        read_fd, write_fd = map(int, os.environ.pop("CHANNEL").split(","))
        return cls(read_fd, write_fd)

    def send(self, kind: int, parts: Sequence[bytes | memoryview] = ()) -> None:
        """Write one frame.

        Raises:
            ChannelClosed: The other side is gone.
        """
        head = bytes([kind, len(parts)]) + b"".join(len(part).to_bytes(8, "big") for part in parts)
        try:
            self._write(memoryview(head))
            for part in parts:
                self._write(memoryview(part))
        except BrokenPipeError as error:
            raise ChannelClosed from error

    def receive(self) -> Frame:
        """Read one frame.

        Raises:
            ChannelClosed: The other side is gone.
            FrameTooLarge: It says that more follows than is taken; the channel is of no use any more.
        """
        kind, count = self._read(2)
        sizes = self._read(8 * count)
        lengths = [int.from_bytes(sizes[8 * n : 8 * n + 8], "big") for n in range(count)]
        if self.limit_bytes is not None and sum(lengths) > self.limit_bytes:
            raise FrameTooLarge
        return kind, [self._read(length) for length in lengths]

    def ask(self, kind: int, parts: Sequence[bytes | memoryview] = ()) -> Frame:
        """Write a frame and read the answer; raises as both."""
        self.send(kind, parts)
        return self.receive()

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._write_fd, data[:_BLOCK]) :]

    def _read(self, size: int) -> bytes:
        # What arrives is kept as it arrives: a length alone makes nobody reserve memory.
        received = bytearray()
        while len(received) < size:
            block = os.read(self._read_fd, min(_BLOCK, size - len(received)))
            if not block:
                raise ChannelClosed
            received += block
        return bytes(received)
