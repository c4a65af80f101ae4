"""Decisions for many questions: those of `inquiry.answer`, with what the questions share looked up once.

What a question shares with others is its path's deciding rule: the same for everybody, until the rules change
or, where patterns hold dates, the day. It is kept with the rules that it came from, so that it can never
outlive them. What is out of the ordinary (personal rules, limits, another moment, odd names) goes the exact way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, Final, Generic, TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import MAX_PATH_BYTES, MAX_SEGMENTS, SETTINGS_FILE, parse_path
from syftmesh_core.permission.engine import (
    DENIED_BY_RULE,
    EXPIRED,
    NO_RULE_FILE,
    NO_RULE_MATCHES,
    NOT_LISTED,
    OWNER,
    RULE_ALLOWS,
)
from syftmesh_core.permission.entry import NOBODY, EntryList
from syftmesh_core.permission.ruleset import Level, Rule
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.tree import RuleFile, RuleTree
from syftmesh_core.principal import normalise_principal, parse_requester

from syftmesh_permissions.domain.inquiry import Inquiry, Rules, answer
from syftmesh_permissions.domain.sight import Sight, Verdict, denied, may_read

T = TypeVar("T")

Asked = tuple[str, Level, str | None, int | None, int | None]
"""The fields of an `Inquiry` in their order; thousands at once are not worth thousands of objects."""

MAX_KEPT: Final = 65_536
"""Paths, directories and datasites remembered, of each: tens of megabytes. One more, and all are forgotten."""

_MAX_NAMES: Final = 8192
_MAX_TEXT: Final = 256
_MAX_NAME: Final = 64
_MS_PER_DAY: Final = 86_400_000
_ORDINARY: Final = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{_MAX_NAME - 1}}}")
_NO_LISTS: Final = dict.fromkeys(Level, NOBODY)


class _Home:
    """The rules of one datasite on one day, to which everything remembered belongs."""

    __slots__ = ("clauses", "day", "tree")

    def __init__(self, tree: RuleTree, day: int) -> None:
        self.tree = tree
        self.day = day
        self.clauses: dict[tuple[int, int], _Clause] = {}


class _Clause:
    """What decides about a path: a rule of a file, or that there is none."""

    __slots__ = (
        "admin",
        "deny",
        "expires_ms",
        "file",
        "given",
        "granted",
        "home",
        "otherwise",
        "rule",
        "site",
    )

    def __init__(self, home: _Home, file: RuleFile | None, rule: Rule | None) -> None:
        self.home = home
        self.site = home.tree.site
        self.file = file
        self.rule = rule
        self.otherwise = NOT_LISTED if rule else NO_RULE_MATCHES if file else NO_RULE_FILE
        self.expires_ms = rule.expires_ms if rule else None
        self.deny = rule.deny if rule else NOBODY
        self.admin = rule.access.admin if rule else NOBODY
        self.granted: dict[Level, EntryList | None] = {**_NO_LISTS}
        self.given: dict[str, Any] = {}
        if rule is not None:
            for level in Level:
                limited = rule.limits is not None and level is not Level.READ
                self.granted[level] = None if limited else rule.access.granted(level)

    def verdict(self, reason: str) -> Verdict:
        ref = None if self.file is None or reason == OWNER else self.file.ref(self.rule)
        return Verdict(reason in (OWNER, RULE_ALLOWS), reason, ref)

    def reason(self, requester: str, entries: EntryList, now_ms: int) -> str:
        """Return why `requester` is granted what `entries` grant, or is not."""
        if requester == self.site:
            return OWNER
        if self.expires_ms is not None and now_ms >= self.expires_ms:
            return EXPIRED
        groups = self.home.tree.groups
        if self.deny is not NOBODY and self.deny.names(requester, groups):
            return DENIED_BY_RULE
        if requester in entries.principals or entries.names(requester, groups):
            return RULE_ALLOWS
        return self.otherwise


class _Folder:
    """A directory whose files are asked about; `prefix` leads from the rule file's directory to it."""

    __slots__ = ("file", "home", "prefix", "site")

    def __init__(self, home: _Home, segments: tuple[str, ...]) -> None:
        self.home = home
        self.site = home.tree.site
        self.file = home.tree.governing((*segments, "*"))
        depth = len(self.file.directory) if self.file else 0
        self.prefix = "".join(f"{name}/" for name in segments[depth:])


class Rulings(Generic[T]):
    """What is remembered between questions, for all callers.

    Args:
        rules: The rules of now.
        clock: The moment of decisions.
        render: Makes of a verdict what is answered; called once for each that is remembered.
        max_kept: Paths, directories and datasites remembered, of each.
    """

    def __init__(
        self, rules: Rules, clock: Clock, render: Callable[[Verdict], T], *, max_kept: int = MAX_KEPT
    ) -> None:
        self.rules = rules
        self.clock = clock
        self.render = render
        self.clauses: dict[str, _Clause] = {}
        self.folders: dict[str, _Folder] = {}
        self.names: dict[str, str] = {}
        self._homes: dict[str, _Home] = {}
        self._max_kept = max_kept

    def session(self, caller: str) -> Session[T]:
        """Return decisions for `caller` (a principal, or anonymous) at this moment."""
        return Session(self, caller, self.clock.now_ms())

    def home(self, tree: RuleTree, now_ms: int) -> _Home:
        """Return where what is known under `tree` is kept."""
        known, day = self._homes.get(tree.site), now_ms // _MS_PER_DAY
        if known is None or known.tree is not tree or known.day != day:
            self._make_room(self._homes)
            known = self._homes[tree.site] = _Home(tree, day)
        return known

    def keep_clause(self, text: str, clause: _Clause) -> None:
        """Remember what decides about a path."""
        self._make_room(self.clauses)
        if len(text) <= _MAX_TEXT:
            self.clauses[text] = clause

    def keep_folder(self, text: str, folder: _Folder) -> None:
        """Remember the rule file of a directory."""
        self._make_room(self.folders)
        if len(text) <= _MAX_TEXT:
            self.folders[text] = folder

    def _make_room(self, kept: Sized) -> None:
        # All at once: what hangs together goes together, and what is asked for comes back by itself.
        if len(kept) >= self._max_kept:
            self.clauses.clear()
            self.folders.clear()
            self._homes.clear()

    def requester(self, text: str) -> str:
        """Return the requester that `text` names; raises InvalidInput (PRINCIPAL_INVALID)."""
        name = parse_requester(text)
        if len(self.names) >= _MAX_NAMES:
            self.names.clear()
        self.names[text] = name
        return name


