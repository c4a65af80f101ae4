"""The YAML that rule and groups files may use, each value with its line, built from events: nothing expands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import yaml

from syftmesh_core.errors import InvalidInput
from syftmesh_core.quote import quoted

MAX_FILE_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 8

_ALIAS: Final = "it uses an anchor or an alias ('*' at the beginning of a value must be quoted)"

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    **{word: True for base in ("true", "yes", "on") for word in (base, base.title(), base.upper())},
    **{word: False for base in ("false", "no", "off") for word in (base, base.title(), base.upper())},
}
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
_OTHER_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)")

# libyaml's parser reads the same language ten times as fast; every wheel of PyYAML has it.
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value.

    Attributes:
        text: As it stands, without quotes.
        plain: Whether it stands without quotes, so that its form gives its type.
        line: From 1.
    """

    text: str
    plain: bool
    line: int

    @property
    def is_null(self) -> bool:
        """Whether nothing, ``~`` or ``null`` stands here."""
        return self.plain and self.text in _NULL

    @property
    def boolean(self) -> bool | None:
        """The truth value, None when this is none."""
        return _BOOLEANS.get(self.text) if self.plain else None

    @property
    def is_text(self) -> bool:
        """Whether this is text, not null, a truth value or a number."""
        if not self.plain:
            return True
        number = _NUMBER.fullmatch(self.text) or _OTHER_NUMBER.fullmatch(self.text)
        return self.text not in _NULL and self.text not in _BOOLEANS and not number


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Value, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping whose keys are text, each once."""

    entries: dict[str, Value]
    line: int


Value = Scalar | Sequence | Table


def refuse(line: int, why: str) -> NoReturn:
    """Refuse the file: a rule file, or the groups file.

    Raises:
        InvalidInput: (RULES_INVALID) always, with metadata `line` and `why`.
    """
    raise InvalidInput(
        f"The file is refused at line {line}: {why}.",
        reason="RULES_INVALID",
        metadata={"line": str(line), "why": why},
    )


def parse_document(data: bytes) -> Value | None:
    """Return the one document in `data` (UTF-8, at most 64 KiB), None when it is empty or has only comments.

    Raises:
        InvalidInput: (RULES_INVALID) with metadata `line` and `why`.
    """
    if len(data) > MAX_FILE_BYTES:
        refuse(1, f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        refuse(data.count(b"\n", 0, error.start) + 1, "it is not UTF-8")
    try:
        return _document(_Events(_Loader(text)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        is_alias = "alias" in (error.context or "")
        refuse(mark.line + 1 if mark else 1, _ALIAS if is_alias else "it is not valid YAML")
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        refuse(line, "it holds a character that YAML does not allow")


class _Parser(Protocol):
    def get_event(self) -> yaml.Event | None: ...


class _Events:
    """The events of a document, refused as soon as one is not of the part of YAML used here."""

    def __init__(self, loader: _Parser) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[yaml.Event]:
        return self

    def __next__(self) -> yaml.Event:
        event = self._loader.get_event()
        if event is None:
            raise StopIteration
        line = _line(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            refuse(line, _ALIAS)
        if getattr(event, "tag", None) is not None or getattr(event, "tags", None):
            refuse(line, "it uses a tag")
        return event


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _document(events: _Events) -> Value | None:
    root: Value | None = None
    documents = 0
    for event in events:
        line = _line(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                refuse(line, "it holds more than one document")
        elif isinstance(event, yaml.NodeEvent):
            root = _value(event, events, 1)
    return None if isinstance(root, Scalar) and root.plain and not root.text else root


def _value(event: yaml.Event, events: _Events, depth: int) -> Value:
    line = _line(event)
    if isinstance(event, yaml.ScalarEvent):
        # libyaml gives the style of a plain scalar as an empty text, PyYAML's own parser as None.
        return Scalar(event.value, not event.style, line)
    if depth > MAX_DEPTH:
        refuse(line, f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(event, yaml.SequenceStartEvent):
        return Sequence(tuple(_items(events, depth)), line)
    return _table(events, depth, line)


def _items(events: _Events, depth: int) -> Iterator[Value]:
    for event in events:
        if isinstance(event, yaml.SequenceEndEvent):
            return
        yield _value(event, events, depth + 1)


def _table(events: _Events, depth: int, line: int) -> Table:
    entries: dict[str, Value] = {}
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            break
        key_line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            refuse(key_line, "a key is not text")
        if event.value in entries:
            refuse(key_line, f"the key {quoted(event.value)} stands here twice")
        entries[event.value] = _value(next(events), events, depth + 1)
    return Table(entries, line)
