"""What an executor is: one run of other people's code, its limits, and how it ended.

The same `RunSpec` goes to every executor; `tests/contract/test_executor_contract.py` holds them to this page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import Protocol

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class EndReason(StrEnum):
    """Why a run is over; the runner maps CANCELLED to who asked for it."""

    OK = "OK"
    EXIT_NONZERO = "EXIT_NONZERO"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_LIMIT = "DISK_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    ISOLATION_FAILED = "ISOLATION_FAILED"
    CANCELLED = "CANCELLED"
    RUNNER_LOST = "RUNNER_LOST"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    Attributes:
        wall_s: Wall time in seconds from the start of the code to the end of its last process.
        memory_bytes: Memory of all processes together, scratch and output (which live in memory) included;
            without a control group it bounds the address space of each process instead.
        processes: Processes and threads alive at once.
        disk_bytes: Size of the scratch space at ``/tmp``.
        output_bytes: Size of everything in the output folder.
        open_files: File descriptors of one process.
        log_bytes: What is kept of standard output, and again of standard error.
    """

    wall_s: float = 600.0
    memory_bytes: int = GIB
    processes: int = 64
    disk_bytes: int = 256 * MIB
    output_bytes: int = 64 * MIB
    open_files: int = 1024
    log_bytes: int = MIB


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run.

    Attributes:
        run_id: Letters, digits, ``-`` and ``_``, at most 64.
        code_dir: Folder of the unpacked code; the code cannot write it.
        entrypoint: Path of the Python file inside `code_dir`, with ``/``.
        datasets: Name to folder or file; the code cannot write them. A single data set is at ``DATA_DIR``
            itself, several are at ``DATA_DIR/<name>``.
        output_dir: Folder on the host that receives the checked output; created, must be empty.
        parameters: JSON values, given to the code as the text of ``PARAMETERS``.
        limits: What the run may use.
        channel: The ends of two pipes that the code inherits, for reading and for writing; it finds their
            numbers as ``r,w`` in ``CHANNEL``. The executor closes them here once the code has them, so that
            whoever holds the other ends reads an end of file when the run is over.
        project: What it belongs to, as a label for people; empty for nothing.
    """

    run_id: str
    code_dir: Path
    entrypoint: str
    datasets: Mapping[str, Path]
    output_dir: Path
    parameters: Mapping[str, object] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    channel: tuple[FileIO, FileIO] | None = None
    project: str = ""

    @property
    def channel_fds(self) -> tuple[int, ...]:
        """The descriptors of `channel`, none without one."""
        return tuple(end.fileno() for end in self.channel or ())

    def close_channel(self) -> None:
        """Close this side's copies of `channel`; once more does nothing."""
        for end in self.channel or ():
            end.close()


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file that came out of a run: its path below `RunSpec.output_dir`, size and SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the output that was left behind: where, and why as an UPPER_SNAKE constant."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        reason: Why it is over.
        exit_code: What the code's first process returned, 128 + n for signal n; None when it never started.
        started_ms: Unix milliseconds of the start.
        ended_ms: Unix milliseconds at which no process of it was left.
        stdout: At most `Limits.log_bytes`, the middle left out when there was more.
        stderr: As `stdout`.
        output_files: What lies in `RunSpec.output_dir` now; empty unless the reason is OK.
        findings: What of the output was refused.
        detail: One sentence for the owner where the reason needs one.
    """

    reason: EndReason
    exit_code: int | None
    started_ms: int
    ended_ms: int
    stdout: bytes
    stderr: bytes
    output_files: tuple[OutputFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the probe tried, whether isolation held, and what was seen."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Whether an executor isolates: it passed when every check did."""

    passed: bool
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


class RunLeft(Exception):
    """The executor is closed and the run goes on without it; `Executor.find` finds it again."""


class Executor(Protocol):
    """Runs code that its owner did not write."""

    async def probe(self) -> ProbeReport:
        """Try to break out of a run and report what happened; a run needs a passed one of the last 24 h.

        Raises:
            Unavailable: SANDBOX_MISSING or SANDBOX_LIMITS_UNAVAILABLE: this machine lacks what it takes.
        """
        ...

    async def run(self, spec: RunSpec) -> RunOutcome:
        """Run the code to its end and bring its output out.

        Cancelling the task ends the run, every process of it, before the cancellation goes on.

        Raises:
            WrongState: ISOLATION_FAILED: no passed probe of the last 24 h. RUN_EXISTS: the id is running.
            InvalidInput: RUN_SPEC_INVALID: the spec can never run; the message says which part.
            LimitExceeded: PARAMETERS_TOO_LARGE: more than 64 KiB of JSON.
            Unavailable: JOB_NOT_STARTED and others: the machinery below did not start it; it has not run.
            RunLeft: The executor was closed, and the run goes on without it.
        """
        ...

    async def find(self, run_ids: Collection[str]) -> frozenset[str]:
        """Return which of these runs go on since before this process, and end all others that do.

        Asked once, before the first `run`. Where runs end with the process that began them there is none.

        Raises:
            Unavailable: It is not known now; ask again.
        """
        ...

    async def adopt(self, spec: RunSpec) -> RunOutcome:
        """Follow a run that `find` returned to its end, as `run` would have.

        Raises:
            NotFound: RUN_UNKNOWN: it does not go on.
            RunLeft: As `run`.
        """
        ...

    async def cancel(self, run_id: str) -> None:
        """End a run within 10 s, politely first; nothing happens when no such run is there."""
        ...

    async def close(self) -> None:
        """Refuse new runs, and end every one that could not be found again."""
        ...
