"""Unpacks a zip that a stranger wrote, in memory and within limits."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from syftmesh_core.bundle.name import Names
from syftmesh_core.bundle.refusal import (
    MAX_FILES,
    MAX_UNPACKED_BYTES,
    bundle_invalid,
    bundle_too_large,
    shown,
)

__all__ = ["MAX_FILES", "MAX_UNPACKED_BYTES", "unpack"]

_BLOCK_BYTES: Final = 1024 * 1024
_ENCRYPTED_FLAGS: Final = 0x1 | 0x20 | 0x40 | 0x2000
_FILE_TYPE_MASK, _REGULAR = 0o170000, 0o100000
_UNREADABLE: Final = (
    BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    ValueError,  # the errors of decoding names too
    RuntimeError,  # NotImplementedError too
)


def unpack(data: bytes) -> dict[str, bytes]:
    """Return path to content; nothing is written anywhere.

    Raises:
        InvalidInput: BUNDLE_INVALID: no zip of plain files with portable, unique names.
        LimitExceeded: BUNDLE_TOO_LARGE: it unpacks to more than the limits.
    """
    names = Names()
    files: dict[str, bytes] = {}
    left_bytes = MAX_UNPACKED_BYTES
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            # Flower's own list of digests is no file of the app.
            if len(entries) > MAX_FILES + 1:
                raise bundle_too_large(f"it has {len(entries)} files")
            for entry in entries:
                _check_entry(entry)
                if problem := names.claim(entry.filename):
                    raise bundle_invalid(f"{shown(entry.filename)} {problem}")
                files[entry.filename] = _read_entry(archive, entry, left_bytes)
                left_bytes -= len(files[entry.filename])
    except _UNREADABLE as error:
        raise bundle_invalid("it is no readable zip") from error
    return files


def _check_entry(entry: ZipInfo) -> None:
    name = shown(entry.filename)
    if entry.flag_bits & _ENCRYPTED_FLAGS:
        raise bundle_invalid(f"{name} is encrypted or a patch")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise bundle_invalid(f"{name} is compressed in a way that is not accepted")
    if entry.orig_filename != entry.filename:
        raise bundle_invalid(f"{name} has a name that does not travel between machines")
    if (entry.external_attr >> 16) & _FILE_TYPE_MASK not in (0, _REGULAR):
        raise bundle_invalid(f"{name} is a link, a folder or a special file")


def _read_entry(archive: ZipFile, entry: ZipInfo, left_bytes: int) -> bytes:
    """Return the content, and unpack no more than is left: what the header says of the size is only a claim."""
    content = bytearray()
    with archive.open(entry) as file:
        while block := file.read(min(_BLOCK_BYTES, left_bytes + 1 - len(content))):
            content += block
            if len(content) > left_bytes:
                raise bundle_too_large(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if len(content) != entry.file_size:
        raise bundle_invalid(f"{shown(entry.filename)} is not of the size that it says")
    return bytes(content)
