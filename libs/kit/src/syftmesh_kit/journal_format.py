r"""Format of journal objects: what JetStream has acknowledged, copied for the day it is lost.

An object ``journal/<stream>/<epoch>/<first>-<last>`` (sequences as 20 digits) holds every message of the
stream with a sequence in that range that existed when it was copied. Bytes, integers big-endian:

```
magic    8 bytes  "SMJRNL1\n"
record   u32 length of the rest of the record
         u64 sequence, u64 time (Unix ms), u16 length + subject (UTF-8), u16 number of headers,
         per header u16 length + name, u16 length + value (UTF-8), u32 length + payload
...
digest   32 bytes SHA-256 of all before it
```
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from syftmesh_core.errors import IntegrityFailure

from syftmesh_kit.message import StreamMessage

MAGIC: Final = b"SMJRNL1\n"
_DIGEST_BYTES: Final = 32


def object_prefix(stream: str, epoch: int) -> str:
    """Return the prefix of all journal objects of one epoch of a stream."""
    return f"journal/{stream}/{epoch}/"


def object_key(stream: str, epoch: int, first: int, last: int) -> str:
    """Return the key of the object for sequences `first` to `last`."""
    return f"{object_prefix(stream, epoch)}{first:020d}-{last:020d}"


def parse_range(key: str) -> tuple[int, int]:
    """Return first and last sequence of an object key.

    Raises:
        IntegrityFailure: The key is not a journal object's (JOURNAL_CORRUPT).
    """
    first, _, last = key.rpartition("/")[2].partition("-")
    if not (
        len(first) == len(last) == 20 and first.isdecimal() and last.isdecimal() and int(first) <= int(last)
    ):
        raise corrupt(key)
    return int(first), int(last)


def encode(messages: Iterable[StreamMessage]) -> bytes:
    """Return the object that holds `messages`."""
    body = b"".join([MAGIC, *(_record(message) for message in messages)])
    return body + hashlib.sha256(body).digest()


def decode(stream: str, key: str, raw: bytes) -> Iterator[StreamMessage]:
    """Iterate over the messages of an object.

    Raises:
        IntegrityFailure: The bytes are not what was written (JOURNAL_CORRUPT, metadata ``key``).
    """
    body = raw[:-_DIGEST_BYTES]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != raw[-_DIGEST_BYTES:]:
        raise corrupt(key)
    reader = _Reader(memoryview(body)[len(MAGIC) :])
    while reader.left:
        reader.number("I")
        sequence, time_ms = reader.number("Q"), reader.number("Q")
        subject = reader.text()
        headers = {reader.text(): reader.text() for _ in range(reader.number("H"))}
        payload = reader.take(reader.number("I"))
        yield StreamMessage(stream, subject, sequence, time_ms, headers, payload)


def corrupt(key: str) -> IntegrityFailure:
    """Return the error for a journal object that does not hold."""
    return IntegrityFailure(
        "A journal object is damaged. Restore it from a backup before rebuilding.",
        reason="JOURNAL_CORRUPT",
        metadata={"key": key},
    )


def _record(message: StreamMessage) -> bytes:
    parts = [struct.pack(">QQ", message.sequence, message.time_ms), _text(message.subject)]
    parts.append(struct.pack(">H", len(message.headers)))
    for name, value in message.headers.items():
        parts += [_text(name), _text(value)]
    parts += [struct.pack(">I", len(message.payload)), message.payload]
    body = b"".join(parts)
    return struct.pack(">I", len(body)) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


class _Reader:
    """Reads the fields of a body whose digest holds."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._view) - self._at

    def take(self, size_bytes: int) -> bytes:
        piece = bytes(self._view[self._at : self._at + size_bytes])
        self._at += size_bytes
        return piece

    def number(self, kind: str) -> int:
        layout = f">{kind}"
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def text(self) -> str:
        return self.take(self.number("H")).decode()
