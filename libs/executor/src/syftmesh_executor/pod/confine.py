"""Steps that a process of the pod takes against itself, before it runs what its owner did not write."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Mapping
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION_BYTES = 8

_NOT_EVERYWHERE = frozenset({"MSGQUEUE", "RTPRIO"})
"""gVisor has neither real-time priorities nor a bound of its own on message queues: there memory bounds them."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """``struct sock_fprog`` (linux/filter.h)."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def hide_process() -> None:
    """Keep processes of the same user from reading or stopping this one (prctl(2), PR_SET_DUMPABLE)."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def apply_limits(limits: Mapping[str, int]) -> None:
    """Set rlimits, soft and hard, by their names without ``RLIMIT_``."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (OSError, ValueError) as error:
            if name in _NOT_EVERYWHERE:
                continue
            raise OSError(f"the limit {name} cannot be set: {error}") from error


def install_filter(program: bytes) -> None:
    """Put this process and all it starts under a system call filter (seccomp(2))."""
    buffer = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0))


def memory_kills() -> int | None:
    """Return how many processes of this container the kernel ended for memory; None where it does not tell."""
    for path, name in (
        ("/sys/fs/cgroup/memory.events", "oom_kill"),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
    ):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None


def memory_used_bytes() -> int:
    """Return what this container uses where the kernel is the pod's own (gVisor), which ends nothing for it.

    The sum over processes would count what they share as often as they do. Without the file it is 0: then the
    node's bound on the whole pod is the only one.
    """
    try:
        return int(Path("/sys/fs/cgroup/memory/memory.usage_in_bytes").read_text())
    except (OSError, ValueError):
        return 0


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
