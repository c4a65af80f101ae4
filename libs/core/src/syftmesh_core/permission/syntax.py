"""The grammar of patterns: text to parts, or the reason why not."""

from __future__ import annotations

from typing import Final, NoReturn

from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.node import (
    Alternation,
    AnyCharacter,
    CharacterClass,
    Literal,
    Node,
    Slash,
    Star,
    TemplateValue,
)
from syftmesh_core.permission.template import Template, parse_template
from syftmesh_core.quote import quoted

MAX_WILDCARDS: Final = 32
MAX_NESTING: Final = 3


class Syntax:
    """One pass over a pattern's text.

    Attributes:
        nodes: The parts, after `parse`.
        templates: Every template met, those inside braces too.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._wildcards = 0
        self.nodes: tuple[Node, ...] = ()
        self.templates: list[Template] = []

    def parse(self) -> None:
        """Read the whole pattern into `nodes`.

        Raises:
            InvalidInput: (PATTERN_INVALID) with metadata `pattern` and `why`.
        """
        self.nodes = self._sequence(depth=0)
        segment: list[Node] = []
        for node in (*self.nodes, Slash()):
            if not isinstance(node, Slash):
                segment.append(node)
                continue
            if not segment:
                self._refuse("it is empty, begins with '/' or has an empty segment")
            if segment in ([Literal(".")], [Literal("..")]):
                self._refuse("it has a '.' or '..' segment")
            segment = []

    def _sequence(self, depth: int) -> tuple[Node, ...]:
        nodes: list[Node] = []
        literal: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if depth and character in ",}":
                break
            if character == "}":
                self._refuse("it has a '}' without '{'")
            if character == "\\":
                character = self._escaped()
                if character != "/":
                    literal.append(character)
                    continue
                self._at -= 1
            elif character not in "/*?[{":
                literal.append(character)
                self._at += 1
                continue
            if literal:
                nodes.append(Literal("".join(literal)))
                literal = []
            nodes.append(self._special(character, depth))
        if literal:
            nodes.append(Literal("".join(literal)))
        return tuple(nodes)

    def _special(self, character: str, depth: int) -> Node:
        if character == "{":
            return self._template() if self._text.startswith("{{", self._at) else self._braces(depth + 1)
        if character == "/":
            self._at += 1
            return Slash()
        self._count_wildcard()
        if character == "[":
            return self._character_class()
        if character == "?":
            self._at += 1
            return AnyCharacter()
        start = self._at
        while self._text.startswith("*", self._at):
            self._at += 1
        return Star(self._at - start)

    def _template(self) -> TemplateValue:
        end = self._text.find("}}", self._at)
        template = parse_template(self._text[self._at + 2 : end]) if end >= 0 else None
        if template is None:
            self._refuse("'{{' begins a template, and this one is not among those that exist")
        self._at = end + 2
        self.templates.append(template)
        return TemplateValue(template)

    def _braces(self, depth: int) -> Alternation:
        if depth > MAX_NESTING:
            self._refuse(f"its braces are nested deeper than {MAX_NESTING}")
        self._count_wildcard()
        options = []
        closing = ","
        while closing == ",":
            self._at += 1
            options.append(self._sequence(depth))
            if self._at >= len(self._text):
                self._refuse("a '{' is not closed")
            closing = self._text[self._at]
        self._at += 1
        return Alternation(tuple(options))

    def _character_class(self) -> CharacterClass:
        self._at += 1
        negated = self._text.startswith(("!", "^"), self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while not self._text.startswith("]", self._at):
            low = self._class_character()
            high = low
            if self._text.startswith("-", self._at) and not self._text.startswith("]", self._at + 1):
                self._at += 1
                high = self._class_character()
            if high < low:
                self._refuse("a range of a class runs backwards, so it is empty")
            ranges.append((low, high))
        self._at += 1
        if not ranges:
            self._refuse("it has an empty class")
        return _character_class(ranges, negated=negated)

    def _class_character(self) -> int:
        if self._at >= len(self._text):
            self._refuse("a '[' is not closed")
        if self._text.startswith("{{", self._at):
            self._refuse("'{{' begins a template, which cannot stand in a class")
        character = self._text[self._at]
        if character == "\\":
            return ord(self._escaped())
        self._at += 1
        return ord(character)

    def _escaped(self) -> str:
        if self._at + 1 >= len(self._text):
            self._refuse("it ends with a single '\\'")
        if self._text.startswith("{{", self._at + 1):
            self._refuse("'{{' begins a template; to write two braces put a '\\' before each")
        self._at += 2
        return self._text[self._at - 1]

    def _count_wildcard(self) -> None:
        self._wildcards += 1
        if self._wildcards > MAX_WILDCARDS:
            self._refuse(f"it has more than {MAX_WILDCARDS} wildcards")

    def _refuse(self, why: str) -> NoReturn:
        raise refused(self._text, why)


def refused(text: object, why: str) -> InvalidInput:
    """Return the error that says why `text` is no pattern."""
    return InvalidInput(
        f"{quoted(text)} is not a pattern: {why}.",
        reason="PATTERN_INVALID",
        metadata={"pattern": quoted(text), "why": why},
    )


def _character_class(ranges: list[tuple[int, int]], *, negated: bool) -> CharacterClass:
    lows: list[int] = []
    highs: list[int] = []
    for low, high in sorted(ranges):
        if highs and low <= highs[-1] + 1:
            highs[-1] = max(highs[-1], high)
        else:
            lows.append(low)
            highs.append(high)
    return CharacterClass(negated, tuple(lows), tuple(highs))
