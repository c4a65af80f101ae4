"""What a job sees: the plan of its file system, environment and namespaces as arguments of bubblewrap.

Planning is pure but for asking which of the host's system paths exist. The arguments reach bubblewrap
through a file descriptor (``--args``), because a command line is readable by every user of the host and by
the job itself in ``/proc/1/cmdline``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from syftmesh_core.errors import InvalidInput, LimitExceeded

from syftmesh_executor.port import MIB, RunSpec
from syftmesh_executor.runtime import SYSTEM_FILES, SYSTEM_FOLDERS, Runtime

JOB_ID = 65534
"""User and group inside: nobody."""
MAX_PARAMETERS_BYTES = 64 * 1024
MAX_SHM_BYTES = 64 * MIB
PAGE = 4096

NAMESPACES = ("user", "ipc", "pid", "net", "uts", "cgroup")
READ_ONLY_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "driver", "acpi", "scsi")
"""A job started by root is root to these files although it has no capability: only the mount holds it off."""
HIDDEN_PROC = (
    "kcore",
    "keys",
    "key-users",
    "kallsyms",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "config.gz",
)

NUMERIC_LIBRARY_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Carried through when the host sets them: older OpenBLAS builds misdetect new processors and crash or
compute wrongly unless the kernel family and the size of the second-level cache are given."""

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_spec(spec: RunSpec) -> None:
    """Refuse a spec that cannot run.

    Raises:
        InvalidInput: RUN_SPEC_INVALID, with the part in ``metadata["field"]``.
        LimitExceeded: PARAMETERS_TOO_LARGE.
    """
    if not _RUN_ID.fullmatch(spec.run_id):
        raise _invalid(
            "run_id", "the run id has characters other than letters, digits, - and _, or over 64 of them"
        )
    entry = PurePosixPath(spec.entrypoint)
    if not spec.entrypoint or "\0" in spec.entrypoint or entry.is_absolute() or ".." in entry.parts:
        raise _invalid("entrypoint", "the entrypoint is not a path inside the code")
    if not (spec.code_dir / entry).is_file():
        raise _invalid(
            "entrypoint", f"the code holds no file {spec.entrypoint!r}; name one of its Python files"
        )
    for name, path in spec.datasets.items():
        if not _DATASET_NAME.fullmatch(name) or not path.exists():
            raise _invalid("datasets", f"the data set {name!r} has no valid name or no data on this site")
    if spec.output_dir.is_dir() and any(spec.output_dir.iterdir()):
        raise _invalid("output_dir", "the folder for the output is not empty; give each run its own")
    limits = spec.limits
    if min(limits.wall_s, limits.memory_bytes, limits.processes, limits.open_files, limits.log_bytes) <= 0:
        raise _invalid("limits", "every limit must be above zero")
    if min(limits.disk_bytes, limits.output_bytes) < PAGE:
        raise _invalid("limits", f"disk_bytes and output_bytes must be at least {PAGE}")
    parameters_text(spec.parameters)


def parameters_text(parameters: Mapping[str, object]) -> str:
    """Return the JSON text of ``PARAMETERS``.

    Raises:
        InvalidInput: RUN_SPEC_INVALID: not JSON.
        LimitExceeded: PARAMETERS_TOO_LARGE.
    """
    try:
        text = json.dumps(dict(parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _invalid("parameters", "the parameters are not JSON values") from error
    if len(text) > MAX_PARAMETERS_BYTES:
        raise LimitExceeded(
            f"the parameters are {len(text)} bytes of JSON; at most {MAX_PARAMETERS_BYTES} fit, "
            "put more into the code folder",
            reason="PARAMETERS_TOO_LARGE",
            metadata={"size_bytes": str(len(text)), "limit_bytes": str(MAX_PARAMETERS_BYTES)},
        )
    return text


def job_environment(
    spec: RunSpec, *, data_dir: str, output_dir: str, home: str, path: str, host: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of a job: of the host's only `NUMERIC_LIBRARY_VARIABLES` are in it."""
    environment = {
        "DATA_DIR": data_dir,
        "OUTPUT_DIR": output_dir,
        "PARAMETERS": parameters_text(spec.parameters),
        "HOME": home,
        "PATH": path,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if spec.channel is not None:
        environment["CHANNEL"] = ",".join(map(str, spec.channel_fds))
    environment.update({name: host[name] for name in NUMERIC_LIBRARY_VARIABLES if name in host})
    return environment


def sandbox_arguments(spec: RunSpec, runtime: Runtime, environment: Mapping[str, str]) -> list[str]:
    """Return bubblewrap's arguments for a run, without the descriptors of the launch and the command."""
    arguments = [item for name in NAMESPACES for item in [f"--unshare-{name}"]]
    arguments += ["--disable-userns", "--uid", str(JOB_ID), "--gid", str(JOB_ID), "--cap-drop", "ALL"]
    arguments += ["--new-session", "--die-with-parent", "--hostname", "job", "--clearenv"]
    arguments += _system_mounts() + _kernel_mounts(spec) + _job_mounts(spec, runtime)
    # Last, so that the mounts above found their places; both are otherwise writable and unsized.
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/code"]
    for name, value in environment.items():
        arguments += ["--setenv", name, value]
    return arguments


def _system_mounts() -> list[str]:
    arguments: list[str] = []
    for name in SYSTEM_FOLDERS:
        if os.path.islink(name):  # noqa: PTH114 - on the path of every start
            arguments += ["--symlink", os.readlink(name), name]  # noqa: PTH115
        else:
            arguments += ["--ro-bind-try", name, name]
    for name in SYSTEM_FILES:
        arguments += ["--ro-bind-try", name, name]
    return arguments


def _kernel_mounts(spec: RunSpec) -> list[str]:
    arguments = ["--proc", "/proc", "--dev", "/dev"]
    for name in READ_ONLY_PROC:
        arguments += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for name in HIDDEN_PROC:
        if os.path.exists(f"/proc/{name}"):  # noqa: PTH110 - on the path of every start
            arguments += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    shared = min(spec.limits.disk_bytes, MAX_SHM_BYTES)
    return [*arguments, "--size", str(shared), "--tmpfs", "/dev/shm"]  # noqa: S108 - inside the sandbox


def _job_mounts(spec: RunSpec, runtime: Runtime) -> list[str]:
    # One page more than allowed, so that a full output means more than allowed was written.
    output_bytes = spec.limits.output_bytes + PAGE
    arguments = ["--size", str(spec.limits.disk_bytes), "--tmpfs", "/tmp"]  # noqa: S108 - inside the sandbox
    arguments += ["--size", str(output_bytes), "--tmpfs", "/output"]
    # After /tmp, which would hide a runtime that lies below the host's /tmp.
    for folder in runtime.bind:
        arguments += ["--ro-bind", str(folder), str(folder)]
    arguments += ["--ro-bind", str(spec.code_dir.absolute()), "/code"]
    if not spec.datasets:
        return [*arguments, "--dir", "/data"]
    for name, path in spec.datasets.items():
        inside = f"/data/{name}" if len(spec.datasets) > 1 else "/data"
        if path.is_file():
            inside = f"/data/{path.name}" if len(spec.datasets) == 1 else f"{inside}/{path.name}"
        arguments += ["--ro-bind", str(path.resolve()), inside]
    return arguments


def _invalid(field: str, message: str) -> InvalidInput:
    return InvalidInput(message, reason="RUN_SPEC_INVALID", metadata={"field": field})
