"""Sizes and moments as rule files write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

MAX_COUNT: Final = 2**63 - 1

_SIZE = re.compile(r"(0|[1-9][0-9]{0,18}) ?(KB|MB|GB|KiB|MiB|GiB)?", re.ASCII)
_UNITS: Final = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.([0-9]{1,9}))?"
    r" ?(?:([Zz])|([+-][0-9]{2}):?([0-9]{2}))"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_count(text: str) -> int | None:
    """Return a count of 0 to 2^63 - 1 in decimal digits, None when `text` is none."""
    found = _SIZE.fullmatch(text)
    if not found or found[2] or " " in text or int(found[1]) > MAX_COUNT:
        return None
    return int(found[1])


def parse_size(text: str) -> int | None:
    """Return a size in bytes: digits, then nothing, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (1024)."""
    found = _SIZE.fullmatch(text)
    if not found or text.endswith(" "):
        return None
    size = int(found[1]) * _UNITS[found[2] or ""]
    return size if size <= MAX_COUNT else None


def parse_moment(text: str) -> int | None:
    """Return the Unix milliseconds, rounded down, of a date with time and zone (RFC 3339).

    Seconds may be absent. None when `text` is no such moment.
    """
    found = _MOMENT.fullmatch(text)
    if not found:
        return None
    day, time, seconds, fraction, zulu, hours, minutes = found.groups()
    if fraction and not seconds:
        return None
    zone = "+00:00" if zulu else f"{hours}:{minutes}"
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{seconds or ':00'}{zone}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * 1000 + int((fraction or "0")[:3].ljust(3, "0"))
