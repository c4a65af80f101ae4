"""How much of a datasite's rules a caller may know."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from syftmesh_core.errors import PermissionDenied
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.engine import OWNER_ONLY, Question, decide, level_for_write
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleRef, RuleTree
from syftmesh_core.quote import quoted

NOT_ALLOWED: Final = "NOT_ALLOWED"
"""The reason shown to whoever may not read the rules that decided; the same whether or not there are any."""


class Sight(Enum):
    """What of the rules that govern a path is shown to a caller."""

    ADMIN = "all, also about others"
    READER = "what its rule file says"
    NONE = "nothing"


class Verdict(NamedTuple):
    """A decision as far as the caller may know it.

    Attributes:
        allowed: Yes or no.
        reason: One of the engine's constants, or NOT_ALLOWED.
        rule: The deciding rule, None where there is none or it is not shown.
    """

    allowed: bool
    reason: str
    rule: RuleRef | None

    def seen_by(self, sight: Sight) -> Verdict:
        """Return what of this is shown."""
        if sight is not Sight.NONE:
            return self
        if self.allowed or self.reason == OWNER_ONLY:
            return Verdict(self.allowed, self.reason, None)
        return Verdict(False, NOT_ALLOWED, None)


def sight_of(tree: RuleTree, caller: str, path: MeshPath, now_ms: int) -> Sight:
    """Return what `caller` (as `parse_requester` gives it) may know of the rules that govern `path`."""
    if is_admin(tree, caller, path, now_ms):
        return Sight.ADMIN
    file = tree.governing(path.segments)
    return Sight.READER if file is not None and may_read(tree, caller, file.path, now_ms) else Sight.NONE


def is_admin(tree: RuleTree, caller: str, path: MeshPath, now_ms: int) -> bool:
    """Return whether `caller` may change who has which right on `path`."""
    if caller == path.site:
        return True
    if level_for_write(path, exists=True) is None:
        return False
    return decide(tree, Question(caller, path, Level.ADMIN, now_ms)).allowed


def may_read(tree: RuleTree, caller: str, path: MeshPath | str, now_ms: int) -> bool:
    """Return whether `caller` may read `path`."""
    place = parse_path(path) if isinstance(path, str) else path
    return decide(tree, Question(caller, place, Level.READ, now_ms)).allowed


def denied(path: MeshPath | str, requester: str) -> PermissionDenied:
    """Return the refusal of a question about `requester` by a caller who is no admin of `path`."""
    return PermissionDenied(
        f"Only an admin of {path} may ask about {quoted(requester) if requester else 'others'}.",
        metadata={"path": str(path)},
    )
