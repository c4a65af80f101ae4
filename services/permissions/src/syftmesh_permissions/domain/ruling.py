"""Decisions for many questions: those of `inquiry.answer`, with what the questions share looked up once.

What a question shares with others is its path's deciding rule: the same for everybody, until the rules change
or, where patterns hold dates, the day. It is kept with the rules that it came from, so that it can never
outlive them. What is out of the ordinary (personal rules, limits, another moment, odd names) goes the exact way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar, cast

from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.permission.engine import OWNER, RULE_ALLOWS
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.tree import RuleTree
from syftmesh_core.principal import normalise_principal, parse_requester

from syftmesh_permissions.domain.clause import Clause, Folder, Home, is_ordinary
from syftmesh_permissions.domain.inquiry import Inquiry, Rules, answer
from syftmesh_permissions.domain.kept import Kept
from syftmesh_permissions.domain.question import LEVELS, Questions
from syftmesh_permissions.domain.sight import Sight, Verdict, denied, may_read

T = TypeVar("T")

MAX_KEPT: Final = 131_072
"""Paths, directories, datasites and requesters remembered, of each: tens of megabytes."""

_MAX_TEXT: Final = 256
_MS_PER_DAY: Final = 86_400_000


class Rulings(Generic[T]):
    """What is remembered between questions, for all callers.

    Args:
        rules: The rules of now.
        clock: The moment of decisions.
        render: Makes of a verdict what is answered; called once for each that is remembered.
        max_kept: Paths, directories, datasites and requesters remembered, of each.
    """

    def __init__(
        self, rules: Rules, clock: Clock, render: Callable[[Verdict], T], *, max_kept: int = MAX_KEPT
    ) -> None:
        self.rules = rules
        self.clock = clock
        self.render = render
        self.owner = render(Verdict(True, OWNER, None))
        self.clauses = Kept[Clause[T]](max_kept, _MAX_TEXT)
        self.folders = Kept[Folder[T]](max_kept, _MAX_TEXT)
        self.names = Kept[str](max_kept, _MAX_TEXT)
        self._homes = Kept[Home[T]](max_kept, _MAX_TEXT)

    def session(self, caller: str) -> Session[T]:
        """Return decisions for `caller` (a principal, a guest, or anonymous) at this moment."""
        return Session(self, caller, self.clock.now_ms())

    def home(self, tree: RuleTree, now_ms: int) -> Home[T]:
        """Return where what is known under `tree` is kept."""
        known, day = self._homes.find(tree.site), now_ms // _MS_PER_DAY
        if known is None or known.tree is not tree or known.day != day:
            known = Home(tree, day)
            self._homes.keep(tree.site, known)
        return known

    def requester(self, text: str) -> str:
        """Return the requester that `text` names; raises InvalidInput (PRINCIPAL_INVALID)."""
        name = self.names.find(text)
        if name is None:
            name = parse_requester(text)
            self.names.keep(text, name)
        return name


class Session(Generic[T]):
    """One caller's questions at one moment and one point of the log.

    The rules of a datasite are those of its first question here; to wait in between, `pin` all of them first.
    """

    def __init__(self, rulings: Rulings[T], caller: str, now_ms: int) -> None:
        self._rulings = rulings
        self._caller = caller
        self._now_ms = now_ms
        self._homes: dict[str, Home[T]] = {}
        self._sights: dict[Clause[T], Sight] = {}
        self._files: dict[str, bool] = {}

    def tree(self, site: str) -> RuleTree:
        """Return the rules of a datasite that this session decides by; raises Unavailable."""
        return self._home(site).tree

    def pin(self, texts: Iterable[str]) -> None:
        """Hold the rules that decide about the paths `texts`, as they are now; raises Unavailable."""
        for first in {text.partition("/")[0] for text in texts}:
            try:
                site = normalise_principal(first)
            except InvalidInput:
                continue  # the question itself is refused when its turn comes
            self._home(site)

    def take(self, questions: Questions, start: int, end: int, found: list[T]) -> None:
        """Append the answers to the questions from `start` to before `end`.

        After an error `found` ends before the answer to the question that is to blame.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID.
            PermissionDenied: (PERMISSION_DENIED) about somebody else without admin on the path.
            Unavailable: The rules are not known now.
        """
        for index in questions.timed_between(start, end):
            self._take_plain(questions, start, index, found)
            found.append(self._exactly(questions.inquiry(index)))
            start = index + 1
        self._take_plain(questions, start, end, found)

    def _take_plain(self, questions: Questions, start: int, end: int, found: list[T]) -> None:
        """Answer questions of now: here the time goes."""
        texts, names = questions.texts[start:end], questions.requesters[start:end]
        normalised = cast("Mapping[str | None, str]", self._rulings.names.young)
        clauses, requesters = map(self._rulings.clauses.young.get, texts), map(normalised.get, names)
        home: Home[T] | None = None
        caller, is_owner = self._caller, False
        for clause, text, level, name, requester in zip(
            clauses, texts, questions.levels[start:end], names, requesters, strict=True
        ):
            if clause is None or clause.home is not home:
                clause = self._find(text, clause)  # noqa: PLW2901 - the same, or what decides now
                if clause is None:
                    found.append(self._exactly(questions.inquiry(len(found))))
                    continue
                home, is_owner = clause.home, clause.site == caller
            who = requester
            if who is None:
                who = caller if name is None else self._rulings.requester(name)
            listed = clause.listed[level] if is_owner else None
            if listed is None:
                found.append(self._answer(clause, questions, len(found), who))
                continue
            given = clause.yes if who in listed else clause.no if who != caller else self._rulings.owner
            found.append(self._answer(clause, questions, len(found), who) if given is None else given)

    def _answer(self, clause: Clause[T], questions: Questions, index: int, requester: str) -> T:
        """Answer one question by what decides about its path, to whomever."""
        level = LEVELS[questions.levels[index]]
        if clause.is_limited and level is not Level.READ:
            return self._exactly(questions.inquiry(index))
        sight = self._sight(clause)
        if sight is not Sight.ADMIN and requester != self._caller:
            raise denied(parse_path(questions.texts[index]), requester)
        reason = clause.reason(requester, level, self._now_ms)
        if reason == OWNER:
            return self._rulings.owner
        return clause.give(reason, sight, self._rulings.render)

    def _home(self, site: str) -> Home[T]:
        home = self._homes.get(site)
        if home is None:
            tree = self._rulings.rules.tree(site)
            home = self._homes[site] = self._rulings.home(tree, self._now_ms)
        return home

    def _find(self, text: str, known: Clause[T] | None) -> Clause[T] | None:
        """Return what decides about the path `text`, None where only the exact way may tell.

        Args:
            text: As it was asked.
            known: What decided about it when it was asked last.
        """
        known = known or self._rulings.clauses.find(text)
        if known is not None and known.home is self._home(known.site):
            return known
        parent, _, name = text.rpartition("/")
        if not is_ordinary(name):
            return None
        folder = self._rulings.folders.find(parent)
        if folder is None or folder.home is not self._home(folder.home.tree.site):
            folder = self._folder(parent)
            if folder is None:
                return None
        file, rule = folder.file, None
        if file is not None:
            rule = file.rules.deciding(Subject(folder.prefix + name), self._now_ms)
            if rule is not None and rule.pattern.is_personal:
                return None
        clause = folder.home.clause(file, rule)
        self._rulings.clauses.keep(text, clause)
        return clause

    def _folder(self, parent: str) -> Folder[T] | None:
        try:
            path = parse_path(parent)
        except InvalidInput:
            return None  # the exact way says what is wrong with the whole path
        if not Folder.has_room(path):
            return None
        folder = Folder(self._home(path.site), path.segments)
        self._rulings.folders.keep(parent, folder)
        return folder

    def _sight(self, clause: Clause[T]) -> Sight:
        if self._caller == clause.site:
            return Sight.ADMIN
        sight = self._sights.get(clause)
        if sight is None:
            sight = self._sights[clause] = self._found_sight(clause)
        return sight

    def _found_sight(self, clause: Clause[T]) -> Sight:
        if clause.reason(self._caller, Level.ADMIN, self._now_ms) == RULE_ALLOWS:
            return Sight.ADMIN
        if clause.file is None:
            return Sight.NONE
        file = clause.file.path
        if file not in self._files:
            self._files[file] = may_read(clause.home.tree, self._caller, file, self._now_ms)
        return Sight.READER if self._files[file] else Sight.NONE

    def _exactly(self, inquiry: Inquiry) -> T:
        path = parse_path(inquiry.path, drop_trailing_slash=True)
        found = answer(self.tree(path.site), self._caller, path, inquiry, self._now_ms)
        return self._rulings.render(found.verdict)
