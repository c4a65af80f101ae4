"""Where the values of a YAML file stand in its text, so that one can be changed and all else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from syftmesh_core.errors import WrongState

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single value.

    Attributes:
        start: Index of its first character in the text.
        end: Index behind its last one; `start` when nothing stands there.
        text: Without quotes.
        is_null: Whether nothing, ``~`` or ``null`` stands there.
    """

    start: int
    end: int
    text: str
    is_null: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list.

    Attributes:
        start: Index of ``[``, or of the first ``-``.
        end: Index behind ``]``, or behind the last character of the last item.
        column: Of `start`, from 0.
        is_flow: Whether it is written with brackets.
        items: Its values.
    """

    start: int
    end: int
    column: int
    is_flow: bool
    items: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """A mapping; `start`, `end`, `column` and `is_flow` as in `Items`.

    Attributes:
        pairs: Keys and values in order.
    """

    start: int
    end: int
    column: int
    is_flow: bool
    pairs: tuple[tuple[Leaf, Place], ...]

    def pair(self, key: str) -> tuple[Leaf, Place] | None:
        """Return the key and its value, None when it is not there."""
        return next((pair for pair in self.pairs if pair[0].text == key), None)


Place = Leaf | Items | Keys
Step = str | int
"""A key of a mapping, or an index into a list."""


class Document:
    """A text and its places.

    Args:
        text: One YAML document, without anchors, aliases and tags.

    Attributes:
        text: The same.
        root: What stands in it, None when it is empty or has only comments.
        newline: How its lines end.

    Raises:
        WrongState: RULES_NOT_EDITABLE: this reader of YAML does not understand it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        reader = YAML(typ="safe", pure=True)
        try:
            node: Any = reader.compose(text)
        except YAMLError as error:
            raise not_editable("its YAML cannot be taken apart") from error
        root = None if node is None else self._place(node)
        self.root = None if isinstance(root, Leaf) and root.start == root.end else root

    def at(self, path: Sequence[Step]) -> Place | None:
        """Return the value that `path` leads to from the root, None when there is none."""
        place = self.root
        for step in path:
            if isinstance(place, Keys) and isinstance(step, str):
                pair = place.pair(step)
                place = pair[1] if pair else None
            elif isinstance(place, Items) and isinstance(step, int) and step < len(place.items):
                place = place.items[step]
            else:
                return None
        return place

    def line_end(self, index: int) -> int:
        """Return the index at which the line with `index` ends, before the characters that end it."""
        end = self.text.find("\n", index)
        if end < 0:
            return len(self.text)
        return end - 1 if end > index and self.text[end - 1] == "\r" else end

    def line_start(self, index: int) -> int:
        """Return the index at which the line with `index` begins."""
        return self.text.rfind("\n", 0, index) + 1

    def commas(self, inside: Items | Keys) -> list[int | None]:
        """Return the index of the comma behind each element of a list or mapping with brackets, None without."""
        spans = list(spans_of(inside))
        found: list[int | None] = []
        for at, (_, end) in enumerate(spans):
            until = spans[at + 1][0] if at + 1 < len(spans) else inside.end - 1
            found.append(next((i for i in self._outside_comments(end, until) if self.text[i] == ","), None))
        return found

    def _outside_comments(self, start: int, end: int) -> Iterator[int]:
        at = start
        while at < end:
            if self.text[at] == "#":
                at = self.line_end(at)
                continue
            yield at
            at += 1

    def _place(self, node: Any) -> Place:
        start, column = node.start_mark.index, node.start_mark.column
        if isinstance(node, ScalarNode):
            written = self.text[start : node.end_mark.index].rstrip()
            is_null = not node.style and node.value in _NULL
            return Leaf(start, start + len(written), node.value, is_null)
        is_flow = bool(node.flow_style)
        if isinstance(node, SequenceNode):
            items = tuple(self._place(item) for item in node.value)
            end = node.end_mark.index if is_flow or not items else items[-1].end
            return Items(start, end, column, is_flow, items)
        if isinstance(node, MappingNode):
            pairs = tuple(self._pair(key, value) for key, value in node.value)
            end = node.end_mark.index if is_flow or not pairs else max(pairs[-1][0].end, pairs[-1][1].end)
            return Keys(start, end, column, is_flow, pairs)
        raise not_editable("it holds something other than lists and mappings")

    def _pair(self, key_node: Any, value_node: Any) -> tuple[Leaf, Place]:
        key, value = self._place(key_node), self._place(value_node)
        if not isinstance(key, Leaf):
            raise not_editable("a key of it is not text")
        if isinstance(value, Leaf) and value.start == value.end:
            # The reader puts a value that is not there somewhere behind its key: here that is right behind the colon.
            colon = self.text.find(":", key.end) + 1
            value = Leaf(colon, colon, "", is_null=True)
        return key, value


@lru_cache(maxsize=2)
def document_of(text: str) -> Document:
    """Return the places of `text`, which one change after another asks for; raises as `Document`."""
    return Document(text)


def spans_of(inside: Items | Keys) -> Iterator[tuple[int, int]]:
    """Iterate over where each element begins and ends."""
    if isinstance(inside, Items):
        yield from ((item.start, item.end) for item in inside.items)
    else:
        yield from ((key.start, max(key.end, value.end)) for key, value in inside.pairs)


def not_editable(why: str) -> WrongState:
    """Return the error for a file that is valid, and that this program cannot change without rewriting it."""
    return WrongState(
        f"The file cannot be changed by the program: {why}.",
        reason="RULES_NOT_EDITABLE",
        metadata={"why": why},
        hint="Copy it here with syftmesh cp, change it with an editor, and copy it back.",
    )
