"""Rule files: bytes to a rule set, or the line and reason why not."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.document import (
    Scalar,
    Sequence,
    Table,
    Value,
    parse_document,
    refuse,
)
from syftmesh_core.permission.entry import NOBODY, EntryList, parse_entries
from syftmesh_core.permission.pattern import Pattern, parse_pattern
from syftmesh_core.permission.quantity import parse_count, parse_moment, parse_size
from syftmesh_core.permission.ruleset import Access, Limits, Rule, RuleSet
from syftmesh_core.quote import quoted

MAX_RULES: Final = 1000

# Lists are shared (see `parse_entries`), so what is made of them can be.
_shared_access = lru_cache(maxsize=16_384)(Access)

_FILE_KEYS = frozenset({"terminal", "rules"})
_RULE_KEYS = frozenset({"pattern", "access", "deny", "expires", "limits"})
_ACCESS_KEYS = frozenset({"admin", "write", "create", "read"})
_LIMIT_KEYS = frozenset({"maxFileSize", "maxFiles", "allowDirs", "allowSymlinks"})


def parse_ruleset(data: bytes) -> RuleSet:
    """Return what the rule file with content `data` says; an empty one says that nobody has any right.

    Raises:
        InvalidInput: (RULES_INVALID) with metadata `line` (from 1) and `why`; use nothing of the file then.
    """
    document = parse_document(data)
    if document is None:
        return RuleSet()
    table = _table(document, "the file", _FILE_KEYS)
    terminal = "terminal" in table.entries and _boolean(table.entries["terminal"], "terminal")
    items: tuple[Value, ...] = ()
    if "rules" in table.entries and not _is_null(table.entries["rules"]):
        items = _sequence(table.entries["rules"], "rules").items
    if len(items) > MAX_RULES:
        refuse(items[MAX_RULES].line, f"it has more than {MAX_RULES} rules")
    return RuleSet(terminal, tuple(_rule(item, index) for index, item in enumerate(items)))


def _rule(value: Value, index: int) -> Rule:
    table = _table(value, "a rule", _RULE_KEYS)
    entries = table.entries
    for required in ("pattern", "access"):
        if required not in entries:
            refuse(table.line, f"the rule has no {required}")
    limits = entries.get("limits")
    return Rule(
        pattern=_pattern(entries["pattern"]),
        access=_access(entries["access"]),
        deny=_entry_list(entries["deny"], "deny") if "deny" in entries else NOBODY,
        expires_ms=_moment(entries["expires"]) if "expires" in entries else None,
        limits=None if limits is None or _is_null(limits) else _limits(limits),
        line=table.line,
        index=index,
    )


def _pattern(value: Value) -> Pattern:
    text = _text(value, "pattern")
    try:
        return parse_pattern(text)
    except InvalidInput as error:
        refuse(value.line, f"the pattern {quoted(text)} is none: {error.metadata['why']}")


def _access(value: Value) -> Access:
    table = _table(value, "access", _ACCESS_KEYS)
    return _shared_access(**{name: _entry_list(entries, name) for name, entries in table.entries.items()})


def _entry_list(value: Value, name: str) -> EntryList:
    if _is_null(value):
        return NOBODY
    items = _sequence(value, name).items
    texts = [_text(item, f"an entry of {name}") for item in items]
    try:
        return parse_entries(texts)
    except InvalidInput as error:
        entry, index, why = (error.metadata[key] for key in ("entry", "index", "why"))
        refuse(items[int(index)].line, f"the entry {entry} of {name} is none: {why}")


def _limits(value: Value) -> Limits:
    entries = _table(value, "limits", _LIMIT_KEYS).entries
    if "allowSymlinks" in entries:
        _boolean(entries["allowSymlinks"], "allowSymlinks")
    return Limits(
        max_file_size_bytes=_size(entries["maxFileSize"]) if "maxFileSize" in entries else None,
        max_files=_count(entries["maxFiles"]) if "maxFiles" in entries else None,
        allow_dirs=_boolean(entries["allowDirs"], "allowDirs") if "allowDirs" in entries else True,
    )


def _size(value: Value) -> int:
    size = parse_size(value.text) if isinstance(value, Scalar) else None
    if size is None:
        refuse(value.line, "maxFileSize is not a size such as 1048576, 100MB or 100MiB")
    return size


def _count(value: Value) -> int:
    count = parse_count(value.text) if isinstance(value, Scalar) and value.plain else None
    if count is None:
        refuse(value.line, "maxFiles is not a whole number from 0 on")
    return count


def _moment(value: Value) -> int:
    moment = parse_moment(value.text) if isinstance(value, Scalar) else None
    if moment is None:
        refuse(value.line, "expires is not a date with time and zone such as 2027-01-31T00:00:00Z")
    return moment


def _boolean(value: Value, name: str) -> bool:
    answer = value.boolean if isinstance(value, Scalar) else None
    if answer is None:
        refuse(value.line, f"{name} is neither true nor false")
    return answer


def _text(value: Value, name: str) -> str:
    if not isinstance(value, Scalar) or not value.is_text:
        refuse(value.line, f"{name} is not text; put it in quotes if it is meant as text")
    return value.text


def _sequence(value: Value, name: str) -> Sequence:
    if not isinstance(value, Sequence):
        refuse(value.line, f"{name} is not a list")
    return value


def _table(value: Value, name: str, keys: frozenset[str]) -> Table:
    if not isinstance(value, Table):
        refuse(value.line, f"{name} is not a mapping")
    for key, entry in value.entries.items():
        if key not in keys:
            refuse(
                entry.line, f"{name} has the unknown key {quoted(key)}; known are {', '.join(sorted(keys))}"
            )
    return value


def _is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and value.is_null
