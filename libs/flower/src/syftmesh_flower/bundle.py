"""Flower app bundles (FAB): made by Flower's own builder, read as what a stranger wrote.

A bundle is a zip with the app's `pyproject.toml`, its files, and the list `.info/CONTENT` of their digests. Its
SHA-256 is what owners approve, so nothing of it is believed that the bytes do not show.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import tomllib
import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from flwr.common.config import flatten_dict, validate_config
from syftmesh_core.errors import InvalidInput, LimitExceeded

ConfigValue = bool | int | float | str
"""A value of a run configuration."""

MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024
MAX_FILES: Final = 2_000

_MANIFEST = "pyproject.toml"
_MAX_MANIFEST_BYTES = 64 * 1024
# Python's reader of TOML needs the square of a dotted key's parts, in time and in memory.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")
# Flower makes a folder's name of the first three, and checks the name only.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
_PUBLISHER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9](?:[.+!_-]?[A-Za-z0-9]){0,63}")
_COMPONENT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)

_MAX_DEPTH = 32
_MAX_PART_BYTES = 255
_RESERVED_PREFIX = ".syftmesh"
_UNPORTABLE = frozenset('\\:*?"<>|,')
"""Backslash and colon lead elsewhere on Windows; Flower splits the lines of its list at commas."""

_CONTENT_LIST = ".info/CONTENT"
_BLOCK_BYTES = 1024 * 1024
_ENCRYPTED_FLAGS = 0x1 | 0x20 | 0x40 | 0x2000
_FILE_TYPE_MASK, _REGULAR = 0o170000, 0o100000


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was checked whole.

    Attributes:
        digest: SHA-256 of the bundle, hex.
        name: ``publisher/name`` of the app.
        version: Its version.
        server_app: Its ServerApp, as ``module:attribute``.
        client_app: Its ClientApp, as ``module:attribute``.
        config: The defaults of its run configuration, flat, as Flower flattens them.
        files: Path (with ``/``) to content, in order of the paths, without Flower's list of digests.
    """

    digest: str
    name: str
    version: str
    server_app: str
    client_app: str
    config: Mapping[str, ConfigValue]
    files: Mapping[str, bytes] = field(repr=False)

    def extract(self, folder: Path) -> None:
        """Write the files into `folder`, which is made and must be empty; files are 0444, folders 0755.

        Raises:
            InvalidInput: BUNDLE_INVALID when the folder is not empty.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise _invalid("the folder to unpack it into is not empty")
        made: set[PurePosixPath] = set()
        for name, content in self.files.items():
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                if parent not in made:
                    (folder / parent).mkdir()
                    (folder / parent).chmod(0o755)
                    made.add(parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o444)


def build_bundle(app: Path) -> bytes:
    """Return the bundle of the app in the folder `app`; the same files give the same bytes.

    Flower's builder chooses the files: Python, TOML, Markdown, YAML and JSON, without tests, environments and what
    `.gitignore` names; `fab-include` and `fab-exclude` narrow that.

    Raises:
        InvalidInput: BUNDLE_INVALID: no folder, or none of a Flower app with a ServerApp and a ClientApp.
        LimitExceeded: BUNDLE_TOO_LARGE: over 4 MiB, or what `read_bundle` does not take.
    """
    folder = app.expanduser()
    if not folder.is_dir():
        raise _invalid("the path is no folder; give the folder that holds the app's pyproject.toml")
    try:
        # Flower's own checks break on tables that are none; ours say what is wrong.
        _parse_manifest((folder / _MANIFEST).read_bytes())
        data = _flower_build(folder)
    except FileNotFoundError:
        raise _invalid(f"it has no {_MANIFEST}; give the folder that holds the app's") from None
    except OSError as error:
        raise _invalid(f"a file cannot be read: {error.strerror}") from None
    read_bundle(data)
    return data


def read_bundle(data: bytes) -> Bundle:
    """Return the bundle in `data`, which may come from anybody.

    Raises:
        InvalidInput: BUNDLE_INVALID: not a zip of plain files with portable, unique names, a file that is not as
            Flower's list says, or an app that lacks something.
        LimitExceeded: BUNDLE_TOO_LARGE: over 4 MiB, 64 MiB unpacked, or 2,000 files.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise _too_large(f"it has {len(data)} bytes")
    files = _unpack(data)
    listed = files.pop(_CONTENT_LIST, None)
    if listed is None:
        raise _invalid(f"it has no list {_CONTENT_LIST}; build it with Flower")
    lines = listed.decode(errors="replace").split("\n")
    if sorted(lines) != sorted(_content_line(name, content) for name, content in files.items()):
        raise _invalid(f"its files are not those of its list {_CONTENT_LIST}; build it again")
    if _MANIFEST not in files:
        raise _invalid(f"it has no {_MANIFEST}")
    manifest = _parse_manifest(files[_MANIFEST])
    _check_components(manifest, files)
    return Bundle(
        digest=hashlib.sha256(data).hexdigest(),
        name=f"{manifest.publisher}/{manifest.name}",
        version=manifest.version,
        server_app=manifest.server_app,
        client_app=manifest.client_app,
        config=MappingProxyType(manifest.config),
        files=MappingProxyType({name: files[name] for name in sorted(files)}),
    )


