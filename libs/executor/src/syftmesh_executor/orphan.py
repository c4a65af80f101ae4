"""Ending what a killed runner may have left at the door of a sandbox.

bubblewrap's process 1 asks the kernel to die with its parent only after its parent has written the user
map. When both the runner and the outer process are killed in between, process 1 waits for that map for
ever: no code of a job ran in it or ever will, but it is a process. The next runner finds it by the mark
in its command line.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

_MARK = "syftmesh-job-"


def mark_of(runner_pid: int) -> str:
    """Return the mark that sandboxes of a runner carry in their command line."""
    return f"{_MARK}{runner_pid}"


def end_orphans(alive: Callable[[int], bool] | None = None, proc: Path = Path("/proc")) -> int:
    """End our user's sandboxes whose runner is gone; how many processes there were."""
    lives = alive or (lambda pid: (proc / str(pid)).exists())
    ended = 0
    for entry in proc.iterdir():
        # A process may end while we look at it; that is what we want.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid():
                runner = _runner_of((entry / "cmdline").read_bytes())
                if runner is not None and not lives(runner):
                    ended += _end(int(entry.name), runner)
    return ended


def _runner_of(command_line: bytes) -> int | None:
    words = command_line.decode("utf-8", "replace").split("\0")
    if len(words) < 8 or not words[0].endswith("bwrap") or words[1] != "--args":
        return None
    text = words[7].removeprefix(_MARK)
    return int(text) if words[7].startswith(_MARK) and text.isdigit() else None


def _end(pid: int, runner: int) -> int:
    fd = os.pidfd_open(pid)
    try:
        # Read again: the number may have gone to another process before the descriptor held it.
        if _runner_of(Path(f"/proc/{pid}/cmdline").read_bytes()) != runner:
            return 0
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
    return 1
