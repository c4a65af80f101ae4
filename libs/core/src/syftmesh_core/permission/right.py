"""Rights that are more than one decision: reading with the one exception there is, and writing anywhere."""

from __future__ import annotations

import math
from functools import lru_cache

from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import Question, decide
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleFile, RuleTree


def may_read(tree: RuleTree, requester: str, path: MeshPath, now_ms: int) -> bool:
    """Return whether `requester` may read the file at `path`.

    The groups of a datasite may be read by whoever may write somewhere in it too: to seal a file for its
    readers one has to know who they are.
    """
    if requester == path.site:
        return True
    if decide(tree, Question(requester, path, Level.READ, now_ms)).allowed:
        return True
    return path.is_groups_file and may_write_somewhere(tree, requester, now_ms)


def may_write_somewhere(tree: RuleTree, requester: str, now_ms: int) -> bool:
    """Return whether any rule in force, wherever it applies, could let `requester` add a file now."""
    return requester == tree.site or now_ms < _writes_until(tree, requester)


@lru_cache(maxsize=64)  # of few trees: each keeps what it was copied from
def _writes_until(tree: RuleTree, requester: str) -> float:
    """Return the Unix millisecond at which the last right to add a file anywhere ends, 0 where there is none.

    It looks at every rule of the datasite, so that asking again and again must not.
    """
    until = 0.0
    for file in tree:
        if not _is_in_force(tree, file):
            continue
        for rule in file.rules.rules:
            end_ms = math.inf if rule.expires_ms is None else rule.expires_ms
            grants = end_ms > until and rule.access.granted(Level.CREATE).names(requester, tree.groups)
            if grants and not rule.deny.names(requester, tree.groups):
                until = end_ms
        if until == math.inf:
            break
    return until


def _is_in_force(tree: RuleTree, file: RuleFile) -> bool:
    """Return whether no terminal file higher up makes `file` void."""
    return tree.governing((*file.directory, "*")) is file
