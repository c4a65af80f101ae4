"""Use case: answer one question about a path, to whom may ask it, showing no more than that one may know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from syftmesh_core.clock import Clock
from syftmesh_core.errors import PermissionDenied
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.engine import OWNER_ONLY, Decision, Question, decide, level_for_write
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleRef, RuleTree
from syftmesh_core.principal import parse_requester
from syftmesh_core.quote import quoted

NOT_ALLOWED: Final = "NOT_ALLOWED"
"""The reason shown to whoever may not read the rules that decided; the same whether or not there are any."""

_NEEDED_UNSEEN: Final = "A rule of the owner that grants {level} on this path."


class Rules(Protocol):
    """Where the rules of now are."""

    def tree(self, site: str) -> RuleTree:
        """Return the rules of a datasite; raises Unavailable while they may not be answered from."""
        ...


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question as it was asked.

    Attributes:
        path: `<e-mail>/<segments>`; one trailing slash is dropped.
        level: The right asked for.
        requester: Whom it is about, None for the caller.
        size_bytes: Size of the version to be written, None when unknown.
        at_ms: Moment to decide for, Unix milliseconds, None for now.
    """

    path: str
    level: Level
    requester: str | None = None
    size_bytes: int | None = None
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The decision as far as the caller may know it.

    Attributes:
        allowed: Yes or no.
        reason: One of the engine's constants, or NOT_ALLOWED.
        rule: The deciding rule, None where there is none or it is not shown.
        needed: What would have to be so for a yes, one sentence; empty for a yes.
        governing_file: Path of the rule file that governs, empty where there is none or it is not shown.
    """

    allowed: bool
    reason: str
    rule: RuleRef | None
    needed: str
    governing_file: str


class Ask:
    """Answers questions.

    Args:
        rules: The rules of now.
        clock: The moment of a question that names none.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    def run(self, caller: str, inquiry: Inquiry) -> Answer:
        """Return the answer to `inquiry`, asked by `caller` (a principal, or anonymous).

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID.
            PermissionDenied: (PERMISSION_DENIED) it is about somebody else, and `caller` is no admin there.
            Unavailable: The rules are not known now.
        """
        path = parse_path(inquiry.path, drop_trailing_slash=True)
        requester = caller if inquiry.requester is None else parse_requester(inquiry.requester)
        tree, now_ms = self._rules.tree(path.site), self._clock.now_ms()
        if requester != caller and not self._is_admin(tree, caller, path, now_ms):
            raise PermissionDenied(
                f"Only an admin of {path} may ask about {quoted(requester) if requester else 'others'}.",
                metadata={"path": str(path)},
            )
        at_ms = now_ms if inquiry.at_ms is None else inquiry.at_ms
        question = Question(requester, path, inquiry.level, at_ms, size_bytes=inquiry.size_bytes)
        decision = decide(tree, question)
        file = tree.governing(path.segments)
        return self._shown(tree, caller, path, decision, file.path if file else "", now_ms)

    def _shown(
        self, tree: RuleTree, caller: str, path: MeshPath, decision: Decision, file: str, now_ms: int
    ) -> Answer:
        if self._may_see(tree, caller, path, file, now_ms):
            return Answer(decision.allowed, decision.reason, decision.rule, decision.needed, file)
        if decision.allowed or decision.reason == OWNER_ONLY:
            return Answer(decision.allowed, decision.reason, None, decision.needed, "")
        needed = _NEEDED_UNSEEN.format(level=decision.level.value)
        return Answer(False, NOT_ALLOWED, None, needed, "")

    def _may_see(self, tree: RuleTree, caller: str, path: MeshPath, file: str, now_ms: int) -> bool:
        """Return whether `caller` may know the rule file that governs `path`, or that there is none."""
        if self._is_admin(tree, caller, path, now_ms):
            return True
        if not file:
            return False
        question = Question(caller, parse_path(file), Level.READ, now_ms)
        return decide(tree, question).allowed

    @staticmethod
    def _is_admin(tree: RuleTree, caller: str, path: MeshPath, now_ms: int) -> bool:
        if caller == path.site:
            return True
        if level_for_write(path, exists=True) is None:
            return False
        return decide(tree, Question(caller, path, Level.ADMIN, now_ms)).allowed
