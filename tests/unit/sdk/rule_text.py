"""Rule files as people write them: every style of YAML that the parser takes, with comments everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

from hypothesis import strategies as st

WHO = (
    "*",
    "USER",
    "bob@x.example",
    "Carol@Lab.example",
    "*@corp.example",
    "group:reviewers",
    "dora@x.example",
)
PATTERNS = ("**", "**/*.csv", "a.txt", "b/{c,d}.md", "*.md", "x y/#1", "{{.UserEmail}}/**", "ä/**")
LEVELS = ("read", "write", "create", "admin")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.:-_")


@dataclass
class Written:
    """A rule file, the text of each of its rules, their patterns, and its comments in order."""

    text: str
    rules: list[str]
    patterns: list[str]
    comments: list[str]


class Pen:
    """Draws how each thing is written."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self._numbers = count(1)
        self.comments: list[str] = []

    def one_of(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))

    def some(self, choices: tuple[str, ...]) -> list[str]:
        found: list[str] = self._draw(st.lists(st.sampled_from(choices), max_size=3, unique=True))
        return found

    def comment(self, margin: str = "  ") -> str:
        """A comment behind something."""
        text = f"# note {next(self._numbers)}: it's, [a] - {{b}} 'c'"
        self.comments.append(text)
        return margin + text

    def behind(self) -> str:
        return self.comment() if self.one_of(False, False, True) else ""

    def above(self, margin: str) -> list[str]:
        """Lines in front of something, often none."""
        kind = self.one_of("", "", "comment", "blank")
        return [self.comment(margin)] if kind == "comment" else [""] if kind else []

    def text(self, value: str) -> str:
        style = self.one_of("double", "single", "plain")
        if style == "plain" and set(value) <= _PLAIN:
            return value
        if style == "single":
            return "'" + value.replace("'", "''") + "'"
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def key(self, name: str) -> str:
        return self.one_of(name, name, name, f'"{name}"')

    def flow_list(self, entries: list[str], margin: str) -> str:
        """A list with brackets, on one line or on several with comments."""
        written = [self.text(entry) for entry in entries]
        ends = self.one_of("", "", ",") if written else ""
        if self.one_of(True, True, False) or not written:
            return f"[{', '.join(written)}{ends}]"
        lines = [f"[{self.behind()}"]
        for at, entry in enumerate(written):
            comma = "," if at + 1 < len(written) else ends
            lines.append(f"{margin}{entry}{comma}{self.behind()}")
        return "\n".join([*lines, f"{margin}]"])

    def list_lines(self, name: str, entries: list[str], margin: str) -> list[str]:
        """A list as a key of a block mapping."""
        head = f"{margin}{self.key(name)}:"
        if not entries:
            return [head + self.one_of("", " []", " null", " ~") + self.behind()]
        if self.one_of("flow", "block") == "flow":
            return [f"{head} {self.flow_list(entries, margin + '  ')}{self.behind()}"]
        inner = margin + self.one_of("", "  ", "    ")
        lines = [head + self.behind()]
        for entry in entries:
            lines += [*self.above(inner), f"{inner}- {self.text(entry)}{self.behind()}"]
        return lines

    def access_lines(self, margin: str) -> list[str]:
        lists = {name: self.some(WHO) for name in self.some(LEVELS)}
        if not lists or self.one_of(False, False, True):
            pairs = (f"{name}: {self._short(entries)}" for name, entries in lists.items())
            return [f"{margin}access: {{{', '.join(pairs)}}}{self.behind()}"]
        lines = [f"{margin}access:{self.behind()}"]
        for name, entries in lists.items():
            inner = margin + "  "
            lines += [*self.above(inner), *self.list_lines(name, entries, inner)]
        return lines

    def rule_lines(self, pattern: str, margin: str) -> list[str]:
        """A rule as an item of a block sequence."""
        if self.one_of(False, False, False, True):
            read = self._short(self.some(WHO))
            return [f"{margin}- {{pattern: {self.text(pattern)}, access: {{read: {read}}}}}{self.behind()}"]
        inner = margin + "  "
        lines = [f"{margin}- pattern: {self.text(pattern)}{self.behind()}", *self.above(inner)]
        lines += self.access_lines(inner)
        if self.one_of(False, True):
            lines += [*self.above(inner), *self.list_lines("deny", self.some(WHO[2:]), inner)]
        if self.one_of(False, False, True):
            lines += [*self.above(inner), f"{inner}expires: 2030-01-01T00:00:00Z{self.behind()}"]
        if self.one_of(False, False, True):
            lines.append(f"{inner}limits: {{maxFiles: 7, allowDirs: false}}{self.behind()}")
        return lines

    def _short(self, entries: list[str]) -> str:
        return f"[{', '.join(self.text(entry) for entry in entries)}]"


@st.composite
def rule_files(draw: Any) -> Written:
    """Rule files with distinct patterns."""
    pen = Pen(draw)
    patterns = draw(st.lists(st.sampled_from(PATTERNS), max_size=4, unique=True))
    lines = [*pen.above(""), *(["---"] if pen.one_of(False, False, True) else []), *pen.above("")]
    if pen.one_of(False, True):
        lines.append(f"terminal: {pen.one_of('true', 'false')}{pen.behind()}")
    chunks = []
    if patterns or pen.one_of(True, False):
        empty = "" if patterns else pen.one_of("", " []", " null")
        lines += [*pen.above(""), f"rules:{empty}{pen.behind()}"]
        margin = pen.one_of("", "  ", "    ")
        for pattern in patterns:
            before = pen.above(margin)
            rule = pen.rule_lines(pattern, margin)
            chunks.append("\n".join(rule))
            lines += [*before, *rule]
    lines += pen.above("")
    newline, end = pen.one_of("\n", "\n", "\r\n"), pen.one_of(True, True, False)
    text = "\n".join(lines) + ("\n" if end and lines else "")
    written = [chunk.replace("\n", newline) for chunk in chunks]
    return Written(text.replace("\n", newline), written, patterns, pen.comments)
