"""Frames between the runner and the carrier of a pod: ``kind (1 byte), length (4 bytes, big endian), payload``."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

MAX_PAYLOAD = 1 << 20
BLOCK = 1 << 17
"""Bytes of one frame of file content."""
_HEADER = struct.Struct("!BI")


class Kind(IntEnum):
    """What a frame holds; JSON unless said otherwise."""

    HELLO = 1
    """Carrier: whether the run was staged before (``staged``)."""
    ORDER = 2
    """Runner: limits, environment and what else the launcher needs."""
    FOLDER = 3
    """Runner: ``root`` and ``path`` of a folder."""
    FILE = 4
    """Runner: ``root`` and ``path`` of a file, whose content follows."""
    DATA = 5
    """Bytes: content of the file announced last."""
    FILE_END = 6
    """SHA-256 of that content, hex, as bytes."""
    GO = 7
    """Empty. Runner: everything is sent. Carrier: it is staged, and the job starts."""
    CHANNEL = 8
    """Bytes of the code's pipes, in both directions."""
    CHANNEL_END = 9
    """Empty: the end of the file of one direction."""
    ALIVE = 10
    """Carrier, empty: the connection lives."""
    REPORT = 11
    """Carrier: the launcher's report, JSON that the job could have written."""
    STDOUT = 12
    """Carrier, bytes: standard output, more than once."""
    STDERR = 13
    """Carrier, bytes: standard error, more than once."""
    ENTRY = 14
    """Carrier: ``path`` (hex), ``type`` (file, folder, link, other), ``links``, ``size`` of a thing in the output."""
    END = 15
    """Carrier, empty: nothing follows."""
    FAULT = 16
    """Carrier: ``text``, why it cannot go on."""


class WireError(Exception):
    """The other side does not keep to the frames."""


def pack(kind: Kind, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def pack_json(kind: Kind, value: Any) -> bytes:
    """Return a frame of JSON."""
    return pack(kind, json.dumps(value, separators=(",", ":")).encode())


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Take the next bytes and give every frame that is whole.

        Raises:
            WireError: A kind is unknown, or a frame is longer than `MAX_PAYLOAD`.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD or not Kind.HELLO <= number <= Kind.FAULT:
                raise WireError("a frame is malformed")
            if len(self._buffer) < _HEADER.size + length:
                return
            payload = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
            del self._buffer[: _HEADER.size + length]
            yield Kind(number), payload
