"""Code as one file: a tar, the same for the same code, checked whole before anything is written.

The format is POSIX ustar/pax as written by Python's `tarfile`, without compression, so that sizes are known
from the headers. An archive comes from another principal: nothing of it is trusted.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import unicodedata
from pathlib import Path, PurePosixPath

from syftmesh_core.errors import InvalidInput, LimitExceeded

from syftmesh_executor.port import MIB

MAX_UNPACKED_BYTES = 64 * MIB
MAX_FILES = 5_000
MAX_DEPTH = 32
MAX_NAME_BYTES = 255
MAX_ARCHIVE_BYTES = MAX_UNPACKED_BYTES + 2 * tarfile.BLOCKSIZE * MAX_FILES + 2 * tarfile.RECORDSIZE
_ALLOWED_PAX = frozenset({"path"})


def code_digest(data: bytes) -> str:
    """Return the digest of an archive: SHA-256 of its bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def pack_code(path: Path) -> bytes:
    """Return a file or a folder as an archive: sorted, without times, owners or modes of this machine.

    Raises:
        InvalidInput: ARCHIVE_INVALID: a link or special file, or a name that does not travel.
        LimitExceeded: ARCHIVE_TOO_LARGE: over 64 MiB or 5,000 files and folders.
    """
    if path.is_symlink():
        raise _invalid(path.name, "is a link; replace it by what it points to")
    buffer = io.BytesIO()
    check = _Check()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        if path.is_file():
            _add(archive, check, path, path.name)
        elif path.is_dir():
            _add_folder(archive, check, path, "")
        else:
            raise _invalid(path.name, "is neither a file nor a folder")
    return buffer.getvalue()


def unpack_code(data: bytes, target: Path) -> None:
    """Check an archive and unpack it into `target`, which is made and must be empty.

    Raises:
        InvalidInput: ARCHIVE_INVALID: not an archive of regular files and folders with names that are
            relative, unique (also without regard to case and Unicode form) and portable. Nothing is written.
        LimitExceeded: ARCHIVE_TOO_LARGE: over 64 MiB unpacked or 5,000 files and folders.
    """
    if len(data) > MAX_ARCHIVE_BYTES:
        raise _too_large(f"the archive has {len(data)} bytes")
    members = _members(data)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise InvalidInput("the folder to unpack into is not empty", reason="ARCHIVE_INVALID")
    for name, content in members.items():
        place = target / name
        if content is None:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            continue
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
            file.write(content)


class _Check:
    """What has been seen of an archive so far, and the rules for the next member."""

    def __init__(self) -> None:
        self._spelling: dict[str, str] = {}
        self._kind: dict[str, str] = {}
        self._entries = 0
        self._size_bytes = 0

    def member(self, name: str, size_bytes: int, *, folder: bool) -> None:
        self._entries += 1
        self._size_bytes += size_bytes
        if self._entries > MAX_FILES:
            raise _too_large(f"the archive has more than {MAX_FILES} files and folders")
        if size_bytes < 0 or self._size_bytes > MAX_UNPACKED_BYTES:
            raise _too_large(f"the archive unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        _check_name(name)
        parts = PurePosixPath(name).parts
        for length in range(1, len(parts)):
            self._claim("/".join(parts[:length]), "folder")
        if self._kind.get(name) == "file" or (not folder and name in self._kind):
            raise _invalid(name, "is there twice")
        self._claim(name, "folder" if folder else "file")

    def _claim(self, name: str, kind: str) -> None:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if self._spelling.setdefault(folded, name) != name:
            raise _invalid(name, f"differs from {self._spelling[folded]!r} only in case or Unicode form")
        if self._kind.setdefault(name, kind) != kind:
            raise _invalid(name, "is a file and a folder at once")


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or str(path) != name or path.is_absolute() or ".." in path.parts or name == ".":
        raise _invalid(name, "is not a plain relative path")
    if not name.isprintable() or "\\" in name:
        raise _invalid(name, "has characters that do not travel between machines")
    if len(path.parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
        raise _invalid(name, f"is longer than {MAX_NAME_BYTES} bytes a part or {MAX_DEPTH} parts")


def _members(data: bytes) -> dict[str, bytes | None]:
    """Return name to content, None for a folder, once every header has passed."""
    check = _Check()
    members: dict[str, bytes | None] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="strict") as archive:
            for header in archive:
                members[header.name] = _content(archive, header, check)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise InvalidInput(
            "the code is not a readable tar archive; pack it again", reason="ARCHIVE_INVALID"
        ) from error
    if not members:
        raise InvalidInput("the archive holds no file", reason="ARCHIVE_INVALID")
    return members


def _content(archive: tarfile.TarFile, header: tarfile.TarInfo, check: _Check) -> bytes | None:
    if header.type not in {tarfile.REGTYPE, tarfile.DIRTYPE} or header.issparse():
        raise _invalid(header.name, "is neither a regular file nor a folder")
    if not set(header.pax_headers) <= _ALLOWED_PAX:
        raise _invalid(header.name, "carries extended headers other than its path")
    check.member(header.name, header.size, folder=header.isdir())
    if header.isdir():
        if header.size:
            raise _invalid(header.name, "is a folder with content")
        return None
    file = archive.extractfile(header)
    content = file.read(header.size) if file else b""
    if len(content) != header.size:
        raise _invalid(header.name, "is cut off")
    return content


def _add_folder(archive: tarfile.TarFile, check: _Check, folder: Path, prefix: str) -> None:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        _add(archive, check, folder / name, prefix + name)


def _add(archive: tarfile.TarFile, check: _Check, path: Path, name: str) -> None:
    status = path.lstat()
    header = tarfile.TarInfo(name)
    if stat.S_ISDIR(status.st_mode):
        header.type, header.mode = tarfile.DIRTYPE, 0o755
        check.member(name, 0, folder=True)
        archive.addfile(header)
        _add_folder(archive, check, path, name + "/")
        return
    if not stat.S_ISREG(status.st_mode):
        raise _invalid(name, "is a link or a special file; replace it by a regular file")
    check.member(name, status.st_size, folder=False)
    content = path.read_bytes()
    header.size, header.mode = len(content), 0o644
    if len(content) != status.st_size:
        raise _invalid(name, "changed while it was read; try again")
    archive.addfile(header, io.BytesIO(content))


def _invalid(name: str, problem: str) -> InvalidInput:
    shown = ascii(name[:200])
    return InvalidInput(
        f"the code archive is refused: {shown} {problem}", reason="ARCHIVE_INVALID", metadata={"name": shown}
    )


def _too_large(problem: str) -> LimitExceeded:
    return LimitExceeded(
        f"{problem}; at most {MAX_UNPACKED_BYTES} bytes in {MAX_FILES} files are accepted, "
        "put data into a data set",
        reason="ARCHIVE_TOO_LARGE",
        metadata={"limit_bytes": str(MAX_UNPACKED_BYTES), "limit_files": str(MAX_FILES)},
    )
