"""What goes into a pod: the order, then code and data, as frames."""

from __future__ import annotations

import base64
import hashlib
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import InvalidInput

from syftmesh_executor.limit import process_limits
from syftmesh_executor.mount import job_environment
from syftmesh_executor.pod.wire import BLOCK, Kind, pack, pack_json
from syftmesh_executor.port import RunSpec
from syftmesh_executor.seccomp import job_filter

RUN_NETWORK_S: Final = 0.03
PROBE_NETWORK_S: Final = 2.0
"""A probe waits long enough for any answer; a run looks whether the policy has reached its pod yet."""
_MACHINES: Final = ("x86_64", "aarch64")
_POD_PROCESSES: Final = 5
"""Launcher, the carrier's own and those that serve its calls: they are the same user and count with the job's."""
_LIMIT_NAMES: Final = ("NOFILE", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE", "RTPRIO", "NPROC")


def order_of(spec: RunSpec, host: Mapping[str, str], *, network_s: float = RUN_NETWORK_S) -> dict[str, Any]:
    """Return what the launcher needs to know.

    Args:
        spec: The run.
        host: Environment that the variables of the numeric libraries are taken from.
        network_s: How long the launcher tries at least whether anything can be reached.

    Raises:
        InvalidInput: RUN_SPEC_INVALID.
        LimitExceeded: PARAMETERS_TOO_LARGE.
    """
    limits = spec.limits
    environment = job_environment(
        spec,
        data_dir="/data",
        output_dir="/output",
        home="/tmp",  # noqa: S108 - inside the pod
        path="/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
        host=host,
    )
    # Of this side's descriptors; the launcher names its own.
    environment.pop("CHANNEL", None)
    numbers = process_limits(limits, grouped=True)
    numbers[resource.RLIMIT_NPROC] = limits.processes + _POD_PROCESSES
    return {
        "entrypoint": spec.entrypoint,
        "environment": environment,
        "channel": spec.channel is not None,
        "network_s": network_s,
        "wall_s": limits.wall_s,
        "memory_bytes": limits.memory_bytes,
        "processes": limits.processes,
        "disk_bytes": limits.disk_bytes,
        "output_bytes": limits.output_bytes,
        "log_bytes": limits.log_bytes,
        "rlimits": {name: numbers[getattr(resource, f"RLIMIT_{name}")] for name in _LIMIT_NAMES},
        "filters": {name: base64.b64encode(job_filter(name)).decode() for name in _MACHINES},
    }


def staging_frames(spec: RunSpec, order: Mapping[str, Any]) -> Iterator[bytes]:
    """Give the frames that stage a run.

    Raises:
        InvalidInput: RUN_SPEC_INVALID: code or data hold a link or a special file.
        OSError: They cannot be read.
    """
    yield pack_json(Kind.ORDER, order)
    yield from _tree_frames("code", spec.code_dir, "")
    several = len(spec.datasets) > 1
    for name, path in spec.datasets.items():
        prefix = f"{name}/" if several else ""
        if several:
            yield pack_json(Kind.FOLDER, {"root": "data", "path": name})
        source = path.resolve()
        if source.is_file():
            yield from _file_frames("data", source, f"{prefix}{path.name}")
        else:
            yield from _tree_frames("data", source, prefix)
    yield pack(Kind.GO)


def send_gathered(frames: Iterator[bytes], send: Callable[[bytes], None]) -> None:
    """Send frames, several small ones in one message."""
    waiting = bytearray()
    for frame in frames:
        waiting += frame
        if len(waiting) >= BLOCK:
            send(bytes(waiting))
            waiting.clear()
    if waiting:
        send(bytes(waiting))


def _tree_frames(root: str, folder: Path, prefix: str) -> Iterator[bytes]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{prefix}{entry.name}"
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise InvalidInput(
                f"the {root} of the run holds a link or a special file; replace it by a regular file",
                reason="RUN_SPEC_INVALID",
                metadata={"field": root},
            )
        if entry.is_dir():
            yield pack_json(Kind.FOLDER, {"root": root, "path": path})
            yield from _tree_frames(root, Path(entry.path), f"{path}/")
        else:
            yield from _file_frames(root, Path(entry.path), path)


def _file_frames(root: str, source: Path, path: str) -> Iterator[bytes]:
    yield pack_json(Kind.FILE, {"root": root, "path": path})
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            yield pack(Kind.DATA, block)
    yield pack(Kind.FILE_END, digest.hexdigest().encode())
