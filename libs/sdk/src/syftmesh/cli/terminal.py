"""Text of others on the way to a terminal: nothing in it may steer the terminal or pose as our own words."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# ECMA-48: CSI sequences, string sequences (OSC, DCS, SOS, PM, APC) up to their end, and two-character escapes.
_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_ENDS: Final = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
# Cc control, Cf invisible and direction-changing, Cs lone surrogates, Co private use.
_UNSHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co"})


def one_line(text: str) -> str:
    """Return `text` without escape sequences and control characters, its lines joined by spaces."""
    return "".join(" " if c in _LINE_ENDS or c == "\t" else c for c in _shown(text, keep="\t"))


def many_lines(text: str) -> str:
    """Return `text` without escape sequences and control characters; line feeds and tabs stay."""
    return _shown(text.replace("\r\n", "\n"), keep="\t\n")


def _shown(text: str, *, keep: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        if c in keep or (keep == "\t" and c in _LINE_ENDS) or unicodedata.category(c) not in _UNSHOWN
        else REPLACEMENT
        for c in _ESCAPES.sub("", text)
    )
