"""Compressed members anywhere in some bytes, found by their magic bytes and decompressed.

gzip and zlib (RFC 1952, 1950), bzip2, xz, zstd (RFC 8878), LZ4 frames, framed Snappy and S2. A member that
begins rightly and then breaks is given as far as it goes, and said to be damaged.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import cramjam

from syftmesh_standalone.demo.canary.s2 import STREAM_MAGICS, DamagedError, decode_stream

MAX_MEMBER_BYTES: Final = 256 << 20
_CHANCE_BYTES: Final = 64
"""Two magic bytes stand in random data all the time; a member of that little output was none."""
_LZMA_MEMORY_BYTES: Final = 64 << 20
_STEP_BYTES: Final = 256
_ZSTD_CHECKSUM_BYTES: Final = 4
_LZ4_PLAIN: Final = 1 << 31
_BZIP2_LEVELS: Final = tuple(bytes([digit]) for digit in b"123456789")
_BZIP2_BLOCKS: Final = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))
_ZLIB: Final = "zlib"


@dataclass(frozen=True, slots=True)
class Member:
    """One compressed member.

    Attributes:
        form: Name of the compression.
        at: Where it begins.
        data: What it holds, as far as it could be read.
        damaged: Whether it broke off or is larger than 256 MiB.
    """

    form: str
    at: int
    data: bytes
    damaged: bool


class _NoMemberError(Exception):
    """The magic bytes stand there by chance."""


def members(data: bytes) -> Iterator[Member]:
    """Give the compressed members in `data`, each by the place where it begins."""
    for magic, form, read in _FORMS:
        at = data.find(magic)
        while at >= 0:
            member = _read(form, data, at, read)
            if member is not None:
                yield member
            at = data.find(magic, at + 1)


def _read(form: str, data: bytes, at: int, read: Callable[[bytes, int], bytes]) -> Member | None:
    try:
        return Member(form, at, read(data, at), damaged=False)
    except _NoMemberError:
        return None
    except DamagedError as error:
        if form == _ZLIB and len(error.partial) < _CHANCE_BYTES:
            return None
        return Member(form, at, error.partial, damaged=True)


def _gzip(data: bytes, at: int) -> bytes:
    header = data[at : at + 10]
    if len(header) < 10 or header[3] & 0xE0 or header[8] not in (0, 2, 4):
        raise _NoMemberError
    return _streaming(zlib.decompressobj(31), data, at)


def _zlib(data: bytes, at: int) -> bytes:
    return _streaming(zlib.decompressobj(15), data, at)


def _bzip2(data: bytes, at: int) -> bytes:
    if data[at + 3 : at + 4] not in _BZIP2_LEVELS or data[at + 4 : at + 10] not in _BZIP2_BLOCKS:
        raise _NoMemberError
    return _streaming(bz2.BZ2Decompressor(), data, at)


def _xz(data: bytes, at: int) -> bytes:
    return _streaming(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES), data, at)


def _streaming(decoder: Any, data: bytes, at: int) -> bytes:
    """Feed the decoder in small steps, so that what stands before a fault is not lost."""
    out = bytearray()
    while at < len(data) and not decoder.eof:
        try:
            out += decoder.decompress(data[at : at + _STEP_BYTES])
        except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
            raise DamagedError(bytes(out)) from error
        at += _STEP_BYTES
        if len(out) > MAX_MEMBER_BYTES:
            raise DamagedError(bytes(out))
    if not decoder.eof:
        raise DamagedError(bytes(out))
    return bytes(out)


def _framed(data: bytes, at: int) -> bytes:
    return decode_stream(data, at)[0]


def _zstd(data: bytes, at: int) -> bytes:
    frame = data[at : at + _zstd_length(data, at)]
    return _whole(cramjam.zstd.decompress, frame)


def _lz4(data: bytes, at: int) -> bytes:
    frame = data[at : at + _lz4_length(data, at)]
    return _whole(cramjam.lz4.decompress, frame)


def _whole(decompress: Callable[[bytes], Any], frame: bytes) -> bytes:
    try:
        return bytes(decompress(frame))
    except cramjam.DecompressionError as error:
        raise DamagedError from error


def _zstd_length(data: bytes, start: int) -> int:
    """Return the length of the zstd frame at `start`: RFC 8878, 3.1.1."""
    try:
        descriptor = data[start + 4]
        single = descriptor >> 5 & 1
        size_field = (single, 2, 4, 8)[descriptor >> 6]
        at = start + 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_field
        last = 0
        while not last:
            header = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            at += 3 + (1 if kind == 1 else size)
    except IndexError as error:
        raise DamagedError from error
    return at + (_ZSTD_CHECKSUM_BYTES if descriptor >> 2 & 1 else 0) - start


def _lz4_length(data: bytes, start: int) -> int:
    """Return the length of the LZ4 frame at `start`: lz4_Frame_format.md."""
    if len(data) < start + 7:
        raise DamagedError
    flags = data[start + 4]
    block_checksum, content_size = flags >> 4 & 1, flags >> 3 & 1
    checksum, dictionary = flags >> 2 & 1, flags & 1
    at = start + 6 + 8 * content_size + 4 * dictionary + 1
    while True:
        word = data[at : at + 4]
        if len(word) < 4:
            raise DamagedError
        size = int.from_bytes(word, "little")
        at += 4
        if size == 0:
            return at + 4 * checksum - start
        at += (size & (_LZ4_PLAIN - 1)) + 4 * block_checksum


_FORMS: Final[tuple[tuple[bytes, str, Callable[[bytes, int], bytes]], ...]] = (
    (b"\x1f\x8b\x08", "gzip", _gzip),
    *((bytes((0x78, flags)), _ZLIB, _zlib) for flags in (0x01, 0x5E, 0x9C, 0xDA)),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\x00", "xz", _xz),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x04\x22\x4d\x18", "lz4", _lz4),
    *((magic, "snappy or s2", _framed) for magic in STREAM_MAGICS),
)
