"""Use case: answer questions now, and again whenever an answer changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.tree import RuleTree

from syftmesh_permissions.domain.batch import AskMany, Decided
from syftmesh_permissions.domain.consistency import Model, Token
from syftmesh_permissions.domain.horizon import Horizon
from syftmesh_permissions.domain.inquiry import Rules
from syftmesh_permissions.domain.question import Questions

MAX_WATCHED: Final = 1000
GATHER_S: Final = 0.2
"""Pause after news of the log: what comes together is looked at together, still well within a second."""

LOOK_S: Final = 5.0
"""Longest wait, so that a model that may not be answered from ends the stream, and a clock set anew is seen."""

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """One answer: the first of its question, or one that differs from the one before.

    Attributes:
        index: The question's place, from 0.
        answer: As the rulings render it.
        token: The point of the log that it was made at.
    """

    index: int
    answer: T
    token: Token


class WatchMany(Generic[T]):
    """Watches questions.

    Args:
        ask: What answers.
        rules: The rules of now.
        model: How far the log has come.
        clock: Time.
        sleep: Waits.
    """

    def __init__(
        self, ask: AskMany[T], rules: Rules, model: Model, clock: Clock, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._ask = ask
        self._rules = rules
        self._model = model
        self._clock = clock
        self._sleep = sleep

    async def run(self, caller: str, questions: Questions) -> AsyncIterator[Told[T]]:
        """Iterate over the answers to `questions`, then over every one that has changed, for ever.

        Whoever takes them slowly gets the newest only. `caller` is a principal, or anonymous.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID; metadata `index` names the question, from 0.
            PermissionDenied: (PERMISSION_DENIED) one is about somebody else, and `caller` is no admin there (any
                more); `index` likewise.
            Unavailable: The rules are not known now.
        """
        watched = _Watched[T](questions)
        due: Sequence[int] = range(len(questions))
        while True:
            now_ms = self._clock.now_ms()
            decided = await self._ask.run(caller, questions.part(due), due)
            for told in watched.note(due, decided, now_ms):
                yield told
            due = await self._next(watched, decided.token.sequence)

    async def _next(self, watched: _Watched[T], seen: int) -> Sequence[int]:
        """Wait for rules or moments that may change answers, and return the questions to ask again."""
        while True:
            now_ms = self._clock.now_ms()
            if due := watched.due(self._rules, now_ms):
                return due
            left_s = LOOK_S
            if (soonest_ms := watched.soonest_ms) is not None:
                left_s = min(left_s, (soonest_ms - now_ms) / 1000)
            if await self._model.wait_for(seen + 1, left_s):
                seen = self._model.token().sequence
                await self._sleep(min(GATHER_S, left_s))


class _Watched(Generic[T]):
    """What was told of the questions, by which rules, and until when it can hold."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._paths: dict[int, MeshPath] = {}
        self._answers: dict[int, T] = {}
        self._trees: dict[str, RuleTree] = {}
        self._moments: dict[int, int] = {}
        self._noted_ms = 0

    @property
    def soonest_ms(self) -> int | None:
        """The next moment (Unix milliseconds) at which an answer may change by the clock, None for never."""
        return min(self._moments.values(), default=None)

    def note(self, due: Sequence[int], decided: Decided[T], now_ms: int) -> list[Told[T]]:
        """Take in the answers to the questions `due`, decided at or behind `now_ms`; return what is new."""
        horizon, found = Horizon(now_ms), []
        self._noted_ms = now_ms
        for index, answer in zip(due, decided.answers, strict=True):
            path = self._path(index)
            tree = self._trees[path.site] = decided.session.tree(path.site)
            self._moments.pop(index, None)
            if (moment_ms := horizon.next_ms(tree, path)) is not None:
                self._moments[index] = moment_ms
            if self._answers.get(index) != answer:
                self._answers[index] = answer
                found.append(Told(index, answer, decided.token))
        return found

    def due(self, rules: Rules, now_ms: int) -> Sequence[int]:
        """Return the questions whose answers may have changed; raises Unavailable."""
        if now_ms < self._noted_ms:  # the clock was set back, so what had expired may hold again
            return range(len(self._questions))
        sites = {site for site, tree in self._trees.items() if not _is_same(tree, rules.tree(site))}
        sites |= {self._paths[i].site for i, moment_ms in self._moments.items() if moment_ms <= now_ms}
        # All of a datasite together, for they are told by one state of its rules.
        return [index for index, path in self._paths.items() if path.site in sites] if sites else ()

    def _path(self, index: int) -> MeshPath:
        path = self._paths.get(index)
        if path is None:
            path = self._paths[index] = parse_path(self._questions.texts[index], drop_trailing_slash=True)
        return path


def _is_same(tree: RuleTree, other: RuleTree) -> bool:
    """Return whether two trees of one datasite say the same, as far as that is to be had without reading them."""
    return tree is other or (_is_blank(tree) and _is_blank(other))


def _is_blank(tree: RuleTree) -> bool:
    """Return whether nothing is in `tree`; of a datasite that is not known there is a new one at each look."""
    return not tree.groups and next(iter(tree), None) is None
