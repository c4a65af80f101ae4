"""Why a run ended, from what the kernel and the job left behind."""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_executor.cgroup import GroupUsage
from syftmesh_executor.port import EndReason

_NEARLY_FULL_BYTES = 64 * 1024
_LAST_LINES_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known when no process of a run is left.

    Attributes:
        exit_code: bubblewrap's, negative when a signal ended bubblewrap itself.
        usage: The control group's counts, None without one.
        scratch_free_bytes: Left of ``/tmp``.
        output_free_bytes: Left of ``/output``, which is one page larger than the limit.
        stderr: End of what the job printed; the job's own word, so it decides only between names of failure.
    """

    exit_code: int
    usage: GroupUsage | None
    scratch_free_bytes: int
    output_free_bytes: int
    stderr: bytes


def judge(evidence: Evidence) -> EndReason:
    """Return the reason of an end that nobody ordered."""
    if evidence.exit_code < 0:
        return EndReason.RUNNER_LOST
    if evidence.output_free_bytes <= 0:
        return EndReason.OUTPUT_LIMIT
    if evidence.exit_code == 0:
        return EndReason.OK
    last_words = evidence.stderr[-_LAST_LINES_BYTES:]
    if (evidence.usage and evidence.usage.oom_kills) or b"MemoryError" in last_words:
        return EndReason.OUT_OF_MEMORY
    if evidence.usage and evidence.usage.refused_forks:
        return EndReason.PROCESS_LIMIT
    if evidence.usage is None and (
        b"BlockingIOError" in last_words or b"can't start new thread" in last_words
    ):
        return EndReason.PROCESS_LIMIT
    no_space = b"No space left on device" in last_words or b"File too large" in last_words
    if no_space and evidence.output_free_bytes < _NEARLY_FULL_BYTES < evidence.scratch_free_bytes:
        return EndReason.OUTPUT_LIMIT
    if no_space or evidence.scratch_free_bytes <= 0:
        return EndReason.DISK_LIMIT
    return EndReason.EXIT_NONZERO
