"""Rights that are more than one decision: reading with the one exception there is, and writing anywhere."""

from __future__ import annotations

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
    if requester == tree.site:
        return True
    return any(
        (rule.expires_ms is None or now_ms < rule.expires_ms)
        and rule.access.grants(Level.CREATE, requester, tree.groups)
        and not rule.deny.names(requester, tree.groups)
        for file in tree
        if _is_in_force(tree, file)
        for rule in file.rules.rules
    )


def _is_in_force(tree: RuleTree, file: RuleFile) -> bool:
    """Return whether no terminal file higher up makes `file` void."""
    return tree.governing((*file.directory, "*")) is file
