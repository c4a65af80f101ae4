"""Addresses of gRPC servers: TCP or a Unix socket that only its owner can open."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from syftmesh_core.errors import PermissionDenied

UNIX: Final = "unix:"
_MAX_SOCKET_PATH_BYTES: Final = 100  # sockaddr_un.sun_path holds 108 on Linux, 104 elsewhere


def socket_path(path: Path) -> Path:
    """Return where the socket named `path` really is; server and clients call this alike.

    A path too long for `sockaddr_un` is replaced by a short one in a folder of the user (0700) below the run
    time or temporary directory, its name derived from the wanted path.

    Raises:
        PermissionDenied: That folder exists and belongs to somebody else or is open to others
            (SOCKET_UNSAFE).
    """
    absolute = path.absolute()
    if len(os.fsencode(absolute)) <= _MAX_SOCKET_PATH_BYTES:
        return absolute
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = base / f"syftmesh-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionDenied(
            "The folder for short socket names is not private to this user. Remove it and start again.",
            reason="SOCKET_UNSAFE",
        )
    return folder / f"{hashlib.sha256(os.fsencode(absolute)).hexdigest()[:24]}.sock"


def grpc_target(address: str) -> str:
    """Return the gRPC target of `address`: ``host:port``, or ``unix:<path>`` with the real socket path."""
    if address.startswith(UNIX):
        return f"{UNIX}{socket_path(Path(address.removeprefix(UNIX).removeprefix('//')))}"
    return address
