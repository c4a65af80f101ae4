"""The isolation probe: runs the escape battery in the very sandbox jobs get, and compares.

Expectations are stated as what must be seen; anything else, also a missing observation, fails the check.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syftmesh_executor import battery
from syftmesh_executor.mount import NUMERIC_LIBRARY_VARIABLES
from syftmesh_executor.port import KIB, MIB, Check, EndReason, Limits, ProbeReport, RunOutcome, RunSpec

PROBE_LIMITS = Limits(
    wall_s=60.0,
    memory_bytes=192 * MIB,
    processes=32,
    disk_bytes=8 * MIB,
    output_bytes=MIB,
    open_files=256,
    log_bytes=256 * KIB,
)
ALLOWED_VARIABLES = frozenset(
    {
        "DATA_DIR",
        "OUTPUT_DIR",
        "PARAMETERS",
        "HOME",
        "PATH",
        "LANG",
        "PYTHONDONTWRITEBYTECODE",
        "OPENBLAS_NUM_THREADS",
    }
    # LC_CTYPE is set by Python itself, PWD by bubblewrap for its own process only.
    | {"LC_CTYPE", "PWD", *NUMERIC_LIBRARY_VARIABLES}
)
_NO_CAPABILITY = "0" * 16
_REFUSED = frozenset({"EPERM", "EACCES", "EROFS", "ENOENT", "ENOTDIR", "ENXIO", "ELOOP"})
_FILTERED = frozenset({"EPERM", "ENOSYS"})
_UNREACHED = frozenset({"EAFNOSUPPORT", "ECONNREFUSED", "ENETUNREACH", "EPERM", "EACCES"})

Run = Callable[[RunSpec], Awaitable[RunOutcome]]


@dataclass(frozen=True, slots=True)
class _Bait:
    """What a broken sandbox could reach: live listeners of the host and files of its user."""

    port: int
    abstract: str
    private_file: Path


async def probe_isolation(run: Run) -> ProbeReport:
    """Run the battery by `run` and return the comparison.

    Args:
        run: The executor's own way of running a spec.
    """
    canary = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="syftmesh-probe-") as text:
        folder = Path(text)
        with _bait(folder) as bait:
            spec = await asyncio.to_thread(_prepare, folder, bait, canary)
            outcome = await run(spec)
    checks = battery_checks(outcome, lambda report: _compare(report, canary))
    return ProbeReport(passed=all(check.passed for check in checks), checks=checks)


def battery_checks(
    outcome: RunOutcome, compare: Callable[[dict[str, Any]], Iterable[Check]]
) -> tuple[Check, ...]:
    """Return what `compare` makes of the battery's report, or the one failed check where there is none to read."""
    if outcome.reason is not EndReason.OK:
        said = outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        detail = outcome.detail or f"the battery ended with {outcome.reason}: {said}"
        return (Check("battery", passed=False, detail=detail),)
    try:
        return tuple(compare(json.loads(outcome.stdout)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"the battery's report is not readable ({type(error).__name__})"
        return (Check("battery", passed=False, detail=detail),)


def _prepare(folder: Path, bait: _Bait, canary: str) -> RunSpec:
    code, data = folder / "code", folder / "data"
    code.mkdir()
    data.mkdir()
    shutil.copyfile(battery.__file__, code / "battery.py")
    canary_file = data / "canary.txt"
    canary_file.write_text(canary)
    canary_file.chmod(0o600)
    limits = PROBE_LIMITS
    return RunSpec(
        run_id=f"probe-{secrets.token_hex(4)}",
        code_dir=code,
        entrypoint="battery.py",
        datasets={"canary": data},
        output_dir=folder / "output",
        parameters={
            "canary": canary_file.name,
            "port": bait.port,
            "abstract": bait.abstract,
            "host_paths": [str(bait.private_file), str(Path.home() / ".ssh"), str(Path.home() / ".bashrc")],
            "memory_bytes": limits.memory_bytes,
            "disk_bytes": limits.disk_bytes,
            "output_bytes": limits.output_bytes,
            "processes": limits.processes,
        },
        limits=limits,
    )


@contextmanager
def _bait(folder: Path) -> Iterator[_Bait]:
    private_file = folder / "private.txt"
    private_file.write_text("not for jobs")
    abstract = f"syftmesh-probe-{secrets.token_hex(8)}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local,
    ):
        local.bind("\0" + abstract)
        local.listen()
        yield _Bait(tcp.getsockname()[1], abstract, private_file)


def _compare(seen: Mapping[str, Mapping[str, str]], canary: str) -> Iterator[Check]:
    yield Check("data_readable", passed=str(seen["canary"]) == canary)
    for name in _NETWORK:
        yield _one_of(f"network_{name}", seen["network"][name], _UNREACHED)
    yield _equal("interfaces", list(seen["interfaces"]), ["lo"])
    for group, least, expected in (
        ("writes", _WRITES, _REFUSED),
        ("reads", _READS, _REFUSED),
        ("kernel", _KERNEL, _FILTERED),
    ):
        for name in sorted({*seen[group], *least}):
            yield _one_of(f"{group}_{name.strip('/').replace('/', '_')}", seen[group][name], expected)
    stray = sorted(set(seen["environment"]) - ALLOWED_VARIABLES)
    yield Check("environment", passed=not stray, detail=f"visible: {', '.join(stray)}" if stray else "")
    hidden = "--ro-bind" not in str(seen["command_line"])
    yield Check("command_line", passed=hidden, detail="" if hidden else "process 1 shows host paths")
    status = seen["status"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        yield _equal(name, status[name], _NO_CAPABILITY)
    for name, value in _STATUS.items():
        yield _equal(name, status[name], value)
    # Not EPERM: user 0 does not exist in the job's namespace, so there is nothing to become.
    yield _equal("setuid", seen["setuid"], "EINVAL")
    for name in ("memory", "scratch", "shared_memory", "output", "processes"):
        yield _equal(f"limit_{name}", seen["limits"][name], "HELD")


_NETWORK = (
    "loopback", "abstract_socket", "metadata_address", "internet", "ipv6", "netlink", "raw_socket",
    "packet_socket", "vsock",
)  # fmt: skip
_WRITES = ("data", "data_file", "code", "system", "root", "device", "python", "proc_core_pattern")
_READS = ("/etc/shadow", "/home", "/var/run/secrets", "/proc/kcore", "/dev/mem")
_KERNEL = (
    "mount", "unshare_user", "clone_user", "clone3", "setns", "io_uring", "keyctl", "ptrace", "bpf",
    "userfaultfd", "perf_event", "device_node", "foreign_abi",
)  # fmt: skip
_STATUS = {
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "Uid": "65534 65534 65534 65534",
    "Gid": "65534 65534 65534 65534",
    "fds": "0,1,2",
}


def _one_of(name: str, value: str, expected: frozenset[str]) -> Check:
    return Check(name, passed=value in expected, detail="" if value in expected else f"saw {value}")


def _equal(name: str, value: object, expected: object) -> Check:
    return Check(name, passed=value == expected, detail="" if value == expected else f"saw {value}")
