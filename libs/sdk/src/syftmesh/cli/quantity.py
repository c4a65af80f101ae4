"""Durations, sizes, moments and JSON as people write them on a command line."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from syftmesh_core.clock import Clock, to_datetime
from syftmesh_core.errors import InvalidInput
from syftmesh_core.quote import quoted

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S: Final = 3650 * 86400.0


def duration_s(text: str) -> float:
    """Return the seconds that `text` says: ``500ms``, ``30s``, ``5m``, ``2h``, ``1d``.

    Raises:
        InvalidInput: DURATION_INVALID: no such text, zero, or more than ten years.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidInput(
            f"{quoted(text)} is no duration; write one like 30s, 5m, 2h or 1d.",
            reason="DURATION_INVALID",
            metadata={"duration": quoted(text)},
        )
    return seconds


def size_bytes(text: str) -> int:
    """Return the bytes that `text` says: ``500``, ``10KB``, ``2 MiB``.

    Raises:
        InvalidInput: SIZE_INVALID.
    """
    from syftmesh_core.permission.quantity import parse_size  # brings the whole engine along

    size = parse_size(text)
    if size is None:
        raise InvalidInput(
            f"{quoted(text)} is no size; write bytes, or a number with KB, MB, GB, KiB, MiB or GiB.",
            reason="SIZE_INVALID",
            metadata={"size": quoted(text)},
        )
    return size


def moment(text: str, clock: Clock) -> datetime:
    """Return the moment that `text` says: RFC 3339 with a zone, or a duration from now.

    Raises:
        InvalidInput: TIME_INVALID.
    """
    from syftmesh_core.permission.quantity import parse_moment

    if _DURATION.fullmatch(text):
        return to_datetime(clock.now_ms()) + timedelta(seconds=duration_s(text))
    unix_ms = parse_moment(text)
    if unix_ms is None:
        raise InvalidInput(
            f"{quoted(text)} is no moment; write one like 2026-12-31T12:00:00Z, or a duration from now like 7d.",
            reason="TIME_INVALID",
            metadata={"time": quoted(text)},
        )
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


def count(text: str, what: str) -> int:
    """Return the count that `text` says.

    Raises:
        InvalidInput: COUNT_INVALID.
    """
    from syftmesh_core.permission.quantity import parse_count

    found = parse_count(text)
    if found is None:
        raise InvalidInput(
            f"{quoted(text)} is no {what}; write a whole number from 0.",
            reason="COUNT_INVALID",
            metadata={what: quoted(text)},
        )
    return found


def json_value(text: str | bytes, what: str) -> Any:
    """Return the JSON value that `text` writes (RFC 8259: no NaN, no Infinity).

    Args:
        text: The JSON.
        what: Name of the option or file, for the message.

    Raises:
        InvalidInput: JSON_INVALID with the place of the first error.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where, why = f"line {error.lineno}, column {error.colno}", error.msg
    except (ValueError, RecursionError) as error:
        where, why = (
            "somewhere",
            "not UTF-8" if isinstance(error, UnicodeDecodeError) else "a value JSON lacks",
        )
    raise InvalidInput(
        f"{what} is no JSON: {why} ({where}).",
        reason="JSON_INVALID",
        metadata={"source": quoted(what), "where": where},
        hint="""Write strings in double quotes, as in '{"n": 1, "name": "x"}'.""",
    )


def _no_constant(name: str) -> None:
    raise ValueError(name)
