"""Rights as this service asks for them; the engine of the core decides."""

from __future__ import annotations

from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import Question, decide
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleTree


def may_read(tree: RuleTree, requester: str, path: MeshPath, now_ms: int) -> bool:
    """Return whether `requester` may read the file at `path`."""
    if requester == path.site:
        return True
    return decide(tree, Question(requester, path, Level.READ, now_ms)).allowed


def may_write_somewhere(tree: RuleTree, requester: str) -> bool:
    """Return whether any rule, wherever it applies, could let `requester` add a file."""
    if requester == tree.site:
        return True
    return any(
        rule.granted[Level.CREATE.value].names(requester, tree.groups)
        for file in tree
        for rule in file.rules.rules
    )
