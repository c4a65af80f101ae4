"""What one rule file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from syftmesh_core.permission.entry import NOBODY, EntryList, join
from syftmesh_core.permission.pattern import Pattern, Shape
from syftmesh_core.permission.subject import Subject


class Level(StrEnum):
    """Rights: admin contains write, write contains create and read."""

    READ = "read"
    CREATE = "create"
    WRITE = "write"
    ADMIN = "admin"


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
    """The four lists of a rule as written."""

    admin: EntryList = NOBODY
    write: EntryList = NOBODY
    create: EntryList = NOBODY
    read: EntryList = NOBODY


@dataclass(frozen=True)
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

    def __post_init__(self) -> None:
        # What every decision needs is made once, when the file is parsed, never by the first who asks.
        _ = self.granted

    @cached_property
    def granted(self) -> Mapping[str, EntryList]:
        """Who has each level, the levels that contain it included; keyed by the level's text."""
        access = self.access
        return MappingProxyType(
            {
                "read": join((access.read, access.write, access.admin)),
                "create": join((access.create, access.write, access.admin)),
                "write": join((access.write, access.admin)),
                "admin": access.admin,
            }
        )


@dataclass(frozen=True)
class RuleSet:
    """One rule file.

    Attributes:
        terminal: Whether rule files further down are ignored.
        rules: In the order of the file.
    """

    terminal: bool = False
    rules: tuple[Rule, ...] = field(default=())

    def __post_init__(self) -> None:
        _ = self._ranked

    @cached_property
    def _ranked(self) -> tuple[dict[str, tuple[int, Rule]], tuple[tuple[int, Rule], ...]]:
        ranked = enumerate(sorted(self.rules, key=lambda rule: -rule.pattern.score))
        exact: dict[str, tuple[int, Rule]] = {}
        others = []
        for rank, rule in ranked:
            if rule.pattern.shape is Shape.EXACT:
                exact.setdefault(rule.pattern.head, (rank, rule))
            else:
                others.append((rank, rule))
        return exact, tuple(others)

    def deciding(self, subject: Subject, now_ms: int) -> Rule | None:
        """Return the most specific rule that matches `subject`, of equals the earlier; None when none does.

        A personal rule matches what it could match for some principal: the answer is the same whoever asks.
        """
        exact, others = self._ranked
        best_rank, best = exact.get(subject.text, (len(self.rules), None))
        for rank, rule in others:
            if rank > best_rank:
                break
            if rule.pattern.could_match(subject, now_ms):
                return rule
        return best
