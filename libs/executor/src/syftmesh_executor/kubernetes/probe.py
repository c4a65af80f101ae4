"""The isolation probe of a cluster: runs the escape battery in the very pods that jobs get, and compares."""

from __future__ import annotations

import asyncio
import errno
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import Unavailable

from syftmesh_executor import battery
from syftmesh_executor.kubernetes.setting import ClusterSettings
from syftmesh_executor.port import MIB, Check, EndReason, ProbeReport, RunOutcome, RunSpec
from syftmesh_executor.probe import ALLOWED_VARIABLES, PROBE_LIMITS, battery_checks

_NO_CAPABILITY: Final = "0" * 16
_REFUSED: Final = frozenset({"EPERM", "EACCES", "EROFS", "ENOENT", "ENOTDIR", "ENXIO", "ELOOP"})
_FILTERED: Final = frozenset({"EPERM", "ENOSYS"})
_UNREACHED: Final = frozenset({"EAFNOSUPPORT", "ECONNREFUSED", "ENETUNREACH", "EPERM", "EACCES"})
_NETWORK: Final = (
    "loopback", "abstract_socket", "metadata_address", "internet", "ipv6", "netlink", "raw_socket",
    "packet_socket", "vsock",
)  # fmt: skip
_WRITES: Final = ("data", "data_file", "code", "system", "root", "python", "proc_core_pattern")
_HARMLESS: Final = frozenset({"/etc/hostname", "/run", "/sys"})
"""There in every container: the pod's own name, empty folders, and the kernel's read-only view of itself."""
_KERNEL: Final = (
    "mount", "unshare_user", "clone_user", "clone3", "setns", "io_uring", "keyctl", "ptrace", "bpf",
    "userfaultfd", "perf_event", "device_node",
)  # fmt: skip
_FILE_TOO_LARGE: Final = f"{errno.EFBIG}:"
_HOG: Final = (
    "import mmap, time\n"
    "block = mmap.mmap(-1, {size})\n"
    "for offset in range(0, {size}, 4096): block[offset] = 1\n"
    "time.sleep(2)\n"
)
_PROBLEM_NAMES: Final = {
    "runtime class": "runtime_class",
    "user namespace": "user_namespace",
    "pod security": "pod_security",
    "image": "image",
}

Run = Callable[[RunSpec], Awaitable[tuple[RunOutcome, str]]]


async def probe_cluster(settings: ClusterSettings, run: Run) -> tuple[ProbeReport, str]:
    """Run the battery by `run`; return the comparison and the digest of the image that ran, hex.

    Args:
        settings: What the executor is told.
        run: The executor's own way of running a spec, which also gives the image's digest.

    Raises:
        Unavailable: The cluster does not do what is asked of it.
    """
    canary = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="syftmesh-probe-") as text:
        folder = Path(text)
        spec = await asyncio.to_thread(_prepare, folder, canary)
        try:
            outcome, image_id = await run(spec)
        except Unavailable as error:
            if error.reason != "JOB_NOT_STARTED":
                raise
            problem = error.metadata["problem"]
            name = _PROBLEM_NAMES.get(problem.partition(":")[0], "start")
            return _failed(Check(name, passed=False, detail=problem)), ""
        checks = _checks(outcome, canary, settings)
        if all(check.passed for check in checks):
            checks = (*checks, await _memory(folder, run))
    return ProbeReport(passed=all(check.passed for check in checks), checks=checks), image_id


def _checks(outcome: RunOutcome, canary: str, settings: ClusterSettings) -> tuple[Check, ...]:
    if outcome.reason is EndReason.ISOLATION_FAILED:
        return (Check("network_policy", passed=False, detail=outcome.detail),)
    return battery_checks(outcome, lambda report: _compare(report, canary, settings))


def _failed(check: Check) -> ProbeReport:
    return ProbeReport(passed=False, checks=(check,))


