"""Patterns of rules: parsed once, scored, and matched in time linear in pattern and path."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from syftmesh_core.permission.node import Literal, Node, Slash, Star, TemplateValue, matches_whole
from syftmesh_core.permission.program import Program, compile_program, run
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.syntax import Syntax, refused
from syftmesh_core.permission.template import Moment

MAX_PATTERN_BYTES: Final = 1024


class Shape(Enum):
    """How a pattern is matched: the frequent shapes need one comparison of text."""

    EXACT = "no wildcard"
    EVERYTHING = "** or **/*"
    BELOW = "a/b/**"
    ENDING = "**/*.csv"
    GENERAL = "any other"


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
        inner: Text that stands somewhere in every match, the longest one known.
        nodes: The parts.
        program: The parts to run one after the other, None where braces make it more than a line.
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
        if not (text.startswith(self.head) and text.endswith(self.tail)):
            return False
        shape = self.shape
        if shape is Shape.GENERAL:
            return self.inner in text and self._run(subject, Moment(now_ms))
        return shape is not Shape.EXACT or text == self.head

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
    return Pattern(
        text=canonical,
        score=_score(canonical, size, templated=bool(syntax.templates)),
        is_personal=any(template.is_personal for template in syntax.templates),
        email_slot=_email_slot(nodes),
        shape=shape,
        head=_head(nodes) + ("/" if shape is Shape.EXACT else ""),
        tail=_tail(nodes),
        inner=_inner(nodes),
        nodes=nodes,
        program=compile_program(nodes),
    )


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
    if all(isinstance(node, Literal | Slash) for node in nodes):
        return Shape.EXACT
    match nodes:
        case (Star(2),) | (Star(2), Slash(), Star()):
            return Shape.EVERYTHING
        case (Star(2), Slash(), Star(), Literal()):
            return Shape.ENDING
        case (*before, Slash(), Star(2)) if all(isinstance(node, Literal | Slash) for node in before):
            return Shape.BELOW
    return Shape.GENERAL


def _plain(node: Node) -> str:
    if isinstance(node, Literal):
        return node.text
    return "/" if isinstance(node, Slash) else ""


def _head(nodes: tuple[Node, ...]) -> str:
    head = []
    for node in nodes:
        if not (text := _plain(node)):
            break
        head.append(text)
    return "".join(head)


def _tail(nodes: tuple[Node, ...]) -> str:
    """Return the literal end; a ``/`` in front of it is left out, for a ``**`` there may have consumed it."""
    tail: list[str] = []
    for node in reversed(nodes):
        if not (text := _plain(node)):
            break
        tail.insert(0, text)
    return "".join((*tail, "/")).removeprefix("/") if tail else ""


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
