"""What bytes may hide: everything that common encodings of them decode to.

RFC 4648 (base64, base64url, base32, base16), RFC 1950 to 1952 (zlib, deflate, gzip), bzip2, xz, percent and
backslash escapes, UTF-16. Runs are decoded at every alignment, because a value need not start where the run
does. Work is bounded; what is beyond the bound is reported, never passed over in silence.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_DEPTH: Final = 4
DEFAULT_BUDGET_BYTES: Final = 64 << 20
MAX_INFLATED_BYTES: Final = 16 << 20
"""Most that one compressed stream is unpacked to."""
MIN_RUN: Final = 8

_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_BASE32 = re.compile(rb"[^A-Z2-7]+")
_HEX = re.compile(rb"[^0-9a-f]+")
_HEX_PREFIX = re.compile(rb"0x|\\x|\\u00|%")
_TOKEN = re.compile(rb"[A-Za-z0-9+/_=-]{8,}")
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})")
_COMPRESSED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|BZh[1-9]|\xfd7zXZ\x00|PK\x03\x04")
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"


@dataclass(slots=True)
class Decoding:
    """One walk through what `data` may hide.

    Attributes:
        budget_bytes: Bytes that may still be produced.
        exhausted: Whether the bound was met: something was not looked at.
    """

    budget_bytes: int = DEFAULT_BUDGET_BYTES
    exhausted: bool = False
    _seen: set[int] = field(default_factory=set)

    def views(self, data: bytes) -> Iterator[bytes]:
        """Give `data` and everything it decodes to, nested up to four times."""
        waiting = [(data, 0)]
        while waiting:
            current, depth = waiting.pop()
            yield current
            if depth == MAX_DEPTH:
                continue
            for decoded, worth in _decoded(current, self):
                if len(decoded) >= MIN_RUN // 2 and self._take(decoded):
                    waiting.append((decoded, depth + 1 if worth else MAX_DEPTH))

    def _take(self, decoded: bytes) -> bool:
        mark = hash(decoded)
        if mark in self._seen:
            return False
        if len(decoded) > self.budget_bytes:
            self.exhausted = True
            return False
        self._seen.add(mark)
        self.budget_bytes -= len(decoded)
        return True


def _decoded(data: bytes, walk: Decoding) -> Iterator[tuple[bytes, bool]]:
    """Give what `data` decodes to, and whether the result is worth decoding again."""
    yield from _inflated(data, walk)
    if _ESCAPE.search(data):
        yield _ESCAPE.sub(_unescape, data), True
    for decoded in (*_from_base64(data), *_from_hex(data), *_from_base32(data)):
        yield decoded, _is_promising(decoded)
    # Reversed text may be an encoding written backwards.
    for decoded in (*_from_base64(data[::-1]), *_from_hex(data[::-1])):
        yield decoded, _is_promising(decoded)


def _is_promising(decoded: bytes) -> bool:
    # Random text decodes to noise, and noise need not be decoded again.
    if _COMPRESSED.match(decoded):
        return True
    sample = decoded.replace(b"\x00", b"")[:4096]
    return bool(sample) and len(sample.translate(None, _PRINTABLE)) * 10 <= len(sample)


def _unescape(found: re.Match[bytes]) -> bytes:
    code = int(next(group for group in found.groups() if group), 16)
    return chr(code).encode("utf-8", "replace") if code > 255 else bytes((code,))


def _runs(data: bytes, surplus: re.Pattern[bytes]) -> Iterator[bytes]:
    """Give the text as one run with everything foreign taken out, and each long token by itself."""
    whole = surplus.sub(b"", data)
    if len(whole) >= MIN_RUN:
        yield whole
    for token in _TOKEN.findall(data):
        run = surplus.sub(b"", token)
        if len(run) >= MIN_RUN and run != whole:
            yield run


def _from_base64(data: bytes) -> Iterator[bytes]:
    plain = data.replace(b"-", b"+").replace(b"_", b"/") if b"-" in data or b"_" in data else data
    for text in {data, plain}:
        for run in _runs(text, _BASE64):
            yield from _aligned(run, 4, b"A", base64.b64decode)


def _from_base32(data: bytes) -> Iterator[bytes]:
    for run in _runs(data.upper(), _BASE32):
        yield from _aligned(run, 8, b"A", base64.b32decode)


def _from_hex(data: bytes) -> Iterator[bytes]:
    for run in _runs(_HEX_PREFIX.sub(b" ", data).lower(), _HEX):
        yield from _aligned(run, 2, b"0", binascii.unhexlify)


def _aligned(run: bytes, group: int, filler: bytes, decode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    for skipped in range(group):
        part = run[skipped:]
        yield decode(part + filler * (-len(part) % group))


def _inflated(data: bytes, walk: Decoding) -> Iterator[tuple[bytes, bool]]:
    for found in _COMPRESSED.finditer(data):
        rest = data[found.start() :]
        for unpack in _UNPACKERS.get(found[0][:2], ()):
            content = unpack(rest, MAX_INFLATED_BYTES + 1)
            if len(content) > MAX_INFLATED_BYTES:
                walk.exhausted = True
            elif content:
                yield content, True


def _zlib(wbits: int) -> Callable[[bytes, int], bytes]:
    def unpack(data: bytes, limit: int) -> bytes:
        # A stream that breaks off still gives what came before.
        decoder, out = zlib.decompressobj(wbits), b""
        try:
            out = decoder.decompress(data, limit)
        except zlib.error:
            return _piecewise(zlib.decompressobj(wbits), data, limit)
        return out

    return unpack


def _piecewise(decoder: zlib._Decompress, data: bytes, limit: int) -> bytes:
    out = bytearray()
    try:
        for at in range(0, min(len(data), limit), 64):
            out += decoder.decompress(data[at : at + 64], limit)
            if len(out) > limit:
                break
    except zlib.error:
        pass
    return bytes(out)


def _bzip2(data: bytes, limit: int) -> bytes:
    try:
        return bz2.BZ2Decompressor().decompress(data, limit)
    except OSError:
        return b""


def _xz(data: bytes, limit: int) -> bytes:
    try:
        return lzma.LZMADecompressor(memlimit=64 << 20).decompress(data, limit)
    except lzma.LZMAError:
        return b""


def _zip(data: bytes, limit: int) -> bytes:
    out = bytearray()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    out += name.encode() + b"\n" + member.read(limit - min(limit, len(out))) + b"\n"
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error, EOFError):
        return bytes(out)
    return bytes(out)


_UNPACKERS: Final[dict[bytes, tuple[Callable[[bytes, int], bytes], ...]]] = {
    b"\x1f\x8b": (_zlib(31),),
    b"\x78\x01": (_zlib(15),),
    b"\x78\x5e": (_zlib(15),),
    b"\x78\x9c": (_zlib(15),),
    b"\x78\xda": (_zlib(15),),
    b"BZ": (_bzip2,),
    b"\xfd7": (_xz,),
    b"PK": (_zip,),
}
