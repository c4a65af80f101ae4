"""Snappy and S2: blocks and framed streams, as NATS (S2) and LevelDB (Snappy) write them.

S2 is Snappy with repeated offsets (klauspost/compress, s2/README.md), so one decoder reads both. Sources:
google/snappy format_description.txt and framing_format.txt.
"""

from __future__ import annotations

from typing import Final

STREAM_MAGICS: Final = (b"\xff\x06\x00\x00sNaPpY", b"\xff\x06\x00\x00S2sTwO")
MAX_BLOCK_BYTES: Final = 64 << 20
_CHUNK_COMPRESSED: Final = 0x00
_CHUNK_PLAIN: Final = 0x01
_CHUNK_IDENTIFIER: Final = 0xFF
_FIRST_SKIPPABLE: Final = 0x80
_MAX_CHUNK_BYTES: Final = (4 << 20) + 4096
"""S2's largest block and some more."""
_CHECKSUM_BYTES: Final = 4


class DamagedError(ValueError):
    """Compressed bytes that do not hold together; `partial` is what could be read of them."""

    def __init__(self, partial: bytes = b"") -> None:
        super().__init__("the compressed bytes are damaged")
        self.partial = partial


def decode_block(data: bytes) -> bytes:
    """Return what a Snappy or S2 block holds.

    Raises:
        DamagedError: It is none, or is cut off.
    """
    try:
        size, at = _varint(data, 0)
        if size > MAX_BLOCK_BYTES:
            raise DamagedError
        out = bytearray()
        offset = 0
        while at < len(data):
            at, offset = _element(data, at, out, offset)
            if len(out) > size:
                break
    except IndexError as error:
        raise DamagedError from error
    if len(out) != size:
        raise DamagedError(bytes(out))
    return bytes(out)


def _element(data: bytes, at: int, out: bytearray, offset: int) -> tuple[int, int]:
    tag = data[at]
    kind = tag & 3
    if kind == 0:
        length, at = _literal_length(data, at)
        if at + length > len(data):
            raise DamagedError(bytes(out))
        out += data[at : at + length]
        return at + length, offset
    if kind == 1:
        length, found = 4 + (tag >> 2 & 7), (tag & 0xE0) << 3 | data[at + 1]
        at += 2
        if found:
            offset = found
        else:
            length, at = _repeat_length(data, at, tag >> 2 & 7)
    else:
        width = 2 if kind == 2 else 4
        length, offset = 1 + (tag >> 2), int.from_bytes(data[at + 1 : at + 1 + width], "little")
        at += 1 + width
    if not 0 < offset <= len(out) or len(out) + length > MAX_BLOCK_BYTES:
        raise DamagedError(bytes(out))
    _copy(out, offset, length)
    return at, offset


def _literal_length(data: bytes, at: int) -> tuple[int, int]:
    length = data[at] >> 2
    if length < 60:
        return length + 1, at + 1
    width = length - 59
    return int.from_bytes(data[at + 1 : at + 1 + width], "little") + 1, at + 1 + width


def _repeat_length(data: bytes, at: int, code: int) -> tuple[int, int]:
    """Return the length of a copy with the offset of the copy before, S2 only."""
    if code < 5:
        return code + 4, at
    width, base = code - 4, (4, 1 << 8, 1 << 16)[code - 5]
    if at + width > len(data):
        raise DamagedError
    return int.from_bytes(data[at : at + width], "little") + base + 4, at + width


def _copy(out: bytearray, offset: int, length: int) -> None:
    start = len(out) - offset
    if offset >= length:
        out += out[start : start + length]
        return
    # The copy overlaps what it makes: the last `offset` bytes over and over.
    piece = bytes(out[start:])
    out += (piece * (length // offset + 1))[:length]


def decode_stream(data: bytes, start: int) -> tuple[bytes, int]:
    """Return what the framed stream at `start` holds, and where it ends.

    Raises:
        DamagedError: A chunk is damaged or cut off.
    """
    out, at = bytearray(), start
    while at + 4 <= len(data):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        if kind == _CHUNK_IDENTIFIER and data[at : at + 10] not in STREAM_MAGICS:
            break
        if _CHUNK_PLAIN < kind < _FIRST_SKIPPABLE or size > _MAX_CHUNK_BYTES:
            break
        body = data[at + 4 : at + 4 + size]
        if len(body) < size:
            if kind >= _FIRST_SKIPPABLE:
                break  # a stream has no end mark: this is what follows it
            raise DamagedError(bytes(out))
        if kind == _CHUNK_COMPRESSED:
            try:
                out += decode_block(body[_CHECKSUM_BYTES:])
            except DamagedError as error:
                raise DamagedError(bytes(out) + error.partial) from error
        elif kind == _CHUNK_PLAIN:
            out += body[_CHECKSUM_BYTES:]
        at += 4 + size
    return bytes(out), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise DamagedError
