"""What a running job uses that no kernel limit bounds: looked at while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from syftmesh_executor.port import EndReason, Limits

MAX_INODES = 50_000
"""Files in one scratch folder: their bookkeeping takes kernel memory that no size counts."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


def excess(limits: Limits, init_pid: int, folders: tuple[int, ...], *, grouped: bool) -> EndReason | None:
    """Return the limit a running job is past, or None.

    Args:
        limits: What it may use.
        init_pid: The root of its process tree.
        folders: Descriptors of its writable folders.
        grouped: Whether a control group bounds its memory; if not, the tree's memory is added up here.
    """
    for folder in folders:
        status = os.fstatvfs(folder)
        if status.f_files - status.f_ffree > MAX_INODES:
            return EndReason.DISK_LIMIT
    if not grouped and _memory_bytes(init_pid, limits.memory_bytes) > limits.memory_bytes:
        return EndReason.OUT_OF_MEMORY
    return None


def _memory_bytes(root_pid: int, enough_bytes: int) -> int:
    """Return the memory of a tree: the cheap sum while that is small, else shared pages counted once."""
    pids = list(_tree(root_pid))
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= enough_bytes else sum(_proportional(pid) for pid in pids)


def _tree(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        yield current
        try:
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
