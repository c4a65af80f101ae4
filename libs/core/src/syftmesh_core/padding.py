"""Padding of sizes to classes, so that a stored size shows little of the true one.

Source: Padmé of "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (Nikitin et
al., PETS 2019, section 4): at most 12 % larger, and O(log log) bits leak.
"""

from __future__ import annotations


def padme(size_bytes: int, *, at_least_bytes: int = 0) -> int:
    """Return the padded size in bytes of `size_bytes`, and no less than that of `at_least_bytes`."""
    size = max(size_bytes, at_least_bytes)
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask
