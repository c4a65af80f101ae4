"""Rules, files, log and clock in memory: the ports of the permission service."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from syftmesh_core.errors import Unavailable
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.tree import Directory, RuleTree
from syftmesh_permissions.domain.consistency import Token

ALICE = "alice@site.example"
BOB = "bob@x.example"
CAROL = "carol@x.example"
EVE = "eve@evil.example"
NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


class Over(Exception):
    """The script of a test has ended."""


@dataclass(frozen=True)
class File:
    text: str
    path: MeshPath


class World:
    """Everything that the use cases ask for; `wait_for` follows a script of steps, one for each wait."""

    def __init__(self) -> None:
        self.at = Token(3, 10)
        self.trees: dict[str, RuleTree] = {}
        self.paths: dict[str, list[str]] = {}
        self.loading = False
        self.script: list[Callable[[], object]] = []
        self.waits: list[float] = []
        self.naps: list[float] = []
        self.time_ms = NOW_MS
        self.tick_s = 0.0
        self.looked_at: list[str] = []
        self._monotonic_s = 0.0

    # Clock

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic_s(self) -> float:
        self._monotonic_s += self.tick_s
        return self._monotonic_s

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)

    # Rules

    def tree(self, site: str) -> RuleTree:
        if self.loading:
            raise Unavailable("", reason="LOG_LOADING")
        if site in self.paths:
            self.trees.setdefault(site, RuleTree(site))
        # Of a datasite that is not known there is a new tree at each look, as in the file log.
        return self.trees.get(site) or RuleTree(site)

    def rules(self, text: str, directory: Directory = (), site: str = ALICE) -> None:
        """Let a rule file be as if it had been committed now."""
        tree = self.trees.get(site) or RuleTree(site)
        self.at = Token(self.at.epoch, self.at.sequence + 1)
        self.trees[site] = tree.with_rules(directory, parse_ruleset(text.encode()), self.at.sequence)

    def groups(self, text: str, site: str = ALICE) -> None:
        """Let the groups be as if they had been committed now."""
        tree = self.trees.get(site) or RuleTree(site)
        self.at = Token(self.at.epoch, self.at.sequence + 1)
        self.trees[site] = tree.with_groups(parse_groups(text.encode()).resolved)

    # Model

    def token(self) -> Token:
        if self.loading:
            raise Unavailable("", reason="LOG_LOADING")
        return self.at

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        await asyncio.sleep(0)
        if self.at.sequence >= sequence:
            return True
        self.waits.append(timeout_s)
        if not self.script:
            raise Over
        self.script.pop(0)()
        return self.at.sequence >= sequence

    # Files

    def sites(self) -> list[str]:
        return list(self.paths)

    def put(self, *paths: str) -> None:
        for text in paths:
            held = self.paths.setdefault(text.partition("/")[0], [])
            held.append(text)
            held.sort()

    def below(self, directory: str, after: str) -> Iterator[File]:
        held = self.paths.get(directory.partition("/")[0], [])
        for text in held[bisect_right(held, after) if after else 0 :]:
            if text.startswith(f"{directory}/"):
                self.looked_at.append(text)
                yield File(text, parse_path(text))


class Running:
    """Runs a coroutine step by step; iterates over the number of its waits."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work
        self.outcome: Any = None

    def __iter__(self) -> Iterator[int]:
        for waited in count(1):
            try:
                self._work.send(None)
            except StopIteration as done:
                self.outcome = done.value
                return
            yield waited
