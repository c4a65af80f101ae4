"""Which directories of a datasite can hold anything that a reader may read: the others need no walking."""

from __future__ import annotations

from typing import Final

from syftmesh_core.permission.entry import NOBODY, Groups
from syftmesh_core.permission.ruleset import Level, Rule
from syftmesh_core.permission.tree import Directory, RuleTree

from syftmesh_permissions.domain.pace import Pace

_STEP: Final = 8


class Hope:
    """For one reader and one state of a datasite's rules.

    Attributes:
        tree: The rules.
    """

    def __init__(self, tree: RuleTree, granting: set[Directory]) -> None:
        self.tree = tree
        self._granting = granting
        self._above = {d[:depth] for d in granting for depth in range(len(d) + 1)}

    @classmethod
    async def find(cls, tree: RuleTree, reader: str, now_ms: int, pace: Pace) -> Hope:
        """Look through all rule files of `tree`; other work gets its turn meanwhile.

        A file that may grant something to `reader` by any of its rules counts, whatever their patterns match.
        """
        granting: set[Directory] = set()
        for number, file in enumerate(tree):
            if any(may_grant(rule, reader, tree.groups, now_ms) for rule in file.rules.rules):
                granting.add(file.directory)
            if number % _STEP == 0 and pace.is_due:
                await pace.rest()
        return cls(tree, granting)

    @property
    def is_none(self) -> bool:
        """Whether no rule file of the datasite can grant anything."""
        return not self._above

    def hopeless(self, segments: Directory) -> Directory | None:
        """Return the highest directory around the file `segments` below which nothing can be read.

        None when there is no such directory. The root is the empty one.
        """
        start = 0
        for end in range(len(segments)):
            if segments[:end] in self._granting:
                start = len(segments)  # what it governs may be readable, until another file governs
            elif start > end and self.tree.rules_in(segments[:end]) is not None:
                start = end
        return next(
            (segments[:end] for end in range(start, len(segments)) if segments[:end] not in self._above), None
        )


def may_grant(rule: Rule, reader: str, groups: Groups, now_ms: int) -> bool:
    """Return whether `rule` lets `reader` read anything at `now_ms` (Unix milliseconds)."""
    if rule.expires_ms is not None and now_ms >= rule.expires_ms:
        return False
    if rule.deny is not NOBODY and rule.deny.names(reader, groups):
        return False
    return rule.access.granted(Level.READ).names(reader, groups)
