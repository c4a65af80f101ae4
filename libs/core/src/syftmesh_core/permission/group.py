"""Groups of a datasite's owner: the groups file, nested groups resolved, cycles refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.document import Scalar, Sequence, Table, Value, parse_document, refuse
from syftmesh_core.permission.entry import EntryList, Groups, join, parse_entries
from syftmesh_core.quote import quoted

MAX_GROUPS: Final = 1000
MAX_MEMBERS: Final = 2000
"""Entries of one group, and principals of one group once nested ones are resolved."""

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
    return GroupList(MappingProxyType(members), MappingProxyType(_resolved(members, lines)), lines)


def _members(name: str, value: Value) -> EntryList:
    if not is_group_name(name):
        refuse(
            value.line,
            f"{quoted(name)} is no name of a group: a-z, 0-9, '_' and '-', at most 63 characters",
        )
    if isinstance(value, Scalar) and value.is_null:
        return EntryList()
    if not isinstance(value, Sequence):
        refuse(value.line, f"the group {name} is not a list")
    if len(value.items) > MAX_MEMBERS:
        refuse(value.line, f"the group {name} has more than {MAX_MEMBERS} members")
    return join([EntryList(), *(_member(name, item) for item in value.items)])


def _member(name: str, value: Value) -> EntryList:
    why = "a member is an e-mail or group:<name>"
    if not isinstance(value, Scalar) or not value.is_text:
        refuse(value.line, f"a member of {name} is not text: {why}")
    try:
        entries = parse_entries((value.text,))
    except InvalidInput:
        refuse(value.line, f"{quoted(value.text)} cannot be a member of {name}: {why}")
    if entries.everyone or entries.authenticated or entries.globs:
        refuse(value.line, f"{quoted(value.text)} cannot be a member of {name}: {why}")
    return entries


def _resolved(members: Mapping[str, EntryList], lines: Mapping[str, int]) -> dict[str, frozenset[str]]:
    """Return the principals of each group. Each is visited once, deepest first, without recursion."""
    done: dict[str, frozenset[str]] = {}
    for first in members:
        path: list[str] = [first]
        while path:
            name = path[-1]
            waiting = [n for n in members[name].groups if n in members and n not in done]
            if name in done or not waiting:
                path.pop()
                done.setdefault(name, _union(name, members[name], done, lines))
            elif (following := waiting[0]) in path:
                circle = " > ".join([*path[path.index(following) :], following])
                refuse(lines[name], f"the groups contain each other: {circle}")
            else:
                path.append(following)
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
