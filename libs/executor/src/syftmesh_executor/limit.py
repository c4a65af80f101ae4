"""Which limits this machine can hold, and the ones every process carries itself."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from syftmesh_core.errors import Unavailable

from syftmesh_executor.cgroup import ControlGroup, GroupTree, find_tree
from syftmesh_executor.port import Limits

_INIT_PROCESSES = 1
"""bubblewrap's own process 1 counts into the group."""
_RLIMIT_FLOOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LimitPlan:
    """How memory and processes are bounded: by control groups in `tree`, else by rlimits of each process."""

    tree: GroupTree | None

    def group(self, run_id: str) -> ControlGroup | None:
        """Make the control group of a run where this machine has them."""
        return self.tree.create(run_id) if self.tree else None

    def apply(self, limits: Limits, pid: int, group: ControlGroup | None) -> None:
        """Put a process that has started nothing yet under the limits of a run.

        Raises:
            OSError: The kernel refuses one of them: the run must not start.
        """
        if group is not None:
            group.limit(
                memory_bytes=limits.memory_bytes,
                processes=limits.processes + _INIT_PROCESSES,
            )
            group.add(pid)
        for kind, value in process_limits(limits, grouped=group is not None).items():
            resource.prlimit(pid, kind, (value, value))


def process_limits(limits: Limits, *, grouped: bool) -> dict[int, int]:
    """Return the rlimits of a run, soft and hard alike; the last two only where no group holds them."""
    largest_file = max(limits.disk_bytes, limits.output_bytes) + _RLIMIT_FLOOR_BYTES
    chosen = {
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: largest_file,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 64 * 1024,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    if not grouped:
        chosen[resource.RLIMIT_AS] = limits.memory_bytes
        chosen[resource.RLIMIT_NPROC] = limits.processes + _INIT_PROCESSES
    return chosen


def plan_limits(tree: GroupTree | None = None) -> LimitPlan:
    """Choose how runs are bounded here.

    Args:
        tree: Where control groups are made; looked for when not given.

    Raises:
        Unavailable: SANDBOX_LIMITS_UNAVAILABLE: root without control groups; RLIMIT_NPROC does not bind
            root (setrlimit(2)), so a fork bomb would have no limit at all.
    """
    found = tree or find_tree()
    if found is None and os.geteuid() == 0:
        raise Unavailable(
            "this machine gives root no writable control groups for memory and pids, so a run could not be "
            "limited; mount them writable (Docker: --cgroupns private and a writable /sys/fs/cgroup) or "
            "start the runner as an ordinary user",
            reason="SANDBOX_LIMITS_UNAVAILABLE",
        )
    return LimitPlan(found)
