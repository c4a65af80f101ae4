"""Use case: answer one question about a path, to whom may ask it, showing no more than that one may know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from syftmesh_core.clock import Clock
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.engine import (
    DENIED_BY_RULE,
    LIMIT_REASONS,
    RULE_ALLOWS,
    Decision,
    Question,
    decide,
    find_deciding,
)
from syftmesh_core.permission.entry import AUTHENTICATED, EVERYONE, EntryList, Groups
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleRef, RuleTree
from syftmesh_core.principal import is_authenticated, parse_requester

from syftmesh_permissions.domain.sight import NOT_ALLOWED, Sight, Verdict, denied, sight_of

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
    """The decision as far as the caller may know it, and why.

    Attributes:
        allowed: Yes or no.
        reason: One of the engine's constants, or NOT_ALLOWED.
        rule: The deciding rule, None where there is none or it is not shown.
        needed: What would have to be so for a yes, one sentence; empty for a yes.
        governing_file: Path of the rule file that governs, empty where there is none or it is not shown.
        matched: The entry that names the requester, shown to admins; empty where none decided.
    """

    allowed: bool
    reason: str
    rule: RuleRef | None
    needed: str
    governing_file: str
    matched: str = ""

    @property
    def verdict(self) -> Verdict:
        """The decision alone."""
        return Verdict(self.allowed, self.reason, self.rule)


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
        return answer(self._rules.tree(path.site), caller, path, inquiry, self._clock.now_ms())


def answer(tree: RuleTree, caller: str, path: MeshPath, inquiry: Inquiry, now_ms: int) -> Answer:
    """Return the answer by the rules in `tree`; who asks is looked at for `now_ms`, Unix milliseconds.

    Raises:
        InvalidInput: PATH_INVALID, PRINCIPAL_INVALID.
        PermissionDenied: (PERMISSION_DENIED) it is about somebody else, and `caller` is no admin there.
    """
    requester = caller if inquiry.requester is None else parse_requester(inquiry.requester)
    sight = sight_of(tree, caller, path, now_ms)
    if requester != caller and sight is not Sight.ADMIN:
        raise denied(path, requester)
    at_ms = now_ms if inquiry.at_ms is None else inquiry.at_ms
    question = Question(requester, path, inquiry.level, at_ms, size_bytes=inquiry.size_bytes)
    decision = decide(tree, question)
    shown = Verdict(decision.allowed, decision.reason, decision.rule).seen_by(sight)
    if sight is Sight.NONE:
        hidden = shown.reason == NOT_ALLOWED
        needed = _NEEDED_UNSEEN.format(level=decision.level.value) if hidden else decision.needed
        return Answer(*shown, needed, "")
    file = tree.governing(path.segments)
    matched = _matched(tree, question, decision) if sight is Sight.ADMIN else ""
    return Answer(*shown, decision.needed, file.path if file else "", matched)


def _matched(tree: RuleTree, question: Question, decision: Decision) -> str:
    """Return the entry by which the deciding list names the requester, empty where no list decided."""
    deciding = find_deciding(tree, question.path, question.now_ms)
    if deciding is None or deciding.rule is None:
        return ""
    if decision.reason == DENIED_BY_RULE:
        return _entry(deciding.rule.deny, question.requester, tree.groups)
    if decision.reason == RULE_ALLOWS or decision.reason in LIMIT_REASONS:
        return _entry(deciding.rule.access.granted(decision.level), question.requester, tree.groups)
    return ""


def _entry(entries: EntryList, requester: str, groups: Groups) -> str:
    """Return the closest entry that means `requester`: the name itself, a group, a glob, `USER`, `*`."""
    if is_authenticated(requester):
        if requester in entries.principals:
            return requester
        for name in entries.groups:
            if requester in groups.get(name, ()):
                return f"group:{name}"
        for glob in entries.globs:
            if glob.matches(requester):
                return glob.text
        if entries.authenticated:
            return AUTHENTICATED
    return EVERYONE if entries.everyone else ""
