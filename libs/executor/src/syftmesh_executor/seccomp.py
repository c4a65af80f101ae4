"""The system call filter of a job, assembled here so that nothing has to be installed for it.

Classic BPF over ``struct seccomp_data`` (linux/seccomp.h; linux/filter.h, ``struct sock_filter``). The list
denies; what is newer than the table is answered ENOSYS, so a system call that did not exist when the list was
written is not open by accident. Namespaces already hold without this filter: it takes away the kernel's less
tested surface and what would help to leave them.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from syftmesh_core.errors import Unavailable

from syftmesh_executor.syscall import DENIED, Architecture, architecture_of

LD_W_ABS = 0x20
JMP_JEQ_K = 0x15
JMP_JGE_K = 0x35
JMP_JSET_K = 0x45
RET_K = 0x06

RET_KILL_PROCESS = 0x8000_0000
RET_ERRNO = 0x0005_0000
RET_ALLOW = 0x7FFF_0000

OFFSET_NR = 0
OFFSET_ARCH = 4
OFFSET_ARG0_LOW = 16
"""Low half of the first argument; both architectures here are little endian."""
OFFSET_ARG1_LOW = 24

X32_SYSCALL_BIT = 0x4000_0000
AF_UNIX = 1
NEW_NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET (linux/sched.h)."""
TERMINAL_INJECTION = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into a terminal (asm-generic/ioctls.h)."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One ``struct sock_filter``; targets are labels until assembly."""

    code: int
    k: int
    if_true: str = ""
    if_false: str = ""
    label: str = ""


def assemble(program: Sequence[Instruction]) -> bytes:
    """Return the program as an array of ``struct sock_filter`` with labels resolved.

    Raises:
        ValueError: A label is unknown, lies behind, or is more than 255 instructions away.
    """
    position = {line.label: index for index, line in enumerate(program) if line.label}

    def offset(label: str, index: int) -> int:
        if not label:
            return 0
        distance = position.get(label, -1) - index - 1
        if not 0 <= distance <= 255:
            raise ValueError(f"jump from {index} to {label!r} is not between 0 and 255 instructions ahead")
        return distance

    return b"".join(
        struct.pack("<HBBI", line.code, offset(line.if_true, i), offset(line.if_false, i), line.k)
        for i, line in enumerate(program)
    )


def job_program(architecture: Architecture) -> list[Instruction]:
    """Return the filter of a job for one architecture."""
    number = architecture.number
    program = [
        Instruction(LD_W_ABS, OFFSET_ARCH),
        Instruction(JMP_JEQ_K, architecture.audit, if_true="native"),
        Instruction(RET_K, RET_KILL_PROCESS),
        Instruction(LD_W_ABS, OFFSET_NR, label="native"),
    ]
    if architecture.has_x32:
        program.append(Instruction(JMP_JGE_K, X32_SYSCALL_BIT, if_true="absent"))
    program.append(Instruction(JMP_JGE_K, architecture.first_unknown, if_true="absent"))
    program.append(Instruction(JMP_JEQ_K, number["clone3"], if_true="absent"))
    program += [Instruction(JMP_JEQ_K, number[name], if_true="denied") for name in DENIED if name in number]
    program += [
        Instruction(JMP_JEQ_K, number["clone"], if_true="clone"),
        Instruction(JMP_JEQ_K, number["socket"], if_true="socket"),
        Instruction(JMP_JEQ_K, number["socketpair"], if_true="socket"),
        Instruction(JMP_JEQ_K, number["ioctl"], if_true="ioctl"),
        Instruction(RET_K, RET_ALLOW),
        Instruction(LD_W_ABS, OFFSET_ARG0_LOW, label="clone"),
        Instruction(JMP_JSET_K, NEW_NAMESPACES, if_true="denied", if_false="allowed"),
        Instruction(LD_W_ABS, OFFSET_ARG0_LOW, label="socket"),
        Instruction(JMP_JEQ_K, AF_UNIX, if_true="allowed", if_false="no_family"),
        Instruction(LD_W_ABS, OFFSET_ARG1_LOW, label="ioctl"),
    ]
    program += [Instruction(JMP_JEQ_K, request, if_true="denied") for request in TERMINAL_INJECTION]
    program += [
        Instruction(RET_K, RET_ALLOW, label="allowed"),
        Instruction(RET_K, RET_ERRNO | errno.EPERM, label="denied"),
        # ENOSYS makes the C library fall back from clone3 to clone, whose flags a filter can read.
        Instruction(RET_K, RET_ERRNO | errno.ENOSYS, label="absent"),
        Instruction(RET_K, RET_ERRNO | errno.EAFNOSUPPORT, label="no_family"),
    ]
    return program


def job_filter(machine: str) -> bytes:
    """Return the assembled filter for a machine name as of ``uname -m``.

    Raises:
        Unavailable: SANDBOX_ARCHITECTURE: there is no table for this machine.
    """
    architecture = architecture_of(machine)
    if architecture is None:
        raise Unavailable(
            f"the sandbox has no system call table for the machine type {machine}; "
            "run the site on x86_64 or aarch64",
            reason="SANDBOX_ARCHITECTURE",
            metadata={"machine": machine},
        )
    return assemble(job_program(architecture))
