"""Where a group counts: the rules and the groups that name it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from syftmesh_core.permission.group import GroupList
from syftmesh_core.permission.ruleset import Rule
from syftmesh_core.permission.tree import RuleTree

from syftmesh.rule_edit import LEVELS


@dataclass(frozen=True, slots=True)
class GroupUse:
    """A rule that names a group, itself or by a group that holds it.

    Attributes:
        file: The rule file.
        line: Where the rule begins, from 1.
        pattern: Of the rule.
        lists: Which of admin, write, create, read and deny name it.
    """

    file: str
    line: int
    pattern: str
    lists: tuple[str, ...]


def groups_holding(groups: GroupList, name: str) -> list[str]:
    """Return `name` and all groups that hold it, themselves or by others."""
    found = [name]
    for inner in found:
        found += [
            outer
            for outer, held in sorted(groups.members.items())
            if inner in held.groups and outer not in found
        ]
    return found


def uses_of(tree: RuleTree, names: Collection[str]) -> Iterator[GroupUse]:
    """Iterate over the rules that name any of `names`, by file and line."""
    for file in sorted(tree, key=lambda each: each.path):
        for rule in file.rules.rules:
            if lists := tuple(lists_naming(rule, names)):
                yield GroupUse(file.path, rule.line, rule.pattern.text, lists)


def lists_naming(rule: Rule, names: Collection[str]) -> Iterator[str]:
    """Iterate over those of admin, write, create, read and deny that name any of the groups `names`."""
    wanted = set(names)
    for level in LEVELS:
        if wanted & set(getattr(rule.access, level).groups):
            yield level
    if wanted & set(rule.deny.groups):
        yield "deny"
