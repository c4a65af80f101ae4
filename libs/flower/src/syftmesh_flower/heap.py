"""Memory that updates needed goes back to the system when their run is over."""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Let the C library return what it keeps of freed memory; whether it could, which is with glibc only.

    It keeps blocks of a few megabytes, as updates come and go in, for each thread: hundreds of megabytes in all.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(trim(0))
