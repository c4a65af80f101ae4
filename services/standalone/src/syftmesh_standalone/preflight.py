"""What must hold before anything is started, each refused by a name and with what to do."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from syftmesh_client.profile import HUB_FOLDER
from syftmesh_core.errors import Unavailable, WrongState
from syftmesh_core.principal import is_principal
from syftmesh_kit.process import free_ports, is_free

from syftmesh_standalone.options import HubPlace, MeshOptions

MIN_FREE_BYTES: Final = 200_000_000
_MIN_FREE_SHARE: Final = 0.011
"""The object store takes no writes below one per cent of the disk."""

_UNNAMEABLE: Final = frozenset(",\n\r")

SITES_FOLDER: Final = "sites"

Which = Callable[[str], str | None]
FreeBytes = Callable[[Path], tuple[int, int]]


def prepare_state(state: Path) -> Path:
    """Make the state folder and the hub's in it when they are missing, and return the hub's.

    Raises:
        WrongState: STATE_UNUSABLE: not a folder, not ours, open to others, or not writable.
    """
    if not _UNNAMEABLE.isdisjoint(str(state)):
        raise WrongState(
            "The path of the state folder has a comma or a line end, which the object store reads as its own.",
            reason="STATE_UNUSABLE",
            hint="Give another one with --state DIR.",
        )
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_private(state)
        hub = state / HUB_FOLDER
        hub.mkdir(exist_ok=True, mode=0o700)
        _require_private(hub)
        (state / SITES_FOLDER).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise WrongState(
            "The state folder cannot be made or written.",
            reason="STATE_UNUSABLE",
            hint="Give another one with --state DIR, or mend owner and mode of this one.",
        ) from error
    return hub


def require_space(state: Path, free_bytes: FreeBytes | None = None) -> None:
    """Refuse to start on a disk that is all but full.

    Args:
        state: The state folder.
        free_bytes: Gives total and free bytes of the disk below a folder.

    Raises:
        Unavailable: NO_SPACE, metadata ``free_bytes`` and ``needed_bytes``.
    """
    total, free = (free_bytes or _disk)(state)
    needed = max(MIN_FREE_BYTES, int(total * _MIN_FREE_SHARE))
    if free < needed:
        raise Unavailable(
            f"The disk of the state folder has {free // 1_000_000} MB left, a mesh needs "
            f"{needed // 1_000_000} MB.",
            reason="NO_SPACE",
            metadata={"free_bytes": str(free), "needed_bytes": str(needed)},
            hint="Make room, or put the state on another disk with --state DIR.",
        )


def require_sandbox(sites: Sequence[str], which: Which = shutil.which) -> None:
    """Refuse sites on a machine that cannot isolate their jobs; a hub alone needs no sandbox.

    Raises:
        Unavailable: SANDBOX_MISSING.
    """
    if not sites or which("bwrap") is not None:
        return
    raise Unavailable(
        f"bubblewrap (bwrap), the sandbox in which a site runs code, is not installed, and there are sites to "
        f"start: {', '.join(sites)}.",
        reason="SANDBOX_MISSING",
        metadata={"program": "bwrap", "sites": ",".join(sites)},
        hint="sudo apt-get install bubblewrap (dnf install bubblewrap elsewhere), then start again; a hub "
        "without sites starts on a state of its own: syftmesh up --state DIR",
    )


def choose_ports(options: MeshOptions, hub: Path) -> HubPlace:
    """Return where the hub is to listen.

    Raises:
        Unavailable: A port is taken (PORT_IN_USE, metadata ``port`` and ``role``).
    """
    picked = free_ports(2)
    http, grpc = options.http_port or picked[0], options.grpc_port or picked[1]
    if http == grpc:
        raise _in_use(grpc, "gRPC", "--grpc-port", "is the HTTP port already")
    for port, role, option in ((http, "HTTP", "--port"), (grpc, "gRPC", "--grpc-port")):
        if not is_free(port):
            raise _in_use(port, role, option, "is in use by another process")
    return HubPlace(hub, http, grpc)


def known_sites(state: Path) -> tuple[str, ...]:
    """Return the e-mails of the sites that were made in this state."""
    try:
        names = sorted(entry.name for entry in (state / SITES_FOLDER).iterdir() if entry.is_dir())
    except OSError:
        return ()
    return tuple(name for name in names if is_principal(name))


def _in_use(port: int, role: str, option: str, why: str) -> Unavailable:
    return Unavailable(
        f"Port {port} ({role}) {why}.",
        reason="PORT_IN_USE",
        metadata={"port": str(port), "role": role},
        hint=f"Choose another with {option} N; 0 takes a free one.",
    )


def _require_private(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise WrongState(
            "The state folder belongs to somebody else or is open to others; keys are kept in it.",
            reason="STATE_UNUSABLE",
            metadata={"mode": f"{stat.S_IMODE(found.st_mode):04o}"},
            hint=f"chmod 700 {shlex.quote(str(folder))}, or give another one with --state DIR.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WrongState(
            "The state folder cannot be written.",
            reason="STATE_UNUSABLE",
            hint="Give another one with --state DIR.",
        )


def _disk(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free
