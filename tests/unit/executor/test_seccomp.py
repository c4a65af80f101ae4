"""The filter, run by an interpreter of classic BPF over what the kernel would hand it."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import Unavailable
from syftmesh_executor import seccomp
from syftmesh_executor.seccomp import Instruction, assemble, job_filter
from syftmesh_executor.syscall import DENIED, Architecture, architecture_of

ALLOW = "ALLOW"
KILL = "KILL"
MACHINES = ["x86_64", "aarch64"]


def run_filter(code: bytes, number: int, *arguments: int, audit: int) -> str:
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    program = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    at, register = 0, 0
    while True:
        operation, if_true, if_false, k = program[at]
        at += 1
        if operation == 0x20:
            (register,) = struct.unpack_from("<I", data, k)
        elif operation == 0x06:
            if k == 0x7FFF0000:
                return ALLOW
            return KILL if k == 0x80000000 else errno.errorcode[k & 0xFFFF]
        else:
            holds = {0x15: register == k, 0x35: register >= k, 0x45: bool(register & k)}[operation]
            at += if_true if holds else if_false


def of(machine: str) -> tuple[bytes, Architecture]:
    architecture = architecture_of(machine)
    assert architecture is not None
    return job_filter(machine), architecture


def test_an_instruction_is_laid_out_as_struct_sock_filter() -> None:
    program = [Instruction(0x15, 7, if_true="end"), Instruction(0x06, 1), Instruction(0x06, 2, label="end")]
    assert assemble(program) == bytes.fromhex("150001000700000006000000010000000600000002000000")


@pytest.mark.parametrize("label", ["missing", "behind"])
def test_a_jump_that_does_not_go_forward_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="jump"):
        assemble([Instruction(0x06, 1, label="behind"), Instruction(0x15, 7, if_true=label)])


def test_a_jump_of_256_is_refused() -> None:
    far = [Instruction(0x06, 1)] * 256
    with pytest.raises(ValueError, match="jump"):
        assemble([Instruction(0x15, 7, if_true="end"), *far, Instruction(0x06, 1, label="end")])


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_denied(machine: str) -> None:
    code, architecture = of(machine)
    for name in DENIED:
        if name in architecture.number:
            assert run_filter(code, architecture.number[name], audit=architecture.audit) == "EPERM", name


@pytest.mark.parametrize(
    ("machine", "allowed"),
    [("x86_64", {"read": 0, "execve": 59, "openat": 257, "futex": 202, "statx": 332}),
     ("aarch64", {"read": 63, "execve": 221, "openat": 56, "futex": 98, "statx": 291})],
)  # fmt: skip
def test_what_python_needs_is_allowed(machine: str, allowed: dict[str, int]) -> None:
    code, architecture = of(machine)
    for name, number in allowed.items():
        assert run_filter(code, number, audit=architecture.audit) == ALLOW, name


@pytest.mark.parametrize("machine", MACHINES)
@given(family=st.integers(0, 2**64 - 1))
def test_only_unix_sockets_open(machine: str, family: int) -> None:
    code, architecture = of(machine)
    for name in ("socket", "socketpair"):
        seen = run_filter(code, architecture.number[name], family, audit=architecture.audit)
        # The kernel reads the family as an int: the high half does not count.
        assert seen == (ALLOW if family & 0xFFFFFFFF == 1 else "EAFNOSUPPORT")


@pytest.mark.parametrize("machine", MACHINES)
@given(flags=st.integers(0, 2**64 - 1))
def test_clone_opens_no_namespace(machine: str, flags: int) -> None:
    code, architecture = of(machine)
    seen = run_filter(code, architecture.number["clone"], flags, audit=architecture.audit)
    assert seen == ("EPERM" if flags & 0x7E020000 else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_thread_and_a_fork_are_allowed(machine: str) -> None:
    code, architecture = of(machine)
    for flags in (0x3D0F00, 0x1200011):  # pthread_create and fork of glibc
        assert run_filter(code, architecture.number["clone"], flags, audit=architecture.audit) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_clone3_is_absent_and_so_is_what_is_newer_than_the_table(machine: str) -> None:
    code, architecture = of(machine)
    for number in (435, 470, 511, 548, 2**31, 2**32 - 1):
        assert run_filter(code, number, audit=architecture.audit) == "ENOSYS"


def test_x32_numbers_are_absent() -> None:
    code, architecture = of("x86_64")
    for number in (0, 39, 520):
        assert run_filter(code, 0x40000000 | number, audit=architecture.audit) == "ENOSYS"


@pytest.mark.parametrize("machine", MACHINES)
@given(audit=st.integers(0, 2**32 - 1), number=st.integers(0, 600))
def test_a_foreign_architecture_is_killed(machine: str, audit: int, number: int) -> None:
    code, architecture = of(machine)
    if audit != architecture.audit:
        assert run_filter(code, number, audit=audit) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_typing_into_a_terminal_is_denied(machine: str) -> None:
    code, architecture = of(machine)
    ioctl = architecture.number["ioctl"]
    assert run_filter(code, ioctl, 0, 0x5412, audit=architecture.audit) == "EPERM"
    assert run_filter(code, ioctl, 0, 0x5413, audit=architecture.audit) == ALLOW


def test_a_machine_without_a_table_is_told() -> None:
    with pytest.raises(Unavailable) as caught:
        job_filter("riscv64")
    assert caught.value.reason == "SANDBOX_ARCHITECTURE"


def test_the_filter_fits_the_kernel() -> None:
    for machine in MACHINES:
        assert len(job_filter(machine)) // 8 <= 4096  # BPF_MAXINSNS
    assert seccomp.NEW_NAMESPACES == 0x7E020000
