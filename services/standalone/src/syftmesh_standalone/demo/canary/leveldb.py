"""What LevelDB files hold: tables, whose blocks are compressed and prefix-coded, and logs, whose records are cut.

Sources: google/leveldb doc/table_format.md and doc/log_format.md. Checksums are not looked at: what is wrong
is reported as damaged by whoever cannot read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from syftmesh_standalone.demo.canary.s2 import DamagedError, decode_block

TABLE_MAGIC: Final = bytes.fromhex("57fb808b247547db")
LOG_BLOCK_BYTES: Final = 32 << 10
_FOOTER_BYTES: Final = 48
_LOG_HEADER_BYTES: Final = 7
_SNAPPY: Final = 1


def is_table(data: bytes) -> bool:
    """Return whether `data` ends like a LevelDB table."""
    return len(data) >= _FOOTER_BYTES and data.endswith(TABLE_MAGIC)


def table_content(data: bytes) -> Iterator[bytes]:
    """Give the keys and values of each block of a table, one after the other.

    Raises:
        DamagedError: A block cannot be read; the blocks before it were given.
    """
    footer = data[-_FOOTER_BYTES:]
    try:
        _, _, at = _handle(footer, 0)
        offset, size, _ = _handle(footer, at)
        for _, value in _entries(_block(data, offset, size)):
            inner, length, _ = _handle(value, 0)
            yield b"\n".join(key + b"\t" + item for key, item in _entries(_block(data, inner, length)))
    except IndexError as error:
        raise DamagedError from error


def log_content(data: bytes) -> bytes:
    """Return the payload of a log without its headers, so that nothing is cut in two.

    Reading ends at the first thing that is no record, as LevelDB itself does.
    """
    out, at = bytearray(), 0
    while at + _LOG_HEADER_BYTES <= len(data):
        left = LOG_BLOCK_BYTES - at % LOG_BLOCK_BYTES
        if left < _LOG_HEADER_BYTES:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if not 1 <= kind <= 4 or size > left - _LOG_HEADER_BYTES:
            break
        out += data[at + _LOG_HEADER_BYTES : at + _LOG_HEADER_BYTES + size]
        at += _LOG_HEADER_BYTES + size
    return bytes(out)


def _block(data: bytes, offset: int, size: int) -> bytes:
    body, kind = data[offset : offset + size], data[offset + size]
    return decode_block(body) if kind == _SNAPPY else body


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise DamagedError
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        size, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + size]
        at += own + size


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift <= 63:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise DamagedError
