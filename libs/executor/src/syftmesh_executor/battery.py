"""The escape battery: runs INSIDE a sandbox, tries to get out, prints one JSON object of what it saw.

Standard library only: the file is given to the sandbox as the code of a run. It mounts, forks and fills, so
it refuses to run anywhere else.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

NOT_SANDBOXED_EXIT = 96
_SYSCALLS = {
    "x86_64": {"mount": 165, "unshare": 272, "clone": 56, "io_uring_setup": 425, "keyctl": 250, "ptrace": 101,
               "bpf": 321, "userfaultfd": 323, "perf_event_open": 298, "clone3": 435, "setns": 308},
    "aarch64": {"mount": 40, "unshare": 97, "clone": 220, "io_uring_setup": 425, "keyctl": 219, "ptrace": 117,
                "bpf": 280, "userfaultfd": 282, "perf_event_open": 241, "clone3": 435, "setns": 268},
}  # fmt: skip
_SECRET_PLACES = (
    "/etc/shadow", "/etc/hostname", "/home", "/root/.ssh", "/var/run/secrets", "/run", "/sys", "/boot",
    "/proc/kcore", "/proc/keys", "/proc/1/root/etc/shadow", "/dev/mem", "/dev/kmsg", "/dev/fuse",
)  # fmt: skip
_NOBODY, _POD_USERS = 65534, range(20_000, 60_000)
"""The user of a sandbox, and those of pods that share the node's users."""
_NO_PID = 0x3FFF_FFFF
"""Attaching to a real process would stop it where nothing forbids that."""
_CLONE_NEWUSER = 0x1000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def _errno_of(action: Callable[[], object]) -> str:
    """Return OPEN when the action works, else the name of its error."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "OPEN"


def _syscall(name: str, *arguments: object) -> str:
    number = _SYSCALLS[platform.machine()][name]
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(number), *[_word(argument) for argument in arguments])
    if result == 0 and name == "clone":
        os._exit(0)
    return errno.errorcode.get(ctypes.get_errno(), "UNKNOWN") if result == -1 else "OPEN"


def _word(argument: object) -> ctypes.c_long | ctypes.c_char_p:
    return ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_long(int(str(argument)))


def _connect(family: int, address: object) -> str:
    def attempt() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            client.connect(address)  # type: ignore[arg-type]

    return _errno_of(attempt)


def _network(parameters: dict[str, object]) -> dict[str, str]:
    return {
        "loopback": _connect(socket.AF_INET, ("127.0.0.1", parameters["port"])),
        "abstract_socket": _connect(socket.AF_UNIX, "\0" + str(parameters["abstract"])),
        "metadata_address": _connect(socket.AF_INET, ("169.254.169.254", 80)),
        "internet": _connect(socket.AF_INET, ("1.1.1.1", 443)),
        "ipv6": _errno_of(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM)),
        "netlink": _errno_of(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "raw_socket": _errno_of(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        "packet_socket": _errno_of(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "vsock": _errno_of(lambda: socket.socket(40, socket.SOCK_STREAM)),
    }


def _interfaces() -> list[str]:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return sorted(line.split(":")[0].strip() for line in lines)


def _writes(parameters: dict[str, object]) -> dict[str, str]:
    data, runtime = os.environ["DATA_DIR"], os.path.dirname(sys.executable)  # noqa: PTH120
    folders = {
        "data": data,
        "code": "/code",
        "system": "/usr/bin",
        "root": "/",
        "device": "/dev",
        "python": runtime,
    }
    results = {
        name: _errno_of(partial(os.open, f"{folder}/written", os.O_CREAT | os.O_WRONLY))
        for name, folder in folders.items()
    }
    canary = f"{data}/{parameters['canary']}"
    results["data_file"] = _errno_of(lambda: os.open(canary, os.O_WRONLY))
    for name in ("sys/kernel/core_pattern", "sysrq-trigger", "sys/user/max_user_namespaces"):
        results[f"proc_{name.rpartition('/')[2]}"] = _errno_of(partial(os.open, f"/proc/{name}", os.O_WRONLY))
    return results


def _reads(parameters: dict[str, object]) -> dict[str, str]:
    paths = [*_SECRET_PLACES, *(str(path) for path in parameters["host_paths"])]  # type: ignore[attr-defined]

    def attempt(path: str) -> None:
        if os.path.isdir(path):  # noqa: PTH112
            if not os.listdir(path):  # noqa: PTH208
                raise FileNotFoundError(errno.ENOENT, path)
            return
        with Path(path).open("rb") as file:
            if not file.read(1):
                raise FileNotFoundError(errno.ENOENT, path)

    return {path: _errno_of(partial(attempt, path)) for path in paths}


def _environment_names() -> list[str]:
    """Return the names of every variable in every process whose environment can be read."""
    names = set(os.environ)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                block = (entry / "environ").read_bytes()
            except OSError:
                continue
            names |= {
                item.partition(b"=")[0].decode("utf-8", "replace") for item in block.split(b"\0") if item
            }
    return sorted(names)


def _kernel() -> dict[str, str]:
    return {
        "mount": _syscall("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "unshare_user": _syscall("unshare", _CLONE_NEWUSER),
        "clone_user": _syscall("clone", _CLONE_NEWUSER | 17, 0, 0, 0, 0),
        "clone3": _syscall("clone3", 0, 0),
        "setns": _syscall("setns", 0, 0),
        "io_uring": _syscall("io_uring_setup", 1, 0),
        "keyctl": _syscall("keyctl", 0, -3, 1),
        "ptrace": _syscall("ptrace", 16, _NO_PID, 0, 0),
        "bpf": _syscall("bpf", 0, 0, 0),
        "userfaultfd": _syscall("userfaultfd", 1),
        "perf_event": _syscall("perf_event_open", 0, 0, -1, -1, 0),
        "device_node": _errno_of(lambda: os.mknod("/tmp/device", 0o060600, os.makedev(8, 0))),  # noqa: S108
        "foreign_abi": _foreign_abi(),
    }


def _foreign_abi() -> str:
    """Try the x32 numbers (x86_64 only): getpid of that interface."""
    if platform.machine() != "x86_64":
        return "ENOSYS"
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(0x4000_0000 + 39))
    return "OPEN" if result > 0 else errno.errorcode.get(ctypes.get_errno(), "UNKNOWN")


def _status() -> dict[str, str]:
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid")
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    found = {name: " ".join(value.split()) for name, _, value in lines if name in wanted}
    found["uid_map"] = " ".join(Path("/proc/self/uid_map").read_text().split())
    bound = Path("/proc/sys/user/max_user_namespaces")
    found["max_user_namespaces"] = bound.read_text().strip() if bound.exists() else "absent"
    found["fds"] = ",".join(sorted(os.listdir("/proc/self/fd"), key=int)[:-1])  # noqa: PTH208 - last is the listing
    return found


def _memory(limit_bytes: int) -> str:
    """Let a child use twice the memory; HELD when it does not get it."""
    pid = os.fork()
    if pid == 0:
        try:
            block = mmap.mmap(-1, 2 * limit_bytes)
            for offset in range(0, 2 * limit_bytes, mmap.PAGESIZE):
                block[offset] = 1
            # A watcher that adds up memory needs a moment to see it.
            time.sleep(1.0)
        except (OSError, MemoryError, ValueError):
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return "HELD" if status != 0 else "OPEN"


def _fill(folder: str, limit_bytes: int) -> str:
    path = Path(folder) / "filler"
    written = 0
    try:
        with path.open("wb", buffering=0) as file:
            while written <= 4 * limit_bytes:
                written += file.write(bytes(1 << 16))
    except OSError as error:
        return "HELD" if written <= limit_bytes else f"{error.errno}: {written}"
    finally:
        path.unlink(missing_ok=True)
    return "OPEN"


def _fork(limit: int) -> str:
    """Start up to four times the allowed processes; HELD when the kernel refuses in time."""
    read, write = os.pipe()
    children: list[int] = []
    result = "OPEN"
    for _ in range(4 * limit):
        try:
            pid = os.fork()
        except OSError:
            result = "HELD" if len(children) <= limit else f"{len(children)} processes"
            break
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        children.append(pid)
    os.close(write)
    for pid in children:
        os.waitpid(pid, 0)
    return result


def _refuse_outside() -> None:
    status = _status()
    ours = os.getuid() == _NOBODY or os.getuid() in _POD_USERS
    if not ours or socket.gethostname() != "job" or status["NoNewPrivs"] != "1":
        sys.stderr.write("this battery attacks the machine it runs on; it runs inside a sandbox only\n")
        sys.exit(NOT_SANDBOXED_EXIT)


def main() -> None:
    """Try everything and print the observations."""
    _refuse_outside()
    parameters = json.loads(os.environ["PARAMETERS"])
    canary = Path(os.environ["DATA_DIR"]) / parameters["canary"]
    seen = {
        # First: an attempt that works leaves its descriptor open.
        "status": _status(),
        "canary": canary.read_text(),
        "network": _network(parameters),
        "interfaces": _interfaces(),
        "writes": _writes(parameters),
        "reads": _reads(parameters),
        "environment": _environment_names(),
        "command_line": Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace"),
        "kernel": _kernel(),
        "setuid": _errno_of(lambda: os.setuid(0)),
        "limits": {
            # Where the kernel ends everything for one process's memory (cgroup v2 in a pod) a run of its own tries it.
            "memory": _memory(parameters["memory_bytes"]) if parameters["memory_bytes"] else "ELSEWHERE",
            "scratch": _fill("/tmp", parameters["disk_bytes"]),  # noqa: S108 - inside the sandbox
            "shared_memory": _fill("/dev/shm", parameters["disk_bytes"]),  # noqa: S108
            "output": _fill("/output", parameters["output_bytes"] + 4096),
            "processes": _fork(parameters["processes"]),
        },
    }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
