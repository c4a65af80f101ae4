"""Patterns of rules: parsed once, scored, and matched in time linear in pattern and path."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import takewhile
from typing import Final

from syftmesh_core.permission.node import Literal, Node, Slash, Star, TemplateValue, matches_whole
from syftmesh_core.permission.program import Program, compile_program, run
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.syntax import Syntax, refused
from syftmesh_core.permission.template import Moment

MAX_PATTERN_BYTES: Final = 1024

_MAX_RAW_CHARACTERS: Final = 4 * MAX_PATTERN_BYTES
"""NFC never shrinks text to less than a quarter of its bytes, so longer text cannot become a pattern."""

_SHARED_CHARACTERS: Final = 64
_SHARED_PATTERNS: Final = 4096
"""So many short patterns are kept: thousands of rule files say ``**`` and ``**/*.csv``, and share one of each."""


class Shape(Enum):
    """How a pattern is matched: the frequent shapes need comparisons of text only."""

    EXACT = "a/b.csv"
    BELOW = "** or a/b/**"
    DEEP = "**/*.csv or a/**/*.csv"
    WITHIN = "*.csv or a/b-*.csv"
    GENERAL = "any other"


# Python 3.11 looks a member of an enum up ten times as slowly as a name of the module.
_EXACT, _BELOW, _DEEP, _WITHIN = Shape.EXACT, Shape.BELOW, Shape.DEEP, Shape.WITHIN


@dataclass(frozen=True, slots=True)
class EmailSlot:
    """A segment of the asker's e-mail and literal text only, so that the person can be read off a path.

    Attributes:
        before: Literal text in front of the e-mail.
        after: Literal text behind it.
        upper: Whether it stands there in upper case.
    """

    before: str
    after: str
    upper: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern; make one with `parse_pattern`.

    Attributes:
        text: NFC, without a ``/`` at its end: what is scored.
        score: Specificity; the higher one decides.
        is_personal: Whether a template depends on who asks.
        email_slot: Where a principal can be read off a path that matches, None where it cannot.
        shape: How it is matched.
        head: Literal text that every match begins with.
        tail: Literal text that every match, ended by ``/``, ends with.
        inner: Text that stands somewhere in every match, the longest one known; for the general shape.
        nodes: The parts, where braces make them more than a line; else empty.
        program: The parts to run one after the other, where neither text alone nor `nodes` decide.
    """

    text: str
    score: int
    is_personal: bool
    email_slot: EmailSlot | None
    shape: Shape = field(repr=False, compare=False)
    head: str = field(repr=False, compare=False)
    tail: str = field(repr=False, compare=False)
    inner: str = field(repr=False, compare=False)
    nodes: tuple[Node, ...] = field(repr=False, compare=False)
    program: Program | None = field(repr=False, compare=False)

    def could_match(self, subject: Subject, now_ms: int) -> bool:
        """Return whether this matches `subject` for some principal (whoever asks, unless it is personal)."""
        text = subject.text
        head, tail, shape = self.head, self.tail, self.shape
        if not (text.startswith(head) and text.endswith(tail)):
            return False
        if shape is _BELOW:
            return True
        if shape is _WITHIN or shape is _DEEP:
            # What stands between head and tail; it cannot be there where the two overlap.
            end = subject.length - len(tail)
            return len(head) <= end and (shape is _DEEP or text.find("/", len(head), end) < 0)
        if shape is _EXACT:
            return text == head
        return self.inner in text and self._run(subject, Moment(now_ms))

    def matches_for(self, principal: str, subject: Subject, now_ms: int) -> bool:
        """Return whether this matches `subject` with the values of `principal` in its templates."""
        if not self.is_personal:
            return self.could_match(subject, now_ms)
        if not (subject.text.startswith(self.head) and subject.text.endswith(self.tail)):
            return False
        return self._run(subject, Moment(now_ms, principal))

    def _run(self, subject: Subject, moment: Moment) -> bool:
        if self.program is None:
            return matches_whole(self.nodes, subject, moment)
        return run(self.program, subject, moment)


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that `text` writes.

    Raises:
        InvalidInput: (PATTERN_INVALID) with metadata `pattern` and `why`.
    """
    return _shared(text) if len(text) <= _SHARED_CHARACTERS else _parsed(text)


