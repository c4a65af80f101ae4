"""A control group per run: memory and processes bounded together, and what the kernel counted.

Version 1 hierarchies (kernel documentation, admin-guide/cgroup-v1) take the groups at their root, a place
that is the same after a restart, so that groups of a killed runner are found and removed. Version 2 (admin-
guide/cgroup-v2) takes the first place on the way from the root to our own group that may hold them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from syftmesh_core.errors import Unavailable

PREFIX = "syftmesh-"
CONTROLLERS = ("memory", "pids")
_REMOVE_TRIES = 50
_REMOVE_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What the kernel counted in a group: processes killed for memory, forks refused by the limit."""

    oom_kills: int
    refused_forks: int


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The group of one run: the same folder on version 2, one per controller on version 1."""

    memory: Path
    pids: Path

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder of the group, once."""
        return (self.memory,) if self.memory == self.pids else (self.memory, self.pids)

    def limit(self, *, memory_bytes: int, processes: int) -> None:
        """Set the limits; swap does not add to memory."""
        if (self.memory / "memory.limit_in_bytes").exists():
            _write(self.memory / "memory.limit_in_bytes", memory_bytes)
            _write_where_there(self.memory / "memory.memsw.limit_in_bytes", memory_bytes)
        else:
            _write(self.memory / "memory.max", memory_bytes)
            _write_where_there(self.memory / "memory.swap.max", 0)
        _write(self.pids / "pids.max", processes)

    def add(self, pid: int) -> None:
        """Move a process in; what it starts afterwards is in as well."""
        for folder in self.folders:
            _write(folder / "cgroup.procs", pid)

    def usage(self) -> GroupUsage:
        """Return what was counted until now."""
        legacy = self.memory / "memory.oom_control"
        memory = legacy if legacy.exists() else self.memory / "memory.events"
        return GroupUsage(_counter(memory, "oom_kill"), _counter(self.pids / "pids.events", "max"))

    def remove(self, sleep: Callable[[float], None] = time.sleep) -> bool:
        """Remove the group, waiting up to a second for its last process; whether it is gone."""
        for _ in range(_REMOVE_TRIES):
            if all(_remove_folder(folder) for folder in self.folders):
                return True
            sleep(_REMOVE_PAUSE_S)
        return False


@dataclass(frozen=True, slots=True)
class GroupTree:
    """Where groups may be made; `memory` and `pids` are the same folder on version 2."""

    memory: Path
    pids: Path
    owner_pid: int = field(default_factory=os.getpid)

    def create(self, run_id: str) -> ControlGroup:
        """Make the group of a run.

        Raises:
            Unavailable: SANDBOX_LIMITS_UNAVAILABLE: the kernel refuses the group.
        """
        name = f"{PREFIX}{self.owner_pid}-{run_id}"
        group = ControlGroup(self.memory / name, self.pids / name)
        try:
            for folder in group.folders:
                # A killed runner of the same number, as in a container, may have left one of this name.
                _remove_folder(folder)
                folder.mkdir()
        except OSError as error:
            group.remove()
            raise Unavailable(
                "the kernel refuses a control group for the run; check the runner's cgroup delegation",
                reason="SANDBOX_LIMITS_UNAVAILABLE",
            ) from error
        return group

    def sweep(self, alive: Callable[[int], bool] | None = None) -> int:
        """Remove empty groups of runners that are no longer there; how many folders went."""
        lives = alive or (lambda pid: Path(f"/proc/{pid}").exists())
        removed = 0
        for parent in dict.fromkeys((self.memory, self.pids)):
            for folder in parent.glob(f"{PREFIX}*-*"):
                owner = folder.name.removeprefix(PREFIX).partition("-")[0]
                if owner.isdigit() and not lives(int(owner)):
                    removed += _remove_folder(folder)
        return removed


def find_tree(proc: Path = Path("/proc/self")) -> GroupTree | None:
    """Return a place for groups that bound memory and processes and that we may write, or None."""
    mounts = list(_mounts(proc))
    legacy: dict[str, Path] = {}
    for kind, point, options in mounts:
        if kind == "cgroup":
            legacy.update({name: point for name in CONTROLLERS if name in options})
    if len(legacy) == len(CONTROLLERS) and all(_may_hold(place) for place in legacy.values()):
        return GroupTree(legacy["memory"], legacy["pids"])
    for kind, point, _ in mounts:
        if kind == "cgroup2":
            for place in _way_to_own_group(proc, point):
                if _delegates(place) and _may_hold(place):
                    return GroupTree(place, place)
    return None


def _mounts(proc: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    for line in (proc / "mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind.startswith("cgroup"):
            yield kind, Path(point), tuple(options.split(","))


def _way_to_own_group(proc: Path, point: Path) -> list[Path]:
    own = "/"
    for line in (proc / "cgroup").read_text().splitlines():
        if line.startswith("0::"):
            own = line[3:]
    place, way = point, [point]
    for part in Path(own).parts[1:]:
        place /= part
        way.append(place)
    return way


def _delegates(place: Path) -> bool:
    """Whether groups below get both controllers, after turning them on where that is allowed."""
    control = place / "cgroup.subtree_control"
    try:
        missing = [name for name in CONTROLLERS if name not in control.read_text().split()]
        if missing:
            control.write_text(" ".join(f"+{name}" for name in missing))
        return all(name in control.read_text().replace("+", "").split() for name in CONTROLLERS)
    except OSError:
        return False


def _may_hold(place: Path) -> bool:
    trial = place / f"{PREFIX}{os.getpid()}-trial-{time.monotonic_ns()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


def _write(path: Path, value: int) -> None:
    path.write_text(f"{value}\n")


def _write_where_there(path: Path, value: int) -> None:
    if path.exists():
        _write(path, value)


def _counter(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[0] == name)


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
