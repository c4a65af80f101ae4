"""Flower app bundles (FAB): a zip from another principal, of which nothing is trusted.

What Flower's own ``flwr build`` writes is taken; see ``flwr.cli.build`` of flwr 1.41.
"""

from __future__ import annotations

import io
import stat
import struct
import tomllib
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from syftmesh_core.errors import InvalidInput, LimitExceeded

MIB: Final = 1 << 20
MAX_PACKED_BYTES: Final = 4 * MIB
MAX_UNPACKED_BYTES: Final = 64 * MIB
MAX_FILES: Final = 2000
MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 32
MAX_PROJECT_BYTES: Final = 256 * 1024
MAX_APP_NAME: Final = 200
PROJECT_FILE: Final = "pyproject.toml"
COMPONENTS: Final = ("serverapp", "clientapp")
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # NotImplementedError too
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is in a bundle.

    Attributes:
        app_name: ``publisher/name version``.
        files: Path and content, in order of paths.
    """

    app_name: str
    files: tuple[tuple[str, bytes], ...]


def read_bundle(data: bytes) -> Bundle:
    """Return the files of a bundle; nothing is written anywhere.

    Raises:
        InvalidInput: BUNDLE_INVALID: no zip of regular files with plain relative names, each once also
            without regard to case, or no Flower app with both components.
        LimitExceeded: BUNDLE_TOO_LARGE.
    """
    if len(data) > MAX_PACKED_BYTES:
        raise _too_large(f"it has more than {MAX_PACKED_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _files(archive)
    except _UNREADABLE:
        raise _invalid("it is no zip file that can be read") from None
    content = dict(files).get(PROJECT_FILE)
    if content is None:
        raise _invalid(f"it has no {PROJECT_FILE}")
    return Bundle(_app_name(content), tuple(sorted(files)))


def _files(archive: zipfile.ZipFile) -> list[tuple[str, bytes]]:
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise _too_large(f"it has more than {MAX_FILES} files")
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise _too_large(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    seen: set[str] = set()
    files, left_bytes = [], MAX_UNPACKED_BYTES
    for entry in entries:
        name = entry.filename.removesuffix("/") if entry.is_dir() else entry.filename
        _check_entry(entry, name)
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if folded in seen:
            raise _invalid(f"{name[:120]!r} is in it twice")
        seen.add(folded)
        if entry.is_dir():
            continue
        with archive.open(entry) as member:
            # The size in the headers is a claim: no more than what is left is ever unpacked.
            content = member.read(left_bytes + 1)
        left_bytes -= len(content)
        if left_bytes < 0:
            raise _too_large(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        files.append((name, content))
    names = {name for name, _ in files}
    if any(str(parent) in names for name in names for parent in PurePosixPath(name).parents):
        raise _invalid("a name in it is a file and a folder at once")
    return files


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(name)
    if entry.orig_filename != entry.filename or not name.isprintable() or "\\" in name:
        raise _invalid("a name in it has characters that do not travel between machines")
    if not name or str(path) != name or path.is_absolute() or ".." in path.parts or name == ".":
        raise _invalid(f"{name[:120]!r} is not a plain relative path")
    if len(path.parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
        raise _invalid(f"a name in it is longer than {MAX_NAME_BYTES} bytes a part or {MAX_DEPTH} parts")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise _invalid(f"{name[:120]!r} is a link or a special file")
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        raise _invalid(f"{name[:120]!r} is encrypted or packed in a way that is not read")


def _app_name(content: bytes) -> str:
    if len(content) > MAX_PROJECT_BYTES:
        raise _invalid(f"its {PROJECT_FILE} has more than {MAX_PROJECT_BYTES} bytes")
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError):
        raise _invalid(f"its {PROJECT_FILE} is no TOML in UTF-8") from None
    app: object = document
    for key in ("tool", "flwr", "app"):
        app = app.get(key) if isinstance(app, dict) else None
    found = app if isinstance(app, dict) else {}
    components = found.get("components")
    for name in COMPONENTS:
        value = components.get(name) if isinstance(components, dict) else None
        if not isinstance(value, str) or not value:
            raise _invalid(f"its {PROJECT_FILE} names no {name} under [tool.flwr.app.components]")
    project = document.get("project")
    told = project if isinstance(project, dict) else {}
    publisher, title, version = found.get("publisher"), told.get("name"), told.get("version")
    text = f"{publisher or '?'}/{title or '?'} {version or ''}".strip()
    if len(text) > MAX_APP_NAME or not text.isprintable():
        raise _invalid(f"publisher, name and version in its {PROJECT_FILE} are no short printable texts")
    return text


def _invalid(what: str) -> InvalidInput:
    return InvalidInput(
        f"The app bundle is refused: {what}. Build it with `flwr build`.", reason="BUNDLE_INVALID"
    )


def _too_large(what: str) -> LimitExceeded:
    return LimitExceeded(
        f"The app bundle is refused: {what}. Put data into a dataset.", reason="BUNDLE_TOO_LARGE"
    )
