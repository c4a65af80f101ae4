"""Quoting of untrusted text for messages and metadata."""

from __future__ import annotations

_SHOWN_CHARACTERS = 120


def quoted(text: object) -> str:
    """Return `text` as one short line of printable ASCII, safe in a terminal, a log and a header.

    Text over 120 characters is cut, and the cut is shown by an ellipsis.
    """
    whole = text if isinstance(text, str) else type(text).__name__
    shown = ascii(whole[:_SHOWN_CHARACTERS])
    return shown if len(whole) <= _SHOWN_CHARACTERS else f"{shown}..."
