"""Decisions: who may do what with a path; a pure function of rules, groups, question and moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from syftmesh_core.errors import Internal
from syftmesh_core.path import (
    GROUPS_FILE,
    IGNORE_FILE,
    RULES_FILE,
    SETTINGS_FILE,
    MeshPath,
    check_creatable,
)
from syftmesh_core.permission.entry import NOBODY, Groups
from syftmesh_core.permission.ruleset import Level, Limits, Rule
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.tree import Directory, RuleFile, RuleRef, RuleTree
from syftmesh_core.principal import is_authenticated

OWNER: Final = "OWNER"
RULE_ALLOWS: Final = "RULE_ALLOWS"
OWNER_ONLY: Final = "OWNER_ONLY"
NO_RULE_FILE: Final = "NO_RULE_FILE"
NO_RULE_MATCHES: Final = "NO_RULE_MATCHES"
DENIED_BY_RULE: Final = "DENIED_BY_RULE"
EXPIRED: Final = "EXPIRED"
NOT_LISTED: Final = "NOT_LISTED"
PERSONAL_OF_ANOTHER: Final = "PERSONAL_OF_ANOTHER"
LIMIT_FILE_SIZE: Final = "LIMIT_FILE_SIZE"
LIMIT_FILE_COUNT: Final = "LIMIT_FILE_COUNT"
LIMIT_DIRECTORY: Final = "LIMIT_DIRECTORY"

# Python 3.11 looks a member of an enum up ten times as slowly as a name of the module.
_READ, _CREATE, _WRITE, _ADMIN = Level.READ, Level.CREATE, Level.WRITE, Level.ADMIN

LIMIT_REASONS: Final = frozenset({LIMIT_FILE_SIZE, LIMIT_FILE_COUNT, LIMIT_DIRECTORY})
"""Denials to answer with LIMIT_EXCEEDED: the right itself is there."""

_NEEDED: Final = {
    OWNER_ONLY: "Only the owner of the datasite may change its settings and groups.",
    NO_RULE_FILE: "A rule file of the owner, in a directory above the path, that grants {level}.",
    NO_RULE_MATCHES: "A rule in {file} whose pattern matches the path and that grants {level}.",
    DENIED_BY_RULE: "Taking the requester out of {groups}the deny list of the rule at line {line} of {file}, "
    "which must also grant {level}.",
    EXPIRED: "A later expiry of the rule at line {line} of {file}, which must also grant {level}.",
    NOT_LISTED: "An entry for the requester that contains {level}, in the rule at line {line} of {file}{groups}.",
    PERSONAL_OF_ANOTHER: "The requester's own name in the path, as line {line} of {file} is a personal rule.",
    LIMIT_FILE_SIZE: "A smaller file, or a larger maxFileSize in the rule at line {line} of {file}.",
    LIMIT_FILE_COUNT: "Fewer files under the rule at line {line} of {file}, or a larger maxFiles there.",
    LIMIT_DIRECTORY: "A path directly in the directory of {file}, or allowDirs in its rule at line {line}.",
}


class RuleKey(NamedTuple):
    """Under what `maxFiles` counts: files with equal keys count together.

    Attributes:
        directory: Directory of the rule file.
        revision: Revision of the rule file.
        rule_index: The rule's place in it, from 0.
        principal: In a personal rule the requester whose value matched, else empty.
    """

    directory: Directory
    revision: int
    rule_index: int
    principal: str


LiveFiles = Callable[[RuleKey], int]
"""Return how many live files have that key (see `deciding_rule_key`), the path asked about not counted."""


@dataclass(frozen=True, slots=True)
class Question:
    """May `requester` do that at `path`?

    Attributes:
        requester: As `parse_requester` gives it.
        path: The path in canonical form.
        level: The right asked for; see `level_for_write` for a change.
        now_ms: Moment of the decision in Unix milliseconds.
        size_bytes: Size of the new version (padded when sealed), None when there is none or it is not known.
        live_files: Live files that count with this one towards `maxFiles`, the path itself not counted; None
            when the count is not to be checked.
        deletes: The change takes the file away, so no limit applies.
    """

    requester: str
    path: MeshPath
    level: Level
    now_ms: int
    size_bytes: int | None = None
    live_files: LiveFiles | int | None = None
    deletes: bool = False


class Decision(NamedTuple):
    """The answer.

    Attributes:
        allowed: Whether the requester may.
        reason: One of this module's constants.
        level: The right that was needed: more than was asked for a rule or ignore file.
        rule: The rule that decided, the file as a whole when no rule of it matches, None without a file.
        groups: For NOT_LISTED the owner's groups of which any would do, if the requester were in it; for
            DENIED_BY_RULE those in the deny list that hold the requester.
    """

    allowed: bool
    reason: str
    level: Level
    rule: RuleRef | None = None
    groups: tuple[str, ...] = ()

    @property
    def needed(self) -> str:
        """What would have to be so for the answer to be yes, one sentence; empty when it is yes."""
        if self.allowed:
            return ""
        file, line = (self.rule.file, self.rule.line) if self.rule else ("", 0)
        groups = ""
        if self.groups and self.reason == NOT_LISTED:
            groups = f", or a place in the group {' or '.join(self.groups)}"
        elif self.groups:
            groups = f"the group {' and '.join(self.groups)} and "
        return _NEEDED[self.reason].format(level=self.level.value, file=file, line=line, groups=groups)


class Deciding(NamedTuple):
    """What decides about a path, the same for everyone but the owner.

    Attributes:
        file: The governing rule file.
        rule: Its most specific matching rule, None when none matches.
        subject: The path relative to the file's directory, ready for matching.
    """

    file: RuleFile
    rule: Rule | None
    subject: Subject


def find_deciding(tree: RuleTree, path: MeshPath, now_ms: int) -> Deciding | None:
    """Return what decides about `path`, None when no rule file governs it.

    Time in proportion to the path's depth and the rules of one file.

    Raises:
        Internal: `tree` is of another datasite.
    """
    if tree.site != path.site:
        raise Internal("The rules of one datasite were asked about a path of another.")
    segments = path.segments
    file = tree.governing(segments)
    if file is None:
        return None
    subject = Subject("/".join(segments[file.depth :]))
    return Deciding(file, file.rules.deciding(subject, now_ms), subject)


def level_for_write(path: MeshPath, exists: bool) -> Level | None:  # noqa: FBT001 - a fact about the path
    """Return the right that a change of `path` needs, None for ownership.

    Args:
        path: What is created, changed, deleted or restored.
        exists: Whether a live file is there.
    """
    if path.segments in ((SETTINGS_FILE,), (GROUPS_FILE,)):
        return None
    if path.name in (RULES_FILE, IGNORE_FILE):
        return Level.ADMIN
    return Level.WRITE if exists else Level.CREATE


def decide(tree: RuleTree, question: Question) -> Decision:
    """Answer `question` by the rules and groups in `tree`.

    A change of a rule or ignore file needs admin, of settings and groups ownership, whatever level is asked.

    Raises:
        InvalidInput: (PATH_INVALID) create or write of a path that looks like a rule or groups file and is none.
        Internal: `tree` is of another datasite.
    """
    path, level = question.path, question.level
    if level is _CREATE or level is _WRITE:
        check_creatable(path)
    if question.requester == path.site:
        return Decision(True, OWNER, level)
    if level is not _READ and path.segments:
        needed = level_for_write(path, exists=True)
        if needed is None:
            return Decision(False, OWNER_ONLY, level)
        if needed is _ADMIN:
            level = needed
    deciding = find_deciding(tree, path, question.now_ms)
    if deciding is None:
        return Decision(False, NO_RULE_FILE, level)
    file, rule, _ = deciding
    if rule is None:
        return Decision(False, NO_RULE_MATCHES, level, file.ref(None))
    reason = grant_reason(rule, question.requester, level, tree.groups, question.now_ms, deciding)
    if reason == RULE_ALLOWS:
        if rule.limits is not None:
            reason = _exceeded(file, rule, rule.limits, question) or reason
        return Decision(reason == RULE_ALLOWS, reason, level, file.ref(rule))
    concerned = _concerned(rule, level, reason, question.requester, tree.groups)
    return Decision(False, reason, level, file.ref(rule), concerned)


def deciding_rule_key(tree: RuleTree, path: MeshPath, requester: str, now_ms: int) -> RuleKey | None:
    """Return under which key the live file at `path` counts towards the `maxFiles` of `requester`.

    None when no rule decides, for a rule file, and in a personal rule where another's value stands.

    Raises:
        Internal: `tree` is of another datasite.
    """
    deciding = None if path.is_policy_file else find_deciding(tree, path, now_ms)
    if deciding is None or deciding.rule is None:
        return None
    if deciding.rule.pattern.is_personal and not is_own(deciding, requester, now_ms):
        return None
    return _key(deciding.file, deciding.rule, requester)


def is_own(deciding: Deciding, requester: str, now_ms: int) -> bool:
    """Return whether the value of `requester` stands in the path that a personal rule decides."""
    return (
        deciding.rule is not None
        and is_authenticated(requester)
        and deciding.rule.pattern.matches_for(requester, deciding.subject, now_ms)
    )


def _key(file: RuleFile, rule: Rule, requester: str) -> RuleKey:
    return RuleKey(file.directory, file.revision, rule.index, requester if rule.pattern.is_personal else "")


def grant_reason(
    rule: Rule, requester: str, level: Level, groups: Groups, now_ms: int, deciding: Deciding | None = None
) -> str:
    """Return RULE_ALLOWS, or why the lists of a deciding rule grant nothing.

    Args:
        rule: The rule that decides.
        requester: Anybody but the owner.
        level: The right that is needed.
        groups: The owner's groups.
        now_ms: Moment of the decision in Unix milliseconds.
        deciding: Where the rule was found; without it a personal rule grants nothing.
    """
    if rule.expires_ms is not None and now_ms >= rule.expires_ms:
        return EXPIRED
    if rule.pattern.is_personal and not (deciding is not None and is_own(deciding, requester, now_ms)):
        return PERSONAL_OF_ANOTHER
    if rule.deny is not NOBODY and rule.deny.names(requester, groups):
        return DENIED_BY_RULE
    return RULE_ALLOWS if rule.access.grants(level, requester, groups) else NOT_LISTED


def _concerned(rule: Rule, level: Level, why: str, requester: str, groups: Groups) -> tuple[str, ...]:
    """Return the groups that a refusal for `why` concerns; see `Decision`."""
    denied = rule.deny.groups
    if why == DENIED_BY_RULE:
        return tuple(name for name in denied if requester in groups.get(name, ()))
    granting = rule.access.groups(level)
    if not granting or why != NOT_LISTED or not is_authenticated(requester):
        return ()
    # Whoever joins a group is also in those that hold it: a denied group that holds all its members may be one.
    bars = [groups.get(name, frozenset()) for name in denied]
    return tuple(name for name in granting if not any(bar >= groups.get(name, frozenset()) for bar in bars))


def _exceeded(file: RuleFile, rule: Rule, limits: Limits, question: Question) -> str:
    """Return the limit that a write breaks, empty when none."""
    level, size = question.level, question.size_bytes
    if question.deletes or level is _READ or (level is _ADMIN and size is None):
        return ""
    if not limits.allow_dirs and len(question.path.segments) > file.depth + 1:
        return LIMIT_DIRECTORY
    if limits.max_file_size_bytes is not None and size is not None and size > limits.max_file_size_bytes:
        return LIMIT_FILE_SIZE
    live = question.live_files
    if limits.max_files is None or live is None or question.path.is_policy_file:
        return ""
    others = live if isinstance(live, int) else live(_key(file, rule, question.requester))
    return LIMIT_FILE_COUNT if others + 1 > limits.max_files else ""
