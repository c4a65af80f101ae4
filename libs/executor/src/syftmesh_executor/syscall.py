"""System call numbers of the two architectures a site may run on.

Taken from the kernel's ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``
(aarch64); the first number is that of x86_64, the second that of aarch64, None where the call does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIRST_UNKNOWN = 470
"""Numbers from here on were given after Linux 6.17 and are the same on both architectures."""

_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # mounts
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "statmount": (457, 457),
    "listmount": (458, 458),
    # namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # io_uring
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # kernel programs and faults
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    # kernel image
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "query_module": (178, None),
    "get_kernel_syms": (177, None),
    # machine
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "nfsservctl": (180, 42),
    "_sysctl": (156, None),
    "sysfs": (139, None),
    "ustat": (136, None),
    "uselib": (134, None),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    # handles and watches
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
}

_READ_BY_ARGUMENT: Mapping[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ioctl": (16, 29),
}

DENIED = tuple(_DENIED)
"""Answered EPERM whatever the arguments."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the filter must know of a machine: its AUDIT_ARCH value (linux/audit.h) and its numbers."""

    audit: int
    number: Mapping[str, int]
    has_x32: bool
    first_unknown: int = FIRST_UNKNOWN


def _column(index: int) -> dict[str, int]:
    rows = {**_DENIED, **_READ_BY_ARGUMENT}
    return {name: value for name, pair in rows.items() if (value := pair[index]) is not None}


_X86_64 = Architecture(audit=0xC000_003E, number=_column(0), has_x32=True)
_AARCH64 = Architecture(audit=0xC000_00B7, number=_column(1), has_x32=False)

_BY_MACHINE: Mapping[str, Architecture] = {
    "x86_64": _X86_64,
    "amd64": _X86_64,
    "aarch64": _AARCH64,
    "arm64": _AARCH64,
}


def architecture_of(machine: str) -> Architecture | None:
    """Return the architecture for a name as of ``uname -m``, None when there is no table for it."""
    return _BY_MACHINE.get(machine.lower())