def _prepare(folder: Path, canary: str) -> RunSpec:
    code, data = folder / "code", folder / "data"
    code.mkdir()
    data.mkdir()
    shutil.copyfile(battery.__file__, code / "battery.py")
    (data / "canary.txt").write_text(canary)
    limits = PROBE_LIMITS
    return RunSpec(
        run_id=f"probe-{secrets.token_hex(4)}",
        code_dir=code,
        entrypoint="battery.py",
        datasets={"canary": data},
        output_dir=folder / "output",
        parameters={
            "canary": "canary.txt",
            "port": 9,
            "abstract": f"syftmesh-probe-{secrets.token_hex(8)}",
            "host_paths": ["/var/lib/kubelet", "/host", "/control/order.json.d"],
            "memory_bytes": 0,
            "disk_bytes": limits.disk_bytes,
            "output_bytes": limits.output_bytes,
            "processes": limits.processes,
        },
        limits=limits,
    )


async def _memory(folder: Path, run: Run) -> Check:
    """Use more memory than a run may, in a run of its own: where the kernel groups them all processes end."""
    code = folder / "hog"
    code.mkdir()
    (code / "hog.py").write_text(_HOG.format(size=PROBE_LIMITS.memory_bytes + 256 * MIB))
    spec = RunSpec(
        f"probe-{secrets.token_hex(4)}", code, "hog.py", {}, folder / "hog-output", limits=PROBE_LIMITS
    )
    outcome, _ = await run(spec)
    held = outcome.reason is EndReason.OUT_OF_MEMORY
    return Check("limit_memory", passed=held, detail="" if held else f"ended with {outcome.reason}")


def _compare(
    seen: Mapping[str, Mapping[str, Any]], canary: str, settings: ClusterSettings
) -> Iterator[Check]:
    # The launcher starts nothing while anything of the cluster answers: that it ran is the observation.
    yield Check("network_policy", passed=True)
    yield Check("data_readable", passed=str(seen["canary"]) == canary)
    for name in _NETWORK:
        yield _one_of(f"network_{name}", seen["network"][name], _UNREACHED)
    reads = {name: value for name, value in seen["reads"].items() if name not in _HARMLESS}
    for group, found, least, expected in (
        ("writes", seen["writes"], _WRITES, _REFUSED),
        ("reads", reads, ("/etc/shadow", "/home", "/var/run/secrets", "/dev/mem"), _REFUSED),
        ("kernel", seen["kernel"], _KERNEL, _FILTERED),
    ):
        for name in sorted({*found, *least}):
            yield _one_of(f"{group}_{name.strip('/').replace('/', '_')}", found[name], expected)
    stray = sorted(set(seen["environment"]) - ALLOWED_VARIABLES)
    yield Check("environment", passed=not stray, detail=f"visible: {', '.join(stray)}" if stray else "")
    yield from _identity(seen["status"], settings)
    yield _one_of("setuid", str(seen["setuid"]), frozenset({"EPERM", "EINVAL"}))
    for name in ("scratch", "output", "processes"):
        yield _equal(f"limit_{name}", seen["limits"][name], "HELD")
    shared = seen["limits"]["shared_memory"]
    # gVisor brings a folder of its own, where the bound on a file holds one and memory holds all.
    yield Check(
        "limit_shared_memory", passed=shared == "HELD" or shared.startswith(_FILE_TOO_LARGE), detail=shared
    )


def _identity(status: Mapping[str, str], settings: ClusterSettings) -> Iterator[Check]:
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        yield _equal(name, status[name], _NO_CAPABILITY)
    yield _equal("NoNewPrivs", status["NoNewPrivs"], "1")
    yield _equal("Seccomp", status["Seccomp"], "2")
    yield _equal("fds", status["fds"], "0,1,2")
    user = status["Uid"].split()
    yield Check("user", passed=len(set(user)) == 1 and user[0] != "0", detail=f"saw {status['Uid']}")
    if settings.host_users is False:
        inside, outside = status["uid_map"].split()[:2]
        yield Check("user_namespace", passed=inside != outside, detail=f"saw {status['uid_map']}")


def _one_of(name: str, value: str, expected: frozenset[str]) -> Check:
    return Check(name, passed=value in expected, detail="" if value in expected else f"saw {value}")


def _equal(name: str, value: object, expected: object) -> Check:
    return Check(name, passed=value == expected, detail="" if value == expected else f"saw {value}")
