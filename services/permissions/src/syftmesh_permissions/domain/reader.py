"""Use case: who can read a path, as far as the caller may know it."""

from __future__ import annotations

from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.engine import find_deciding
from syftmesh_core.permission.reader import ReaderKind, Readers, readers_of
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import NO_GROUPS, RuleTree
from syftmesh_core.principal import is_authenticated

from syftmesh_permissions.domain.inquiry import Rules
from syftmesh_permissions.domain.sight import Sight, may_read, sight_of

UNSEEN: Final = "Who else reads it is shown to admins of the path, and to those who may read its rules."
"""Said of every path of whose rules the caller may know nothing, whether or not there is any."""

_GROUPS_UNSEEN: Final = "Members of groups are shown to admins of the path only."


class ListReaders:
    """Lists readers.

    Args:
        rules: The rules of now.
        clock: The moment of a question that names none.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    def run(self, caller: str, text: str, at_ms: int | None = None) -> Readers:
        """Return who can read the path `text` at `at_ms` (Unix milliseconds, None for now).

        An admin learns all of it; who may read the rule file that governs the path, what that file says; everybody
        else the owner, and itself where it may read: the same for a path that there is not.

        Raises:
            InvalidInput: PATH_INVALID.
            Unavailable: The rules are not known now.
        """
        path = parse_path(text, drop_trailing_slash=True)
        tree, now_ms = self._rules.tree(path.site), self._clock.now_ms()
        moment_ms = now_ms if at_ms is None else at_ms
        sight = sight_of(tree, caller, path, now_ms)
        if sight is Sight.NONE:
            return _unseen(tree, caller, path, moment_ms)
        return (readers_of if sight is Sight.ADMIN else _as_written)(tree, path, moment_ms)


def _unseen(tree: RuleTree, caller: str, path: MeshPath, now_ms: int) -> Readers:
    known = {path.site}
    if is_authenticated(caller) and may_read(tree, caller, path, now_ms):
        known.add(caller)
    return Readers(ReaderKind.OPEN, frozenset(known), UNSEEN)


def _as_written(tree: RuleTree, path: MeshPath, now_ms: int) -> Readers:
    """Return what the rule file alone says: groups are the owner's, and who is in one is not written there."""
    written = readers_of(tree.with_groups(NO_GROUPS), path, now_ms)
    deciding = find_deciding(tree, path, now_ms)
    rule = None if deciding is None else deciding.rule
    if rule is None or written.kind is ReaderKind.PUBLIC:
        return written
    if not (rule.access.granted(Level.READ).groups or rule.deny.groups):
        return written
    return Readers(ReaderKind.OPEN, written.principals, f"{written.why} {_GROUPS_UNSEEN}")
