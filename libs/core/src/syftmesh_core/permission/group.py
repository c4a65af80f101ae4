"""Groups of a datasite's owner: the groups file, nested groups resolved, cycles refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.document import Scalar, Sequence, Table, Value, parse_document, refuse
from syftmesh_core.permission.entry import NOBODY, EntryList, Groups, parse_entries
from syftmesh_core.quote import quoted

MAX_GROUPS: Final = 1000
MAX_MEMBERS: Final = 2000
"""Entries of one group, and principals of one group once nested ones are resolved."""

MAX_RESOLVED: Final = 50_000
"""Principals of all groups together once nested ones are resolved: 64 KiB of nesting would make millions."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class GroupList:
    """What a groups file says.

    Attributes:
        members: Name of each group to its entries as written: e-mails and other groups.
        resolved: Name of each group to its principals, nested groups resolved; an unknown group is nobody.
        lines: Name of each group to the line at which it stands, from 1.
    """

    members: Mapping[str, EntryList]
    resolved: Groups
    lines: Mapping[str, int]


NO_GROUP_LIST: Final = GroupList(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


def is_group_name(text: str) -> bool:
    """Return whether `text` can name a group."""
    return bool(_NAME.fullmatch(text))


def parse_groups(data: bytes) -> GroupList:
    """Return what the groups file with content `data` says: ``groups: {name: [member, ...]}``.

    A member is an e-mail or ``group:<name>``. A file that is empty or has only comments has no group.

    Raises:
        InvalidInput: (RULES_INVALID) with metadata `line` (from 1) and `why`; use nothing of the file then.
    """
    document = parse_document(data)
    if document is None:
        return NO_GROUP_LIST
    table = _table(document, "the file")
    for key, value in table.entries.items():
        if key != "groups":
            refuse(value.line, f"the file has the unknown key {quoted(key)}; known is groups")
    named = table.entries.get("groups")
    if named is None or (isinstance(named, Scalar) and named.is_null):
        return NO_GROUP_LIST
    found = _table(named, "groups").entries
    if len(found) > MAX_GROUPS:
        refuse(named.line, f"it has more than {MAX_GROUPS} groups")
    members = {name: _members(name, value) for name, value in found.items()}
    lines = {name: value.line for name, value in found.items()}
    return GroupList(
        MappingProxyType(members), MappingProxyType(_resolved(members, lines)), MappingProxyType(lines)
    )


def _members(name: str, value: Value) -> EntryList:
    if not is_group_name(name):
        refuse(
            value.line,
            f"{quoted(name)} is no name of a group: a-z, 0-9, '_' and '-', at most 63 characters",
        )
    if isinstance(value, Scalar) and value.is_null:
        return NOBODY
    if not isinstance(value, Sequence):
        refuse(value.line, f"the group {name} is not a list")
    if len(value.items) > MAX_MEMBERS:
        refuse(value.line, f"the group {name} has more than {MAX_MEMBERS} members")
    return parse_entries(_member(name, item) for item in value.items)


def _member(name: str, value: Value) -> str:
    why = "a member is an e-mail or group:<name>"
    if not isinstance(value, Scalar) or not value.is_text:
        refuse(value.line, f"a member of {name} is not text: {why}")
    entries: EntryList | None = None
    with contextlib.suppress(InvalidInput):
        entries = parse_entries((value.text,))
    if entries is None or entries.everyone or entries.authenticated or entries.globs:
        refuse(value.line, f"{quoted(value.text)} cannot be a member of {name}: {why}")
    return value.text


def _resolved(members: Mapping[str, EntryList], lines: Mapping[str, int]) -> dict[str, frozenset[str]]:
    """Return the principals of each group: each group and each entry is looked at once, without recursion."""
    done: dict[str, frozenset[str]] = {}
    total = 0
    for first in members:
        # The groups on the way down, each with those of its nested groups that were not looked at yet.
        path: dict[str, Iterator[str]] = {} if first in done else {first: iter(members[first].groups)}
        while path:
            name = next(reversed(path))
            following = next((n for n in path[name] if n in members and n not in done), None)
            if following is None:
                del path[name]
                done[name] = _union(name, members[name], done, lines)
                total += len(done[name])
                if total > MAX_RESOLVED:
                    refuse(lines[name], f"all groups together have more than {MAX_RESOLVED} members")
            elif following in path:
                names = list(path)
                circle = " > ".join([*names[names.index(following) :], following])
                refuse(lines[name], f"the groups contain each other: {circle}")
            else:
                path[following] = iter(members[following].groups)
    return done


def _union(
    name: str, entries: EntryList, done: Mapping[str, frozenset[str]], lines: Mapping[str, int]
) -> frozenset[str]:
    nested = (done.get(inner, frozenset()) for inner in entries.groups)
    principals = entries.principals.union(*nested)
    if len(principals) > MAX_MEMBERS:
        refuse(
            lines[name],
            f"the group {name} has more than {MAX_MEMBERS} members once nested groups are counted",
        )
    return principals


def _table(value: Value, name: str) -> Table:
    if not isinstance(value, Table):
        refuse(value.line, f"{name} is not a mapping")
    return value
