"""What one rule file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from syftmesh_core.permission.entry import NOBODY, EntryList, Groups, join
from syftmesh_core.permission.pattern import Pattern, Shape
from syftmesh_core.permission.subject import Subject


class Level(StrEnum):
    """Rights: admin contains write, write contains create and read."""

    READ = "read"
    CREATE = "create"
    WRITE = "write"
    ADMIN = "admin"


# Python 3.11 looks a member of an enum up ten times as slowly as a name of the module.
_READ, _CREATE, _WRITE = Level.READ, Level.CREATE, Level.WRITE

_NO_EXACT: Final[Mapping[str, Rule]] = {}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what others than the owner write.

    Attributes:
        max_file_size_bytes: Largest new version, None for no bound, 0 allows nothing.
        max_files: Most live files for which the rule decides, None for no bound.
        allow_dirs: Whether a path may lie in a subdirectory of the rule file's directory.
    """

    max_file_size_bytes: int | None = None
    max_files: int | None = None
    allow_dirs: bool = True


@dataclass(frozen=True, slots=True)
class Access:
    """The four lists of a rule as written, and whom they grant what."""

    admin: EntryList = NOBODY
    write: EntryList = NOBODY
    create: EntryList = NOBODY
    read: EntryList = NOBODY

    def grants(self, level: Level, requester: str, groups: Groups) -> bool:
        """Return whether `requester` has `level`, by itself or by a level that contains it."""
        own, write, admin = self._lists(level)
        return (
            (own is not NOBODY and own.names(requester, groups))
            or (write is not NOBODY and write.names(requester, groups))
            or (admin is not NOBODY and admin.names(requester, groups))
        )

    def granted(self, level: Level) -> EntryList:
        """Return who has `level`, by itself or by a level that contains it."""
        return join(self._lists(level))

    def groups(self, level: Level) -> tuple[str, ...]:
        """Return the names of the groups that `granted` holds, each once."""
        own, write, admin = self._lists(level)
        names = own.groups + write.groups + admin.groups
        return tuple(dict.fromkeys(names)) if names else ()

    def _lists(self, level: Level) -> tuple[EntryList, EntryList, EntryList]:
        if level is _READ:
            return self.read, self.write, self.admin
        if level is _CREATE:
            return self.create, self.write, self.admin
        return NOBODY, self.write if level is _WRITE else NOBODY, self.admin


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        pattern: Which paths it decides.
        access: Whom it grants what.
        deny: Whom it grants nothing, whatever `access` says.
        expires_ms: From this Unix millisecond on it grants nothing; None for never.
        limits: Bounds on writes, None for none.
        line: Line of the file where it begins, from 1.
        index: Its place among the rules of the file, from 0.
    """

    pattern: Pattern
    access: Access
    deny: EntryList = NOBODY
    expires_ms: int | None = None
    limits: Limits | None = None
    line: int = 1
    index: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        """What orders the rules of a file: of two that match, the one with the lower rank decides."""
        return -self.pattern.score, self.index


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One rule file.

    Attributes:
        terminal: Whether rule files further down are ignored.
        rules: In the order of the file.
    """

    terminal: bool = False
    rules: tuple[Rule, ...] = ()
    _exact: Mapping[str, Rule] = field(init=False, repr=False, compare=False)
    _others: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact: dict[str, Rule] = {}
        others: list[Rule] = []
        for rule in sorted(self.rules, key=lambda rule: rule.rank):
            if rule.pattern.shape is Shape.EXACT:
                exact.setdefault(rule.pattern.head, rule)
            else:
                others.append(rule)
        object.__setattr__(self, "_exact", exact or _NO_EXACT)
        object.__setattr__(self, "_others", tuple(others))

    def deciding(self, subject: Subject, now_ms: int) -> Rule | None:
        """Return the most specific rule that matches `subject`, of equals the earlier; None when none does.

        A personal rule matches what it could match for some principal: the answer is the same whoever asks.
        """
        exact = self._exact.get(subject.text)
        for rule in self._others:
            if exact is not None and exact.rank < rule.rank:
                break
            if rule.pattern.could_match(subject, now_ms):
                return rule
        return exact