def _parsed(text: str) -> Pattern:
    if len(text) > _MAX_RAW_CHARACTERS:
        raise refused(text, f"it is longer than {MAX_PATTERN_BYTES} bytes")
    canonical = unicodedata.normalize("NFC", text).removesuffix("/")
    try:
        size = len(canonical.encode())
    except UnicodeEncodeError:
        raise refused(text, "it is not Unicode text") from None
    if size > MAX_PATTERN_BYTES:
        raise refused(text, f"it is longer than {MAX_PATTERN_BYTES} bytes")
    syntax = Syntax(canonical)
    syntax.parse()
    nodes = syntax.nodes
    shape = _shape(nodes)
    general = shape is Shape.GENERAL
    program = compile_program(nodes) if general else None
    return Pattern(
        text=canonical,
        score=_score(canonical, size, templated=bool(syntax.templates)),
        is_personal=any(template.is_personal for template in syntax.templates),
        email_slot=_email_slot(nodes),
        shape=shape,
        head=_head(nodes) + ("/" if shape is Shape.EXACT else ""),
        tail=_tail(nodes, whole=shape in (Shape.WITHIN, Shape.DEEP)),
        inner=_inner(nodes) if general else "",
        nodes=nodes if general and program is None else (),
        program=program,
    )


_shared = lru_cache(maxsize=_SHARED_PATTERNS)(_parsed)


def _score(text: str, size_bytes: int, *, templated: bool) -> int:
    """Return the specificity as SyftBox computes it, on the text as written."""
    if text in ("**", "**/*"):
        return -100 if text == "**" else -99
    stars = text.count("*")
    leading = text.startswith("*")
    marks = sum(text.count(mark) for mark in "?![{")
    score = 2 * size_bytes + 10 * text.count("/") + 50 * templated
    return score - 20 * leading - 10 * (stars - leading) - 2 * marks


def _shape(nodes: tuple[Node, ...]) -> Shape:
    before = _leading_plain(nodes)
    match nodes[len(before) :]:
        case ():
            return Shape.EXACT
        case (Star(2),) if _ends_segment(before):
            return Shape.BELOW
        case (Star(2), Slash(), Star(count)) if _ends_segment(before) and count != 2:
            return Shape.DEEP
        case (Star(2), Slash(), Star(), Literal()) if _ends_segment(before):
            return Shape.DEEP
        case (Star(count), *after) if all(isinstance(node, Literal | Slash) for node in after):
            alone = _ends_segment(before) and (not after or isinstance(after[0], Slash))
            return Shape.GENERAL if alone and count == 2 else Shape.WITHIN
    return Shape.GENERAL


def _leading_plain(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(takewhile(lambda node: isinstance(node, Literal | Slash), nodes))


def _ends_segment(nodes: tuple[Node, ...]) -> bool:
    return not nodes or isinstance(nodes[-1], Slash)


def _plain(node: Node) -> str:
    if isinstance(node, Literal):
        return node.text
    return "/" if isinstance(node, Slash) else ""


def _head(nodes: tuple[Node, ...]) -> str:
    return "".join(map(_plain, _leading_plain(nodes)))


def _tail(nodes: tuple[Node, ...], *, whole: bool) -> str:
    """Return the literal end; unless `whole` without a ``/`` at its beginning: a ``**`` may have consumed it."""
    tail = "".join((*map(_plain, reversed(_leading_plain(nodes[::-1]))), "/"))
    return tail if whole else tail.removeprefix("/")


def _inner(nodes: tuple[Node, ...]) -> str:
    if any(isinstance(node, TemplateValue) and node.template.holds_email for node in nodes):
        return "@"
    return max((node.text for node in nodes if isinstance(node, Literal)), key=len, default="")


def _email_slot(nodes: tuple[Node, ...]) -> EmailSlot | None:
    segment: list[Node] = []
    for node in (*nodes, Slash()):
        if not isinstance(node, Slash):
            segment.append(node)
            continue
        others = [part for part in segment if not isinstance(part, TemplateValue)]
        if len(others) == len(segment) - 1 and all(isinstance(part, Literal) for part in others):
            index = next(i for i, part in enumerate(segment) if isinstance(part, TemplateValue))
            value = segment[index]
            if isinstance(value, TemplateValue) and value.template.holds_email:
                return EmailSlot(
                    _head(tuple(segment[:index])),
                    _head(tuple(segment[index + 1 :])),
                    value.template.function == "upper",
                )
        segment = []
    return None