class Session(Generic[T]):
    """One caller's questions at one moment and one point of the log.

    The rules of a datasite are those of its first question here; to wait in between, `pin` all of them first.
    """

    def __init__(self, rulings: Rulings[T], caller: str, now_ms: int) -> None:
        self._rulings = rulings
        self._caller = caller
        self._now_ms = now_ms
        self._homes: dict[str, _Home] = {}
        self._sights: dict[_Clause, Sight] = {}
        self._files: dict[str, bool] = {}

    def tree(self, site: str) -> RuleTree:
        """Return the rules of a datasite that this session decides by; raises Unavailable."""
        return self._home(site).tree

    def pin(self, asked: Iterable[Asked]) -> None:
        """Hold the rules that decide about `asked`, as they are now; raises Unavailable."""
        for first in {text.partition("/")[0] for text, *_ in asked}:
            try:
                site = normalise_principal(first)
            except InvalidInput:
                continue  # the question itself is refused when its turn comes
            self._home(site)

    def take(self, asked: Sequence[Asked], found: list[T]) -> None:
        """Append the answers to `asked`; after an error `found` ends before the question that is to blame.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID.
            PermissionDenied: (PERMISSION_DENIED) about somebody else without admin on the path.
            Unavailable: The rules are not known now.
        """
        known, homes, names = self._rulings.clauses.get, self._homes.get, self._rulings.names.get
        caller, now_ms, sights = self._caller, self._now_ms, self._sights.get
        for text, level, who, size_bytes, at_ms in asked:
            clause = known(text)
            if clause is None or clause.home is not homes(clause.site):
                clause = self._find(text, clause)
            entries = None if clause is None or at_ms is not None else clause.granted[level]
            if clause is None or entries is None:
                found.append(self._exactly(Inquiry(text, level, who, size_bytes, at_ms)))
                continue
            requester = caller if who is None else names(who) or self._rulings.requester(who)
            sight = Sight.ADMIN if caller == clause.site else sights(clause) or self._sight(clause)
            if sight is not Sight.ADMIN and requester != caller:
                raise denied(parse_path(text, drop_trailing_slash=True), requester)
            reason = clause.reason(requester, entries, now_ms)
            if sight is Sight.NONE:
                reason = f"{reason} unseen"
            given = clause.given.get(reason)
            found.append(self._give(clause, reason, sight) if given is None else given)

    def _give(self, clause: _Clause, key: str, sight: Sight) -> T:
        reason, _, _ = key.partition(" ")
        given = self._rulings.render(clause.verdict(reason).seen_by(sight))
        clause.given[key] = given
        return given

    def _home(self, site: str) -> _Home:
        home = self._homes.get(site)
        if home is None:
            tree = self._rulings.rules.tree(site)
            home = self._homes[site] = self._rulings.home(tree, self._now_ms)
        return home

    def _find(self, text: str, known: _Clause | None) -> _Clause | None:
        """Return what decides about the path `text`, None where only the exact way may tell.

        Args:
            text: As it was asked.
            known: What decided about it when it was asked last.
        """
        if known is not None and known.home is self._home(known.site):
            return known
        parent, _, name = text.rpartition("/")
        if not _ORDINARY.fullmatch(name) or name == SETTINGS_FILE or name[:4].lower() == "syft":
            return None
        folder = self._rulings.folders.get(parent)
        if folder is None or folder.home is not self._home(folder.site):
            folder = self._folder(parent)
            if folder is None:
                return None
        file, home = folder.file, folder.home
        rule = None
        if file is not None:
            rule = file.rules.deciding(Subject(folder.prefix + name), self._now_ms)
            if rule is not None and rule.pattern.is_personal:
                return None
        key = (id(file), -1 if rule is None else rule.index)
        clause = home.clauses.get(key)
        if clause is None:
            clause = home.clauses[key] = _Clause(home, file, rule)
        self._rulings.keep_clause(text, clause)
        return clause

    def _folder(self, parent: str) -> _Folder | None:
        try:
            path = parse_path(parent)
        except InvalidInput:
            return None  # the exact way says what is wrong with the whole path
        long = len(str(path).encode()) + 1 + _MAX_NAME > MAX_PATH_BYTES
        if long or len(path.segments) + 2 > MAX_SEGMENTS:
            return None
        folder = _Folder(self._home(path.site), path.segments)
        self._rulings.keep_folder(parent, folder)
        return folder

    def _sight(self, clause: _Clause) -> Sight:
        sight = Sight.NONE
        if clause.reason(self._caller, clause.admin, self._now_ms) == RULE_ALLOWS:
            sight = Sight.ADMIN
        elif clause.file is not None:
            file = clause.file.path
            if file not in self._files:
                self._files[file] = may_read(clause.home.tree, self._caller, file, self._now_ms)
            sight = Sight.READER if self._files[file] else Sight.NONE
        self._sights[clause] = sight
        return sight

    def _exactly(self, inquiry: Inquiry) -> T:
        path = parse_path(inquiry.path, drop_trailing_slash=True)
        found = answer(self.tree(path.site), self._caller, path, inquiry, self._now_ms)
        return self._rulings.render(found.verdict)
