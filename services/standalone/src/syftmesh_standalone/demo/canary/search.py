"""Search for many patterns at once: one pass over the bytes, whatever the number of patterns.

A table of 65,536 flags says with which two bytes some pattern begins, a second one (2^20 flags by a hash) with
which eight; the few places in the data that pass both are compared with the patterns of that prefix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from syftmesh_standalone.demo.canary.needle import MIN_PATTERN_BYTES, Needle

_PAIRS: Final = MIN_PATTERN_BYTES // 2
_WINDOW_BYTES: Final = 1 << 20
_HASH_BITS: Final = 20
_MULTIPLIER: Final = np.uint64(0x9E37_79B9_7F4A_7C15)


class NeedleSearch:
    """Finds needles in bytes; made once, used for everything.

    Args:
        needles: What to look for.

    Raises:
        ValueError: A pattern is shorter than eight bytes.
    """

    def __init__(self, needles: Iterable[Needle]) -> None:
        found = list(needles)
        self._exact = _PatternIndex(needle for needle in found if not needle.folded)
        self._folded = _PatternIndex(needle for needle in found if needle.folded)
        self._longest = max((len(needle.pattern) for needle in found), default=MIN_PATTERN_BYTES)

    def find(self, data: bytes) -> Iterator[tuple[int, Needle]]:
        """Give every place of every needle in `data`."""
        step = _WINDOW_BYTES
        for start in range(0, len(data), step):
            # A window reaches into the next by one pattern, so that none is cut; a place that begins there
            # is the next window's.
            window = data[start : start + step + self._longest - 1]
            for index, view in ((self._exact, window), (self._folded, window.lower())):
                for at, needle in index.find(view):
                    if at < step:
                        yield start + at, needle


class _PatternIndex:
    def __init__(self, needles: Iterable[Needle]) -> None:
        self._by_prefix: defaultdict[bytes, list[Needle]] = defaultdict(list)
        for needle in needles:
            if len(needle.pattern) < MIN_PATTERN_BYTES:
                raise ValueError(f"the form {needle.form!r} is shorter than {MIN_PATTERN_BYTES} bytes")
            self._by_prefix[needle.pattern[:MIN_PATTERN_BYTES]].append(needle)
        prefixes: Any = np.frombuffer(b"".join(self._by_prefix), dtype="<u8")
        self._starts = np.zeros(1 << 16, dtype=bool)
        self._starts[prefixes & np.uint64(0xFFFF)] = True
        self._hashes = np.zeros(1 << _HASH_BITS, dtype=bool)
        self._hashes[_hashed(prefixes)] = True

    def find(self, data: bytes) -> Iterator[tuple[int, Needle]]:
        if not self._by_prefix:
            return
        for parity in (0, 1):
            for place in self._places(data, parity):
                at = 2 * place + parity
                for needle in self._by_prefix.get(data[at : at + MIN_PATTERN_BYTES], ()):
                    if data.startswith(needle.pattern, at):
                        yield at, needle

    def _places(self, data: bytes, parity: int) -> list[int]:
        count = (len(data) - parity) // 2
        if count < _PAIRS:
            return []
        pairs: Any = np.frombuffer(data, dtype="<u2", count=count, offset=parity)
        places = np.flatnonzero(self._starts[pairs[: count - _PAIRS + 1]])
        if not len(places):
            return []
        prefixes = pairs[places].astype(np.uint64)
        for number in range(1, _PAIRS):
            prefixes |= pairs[places + number].astype(np.uint64) << np.uint64(16 * number)
        found: list[int] = places[self._hashes[_hashed(prefixes)]].tolist()
        return found


def _hashed(prefixes: Any) -> Any:
    # Multiplicative hashing (Knuth, TAOCP 3, 6.4): the upper bits of the product depend on all eight bytes.
    return (prefixes * _MULTIPLIER) >> np.uint64(64 - _HASH_BITS)