def fused_config(bundle: Bundle, overrides: Mapping[str, object]) -> dict[str, ConfigValue]:
    """Return the run configuration that an app gets: its defaults, with `overrides` put over them.

    Flower takes a value of any type; here the type of the default decides, since the app was reviewed with it. A
    whole number for a float becomes a float: RFC 8785 JSON writes 1.0 as 1.

    Args:
        bundle: The app.
        overrides: Flat, as ``section.key``.

    Raises:
        InvalidInput: CONFIG_INVALID: a key that the app does not have, or a value of another type; metadata `key`.
    """
    fused = dict(bundle.config)
    for key, value in overrides.items():
        if key not in fused:
            raise _bad_config(key, "is no key of the app's configuration")
        fused[key] = _override(key, fused[key], value)
    return fused


def _override(key: str, default: ConfigValue, value: object) -> ConfigValue:
    if type(default) is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise _bad_config(key, "is too large for a float") from None
    if not isinstance(value, type(default)) or type(value) is not type(default):
        raise _bad_config(key, f"has to be {type(default).__name__}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _bad_config(key, "is not finite")
    if type(value) is int and not _is_int64(value):
        raise _bad_config(key, "is no 64-bit integer")
    return value


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The parts of an app's manifest that we use."""

    publisher: str
    name: str
    version: str
    server_app: str
    client_app: str
    config: dict[str, ConfigValue]


def _parse_manifest(data: bytes) -> _Manifest:
    document = _toml(data)
    app = _table(document, "tool.flwr.app")
    components = _table(document, "tool.flwr.app.components")
    project = _table(document, "project")
    manifest = _Manifest(
        publisher=_text(app, "publisher", _PUBLISHER),
        name=_text(project, "name", _NAME),
        version=_text(project, "version", _VERSION),
        server_app=_text(components, "serverapp", _COMPONENT),
        client_app=_text(components, "clientapp", _COMPONENT),
        config=_config(app.get("config", {})),
    )
    try:
        is_valid, problems, _ = validate_config(document, check_module=False)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        is_valid, problems = False, [str(error)]
    if not is_valid:
        raise _invalid(f"Flower refuses its {_MANIFEST}: {'; '.join(map(str, problems))[:1000]}")
    return manifest


def _toml(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode()
        if len(data) > _MAX_MANIFEST_BYTES or _DEEP_KEY.search(text):
            raise _invalid(f"its {_MANIFEST} has more than {_MAX_MANIFEST_BYTES} bytes, or too deep a key")
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        raise _invalid(f"its {_MANIFEST} is no TOML") from None


def _table(document: dict[str, Any], path: str) -> dict[str, Any]:
    table: object = document
    for key in path.split("."):
        table = table.get(key) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise _invalid(f"its {_MANIFEST} has no table [{path}]")
    return table


def _text(table: dict[str, Any], key: str, form: re.Pattern[str]) -> str:
    value = table.get(key)
    if not isinstance(value, str) or len(value) > _MAX_PART_BYTES or not form.fullmatch(value):
        raise _invalid(f'"{key}" in its {_MANIFEST} is missing, or is no such thing: {ascii(value)[:200]}')
    return value


def _config(raw: object) -> dict[str, ConfigValue]:
    if not isinstance(raw, dict):
        raise _invalid("tool.flwr.app.config is no table")
    try:
        flat: dict[str, ConfigValue] = flatten_dict(raw)
    except (ValueError, RecursionError):
        raise _invalid("a value of [tool.flwr.app.config] is neither number, text nor boolean") from None
    for key, value in flat.items():
        if isinstance(value, int) and not _is_int64(value):
            raise _invalid(f"{_shown(key)} of [tool.flwr.app.config] is no 64-bit integer")
    return flat


def _flower_build(folder: Path) -> bytes:
    # The command line of Flower comes with it, which takes a second: only who builds pays.
    from flwr.cli.build import build_fab_from_disk

    try:
        data: bytes = build_fab_from_disk(folder)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if "exceeds maximum allowed size" in str(error):
            raise _too_large("it is larger than Flower's own limit") from None
        raise _invalid(f"Flower does not build it: {str(error)[:1000]}") from None
    return data


def _unpack(data: bytes) -> dict[str, bytes]:
    names = _Names()
    files: dict[str, bytes] = {}
    left_bytes = MAX_UNPACKED_BYTES
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES + 1:
                raise _too_large(f"it has {len(entries)} files")
            for entry in entries:
                _check_entry(entry)
                if problem := names.claim(entry.filename):
                    raise _invalid(f"{_shown(entry.filename)} {problem}")
                files[entry.filename] = _read_entry(archive, entry, left_bytes)
                left_bytes -= len(files[entry.filename])
    except (BadZipFile, ValueError, RuntimeError, OSError, EOFError, OverflowError, zlib.error) as error:
        # NotImplementedError is a RuntimeError, the errors of decoding names are ValueErrors.
        raise _invalid("it is no readable zip; build it again") from error
    return files


def _check_entry(entry: ZipInfo) -> None:
    name = _shown(entry.filename)
    if entry.flag_bits & _ENCRYPTED_FLAGS:
        raise _invalid(f"{name} is encrypted or a patch")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise _invalid(f"{name} is compressed in a way that is not accepted")
    if entry.orig_filename != entry.filename:
        raise _invalid(f"{name} has a name that does not travel between machines")
    if (entry.external_attr >> 16) & _FILE_TYPE_MASK not in (0, _REGULAR):
        raise _invalid(f"{name} is a link, a folder or a special file")


def _read_entry(archive: ZipFile, entry: ZipInfo, left_bytes: int) -> bytes:
    """Return the content, and unpack no more than is left: what the header says of the size is only a claim."""
    content = bytearray()
    with archive.open(entry) as file:
        while block := file.read(min(_BLOCK_BYTES, left_bytes + 1 - len(content))):
            content += block
            if len(content) > left_bytes:
                raise _too_large(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if len(content) != entry.file_size:
        raise _invalid(f"{_shown(entry.filename)} is not of the size that it says")
    return bytes(content)


class _Names:
    """The names seen so far, and the rules for the next one: each file once, on every file system."""

    def __init__(self) -> None:
        self._spelling: dict[str, str] = {}
        self._is_file: dict[str, bool] = {}

    def claim(self, name: str) -> str:
        """Take `name` as that of a file; return what is wrong with it, empty when nothing is."""
        path = PurePosixPath(name)
        if not name or str(path) != name or path.is_absolute() or ".." in path.parts or name == ".":
            return "is not a plain relative path of a file"
        if not name.isprintable() or _UNPORTABLE & set(name):
            return "has characters that do not travel between machines"
        if len(path.parts) > _MAX_DEPTH or any(len(part.encode()) > _MAX_PART_BYTES for part in path.parts):
            return f"is longer than {_MAX_PART_BYTES} bytes a part or {_MAX_DEPTH} parts"
        if any(part.casefold().startswith(_RESERVED_PREFIX) for part in path.parts):
            return f"begins with {_RESERVED_PREFIX}, which is kept for files of the mesh"
        if name in self._is_file:
            return "is there twice"
        folders = ["/".join(path.parts[:length]) for length in range(1, len(path.parts))]
        problems = [self._claim(folder, is_file=False) for folder in folders]
        return next(filter(None, [*problems, self._claim(name, is_file=True)]), "")

    def _claim(self, name: str, *, is_file: bool) -> str:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = self._spelling.setdefault(folded, name)
        if other != name:
            return f"differs from {_shown(other)} only in case or Unicode form"
        if self._is_file.setdefault(name, is_file) != is_file:
            return "is a file and a folder at once"
        return ""


def _content_line(name: str, content: bytes) -> str:
    return f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"


def _check_components(manifest: _Manifest, files: Mapping[str, bytes]) -> None:
    for component in (manifest.server_app, manifest.client_app):
        module = component.partition(":")[0].replace(".", "/")
        if f"{module}.py" not in files and f"{module}/__init__.py" not in files:
            raise _invalid(f"the module of the component {component} is not in it, so nobody could review it")


def _is_int64(value: int) -> bool:
    return -(1 << 63) <= value < 1 << 63


def _shown(name: str) -> str:
    return ascii(name[:200])


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(f"The app bundle is refused: {problem}.", reason="BUNDLE_INVALID")


def _too_large(problem: str) -> LimitExceeded:
    return LimitExceeded(
        f"The app bundle is refused: {problem}. At most {MAX_BUNDLE_BYTES} bytes are accepted, and unpacked "
        f"{MAX_UNPACKED_BYTES} bytes in {MAX_FILES} files: leave files out with fab-exclude, put data into a dataset.",
        reason="BUNDLE_TOO_LARGE",
        metadata={"limit_bytes": str(MAX_BUNDLE_BYTES)},
    )


def _bad_config(key: str, problem: str) -> InvalidInput:
    shown = _shown(key)
    return InvalidInput(
        f"The run configuration is refused: {shown} {problem}.",
        reason="CONFIG_INVALID",
        metadata={"key": shown},
    )
