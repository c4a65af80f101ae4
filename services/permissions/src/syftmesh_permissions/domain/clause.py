"""What decides about paths, kept with the rules that it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

from syftmesh_core.path import MAX_PATH_BYTES, MAX_SEGMENTS, SETTINGS_FILE, MeshPath
from syftmesh_core.permission.engine import (
    DENIED_BY_RULE,
    EXPIRED,
    NO_RULE_FILE,
    NO_RULE_MATCHES,
    OWNER,
    RULE_ALLOWS,
    grant_reason,
)
from syftmesh_core.permission.entry import NOBODY
from syftmesh_core.permission.ruleset import Level, Rule
from syftmesh_core.permission.tree import Directory, RuleFile, RuleTree

from syftmesh_permissions.domain.question import LEVELS
from syftmesh_permissions.domain.sight import Sight, Verdict

T = TypeVar("T")
Listed = tuple[Collection[str] | None, ...]

_MAX_NAME: Final = 64
_ORDINARY: Final = re.compile(rf"(?!(?i:syft))[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{_MAX_NAME - 1}}}")
_NOBODY: Final[Listed] = ((),) * len(LEVELS)


def is_ordinary(name: str) -> bool:
    """Return whether a last segment is certainly canonical, and of no file with a meaning of its own."""
    return _ORDINARY.fullmatch(name) is not None and name != SETTINGS_FILE


class Home(Generic[T]):
    """The rules of one datasite on one day, to which everything remembered belongs.

    Args:
        tree: The rules.
        day: Days since 1970, UTC: patterns may hold dates.
    """

    __slots__ = ("_clauses", "_listed", "day", "tree")

    def __init__(self, tree: RuleTree, day: int) -> None:
        self.tree = tree
        self.day = day
        # By identity: files and rules live as long as the tree.
        self._clauses: dict[tuple[int, int], Clause[T]] = {}
        self._listed: dict[int, Listed] = {}

    def clause(self, file: RuleFile | None, rule: Rule | None) -> Clause[T]:
        """Return the one clause of that rule, or of no rule of the file, or of no file."""
        key = (id(file), -1 if rule is None else rule.index)
        clause = self._clauses.get(key)
        if clause is None:
            clause = self._clauses[key] = Clause(self, file, rule)
        return clause

    def listed(self, rule: Rule) -> Listed:
        """Return for each of `LEVELS` exactly who has it by `rule`; None where it takes more than a list of e-mails.

        Files of one text share their rules, and so this.
        """
        found = self._listed.get(id(rule))
        if found is None:
            found = self._listed[id(rule)] = tuple(self._emails(rule, level) for level in LEVELS)
        return found

    def _emails(self, rule: Rule, level: Level) -> Collection[str] | None:
        if rule.expires_ms is not None or rule.deny is not NOBODY or rule.limits is not None:
            return None
        entries = rule.access.granted(level)
        more = entries.everyone or entries.authenticated or entries.globs or entries.groups
        return None if more or self.tree.site in entries.emails else entries.emails


class Clause(Generic[T]):
    """What decides about a path: a rule of a file, or that there is none.

    Attributes:
        home: The rules that it belongs to.
        site: Whose they are.
        file: The governing file, None without one.
        rule: The deciding rule, None without one; no personal one.
        listed: See `Home.listed`.
        is_limited: Whether a write may break a limit.
        yes: What is answered, to whom all is shown, where `listed` grants; None before the first time.
        no: Likewise where it does not.
    """

    __slots__ = ("_given", "file", "home", "is_limited", "listed", "no", "rule", "site", "yes")

    def __init__(self, home: Home[T], file: RuleFile | None, rule: Rule | None) -> None:
        self.home = home
        self.site = home.tree.site
        self.file = file
        self.rule = rule
        self.listed = _NOBODY if rule is None else home.listed(rule)
        self.is_limited = rule is not None and rule.limits is not None
        self.yes: T | None = None
        self.no: T | None = None
        self._given: dict[tuple[str, Sight], T] | None = None

    def reason(self, requester: str, level: Level, now_ms: int) -> str:
        """Return why `requester` has `level`, or has not; for `now_ms` in Unix milliseconds."""
        rule = self.rule
        if requester == self.site:
            return OWNER
        if rule is None:
            return NO_RULE_FILE if self.file is None else NO_RULE_MATCHES
        return grant_reason(rule, requester, level, self.home.tree.groups, now_ms)

    def give(self, reason: str, sight: Sight, render: Callable[[Verdict], T]) -> T:
        """Return what is answered for `reason` to who has `sight`; rendered once."""
        if self._given is None:
            self._given = {}
        given = self._given.get((reason, sight))
        if given is None:
            file, allowed = self.file, reason == RULE_ALLOWS
            verdict = Verdict(allowed, reason, file.ref(self.rule) if file is not None else None)
            given = self._given[reason, sight] = render(verdict.seen_by(sight))
            if sight is Sight.ADMIN and allowed:
                self.yes = given
            elif sight is Sight.ADMIN and reason not in (DENIED_BY_RULE, EXPIRED):
                self.no = given
        return given


class Folder(Generic[T]):
    """A directory whose files are asked about.

    Attributes:
        home: The rules that it belongs to.
        file: The rule file that governs its files, None without one.
        prefix: What leads from that file's directory to here, with a slash at its end; empty for the same.
    """

    __slots__ = ("file", "home", "prefix")

    def __init__(self, home: Home[T], segments: Directory) -> None:
        self.home = home
        self.file = home.tree.governing((*segments, "*"))
        depth = len(self.file.directory) if self.file else 0
        self.prefix = "".join(f"{name}/" for name in segments[depth:])

    @staticmethod
    def has_room(path: MeshPath) -> bool:
        """Return whether any ordinary name below the directory `path` makes a path."""
        size_bytes = len(str(path).encode()) + 1 + _MAX_NAME
        return size_bytes <= MAX_PATH_BYTES and len(path.segments) + 2 <= MAX_SEGMENTS
