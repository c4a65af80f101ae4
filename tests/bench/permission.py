"""Permission checks in process: against a plain walk over the same rules, and as rules grow."""

from __future__ import annotations

import fnmatch
import gc
import random
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.child import module, running
from bench.measure import Row, Target, alone, compared, pairs, percentile
from syftmesh_core.path import parse_path
from syftmesh_core.permission import Level, Question, RuleSet, RuleTree, decide, parse_ruleset

OWNER: Final = "alice@hospital.example"
FILES: Final = 10_000
RULES_IN_FILE: Final = 5
SMALL, LARGE = 1_000, 100_000
"""Rules that the growth is measured over, `RULES_IN_FILE` in a file; and, as a row that is shown, as many files."""
QUESTIONS: Final = 10_000
TEXTS: Final = 1_000
PEOPLE: Final = 100
P99_LIMIT_US: Final = 20.0
MEMORY_LIMIT_MB: Final = 200.0
NOW_MS: Final = 1_800_000_000_000

Directory = tuple[str, ...]


async def check(folder: Path, count: int) -> list[Row]:
    """Measure one decision after the other on trees of three sizes, and what the largest takes."""
    source = random.Random(7)  # noqa: S311 - the same questions every time
    texts = [_rules(source, number, PEOPLE) for number in range(TEXTS)]
    parsed = [parse_ruleset(text.encode()) for text in texts]
    directories = _directories(FILES)
    tree, questions = _tree(parsed, directories), _questions(source, directories)
    walk = Walk({d: texts[n % TEXTS] for n, d in enumerate(directories)})

    async def ours() -> float:
        return percentile(_times(partial(decide, tree), questions), 0.5)

    async def reference() -> float:
        return percentile(_times(walk.check, questions), 0.5)

    against = await pairs(count, ours, reference)
    tails = [percentile(_times(partial(decide, tree), questions), 0.99) for _ in range(count)]
    return [
        alone("permission check in process, 10 k rule files, p99", "us", tails, P99_LIMIT_US),
        compared("permission check in process, 10 k rule files, p50", "us", "plain walk", against, None),
        await _slope(source, parsed, count, files=(SMALL // RULES_IN_FILE, LARGE // RULES_IN_FILE)),
        await _slope(source, parsed, count, files=(SMALL, LARGE), limit=None),
        await _memory(folder, PEOPLE, MEMORY_LIMIT_MB),
        await _memory(folder, 10 * PEOPLE, None),
    ]


async def _slope(
    source: random.Random,
    parsed: Sequence[RuleSet],
    count: int,
    *,
    files: tuple[int, int],
    limit: float | None = 1.3,
) -> Row:
    """Measure one check in trees of a few and of many files."""
    trees = {size: (_directories(size), _tree(parsed, _directories(size))) for size in files}
    asked = {size: _questions(source, directories) for size, (directories, _) in trees.items()}

    def sample(size: int) -> Callable[[], Any]:
        async def take() -> float:
            return percentile(_times(partial(decide, trees[size][1]), asked[size]), 0.5)

        return take

    few, many = files
    found = await pairs(count, sample(many), sample(few))
    what = f"permission check, {many * RULES_IN_FILE:,} rules in {many:,} files"
    peer = f"ours with {few * RULES_IN_FILE:,} rules"
    return compared(what, "us", peer, found, Target(limit) if limit else None)


async def _memory(folder: Path, people: int, limit_mb: float | None) -> Row:
    """Measure files that all differ, each parsed by itself in a process of their own."""
    command = (*module("bench.permission_memory"), str(LARGE), str(people))
    async with running(*command, log=folder / "memory.log", word="bytes", timeout_s=900) as (_, line):
        found_mb = int(line.split()[1]) / 1e6
    what = f"memory of 100 k distinct rule files, 5 rules each, {people} people"
    return alone(what, "MB", [found_mb], limit_mb)


class Walk:
    """A plain reading: the deepest rule file above the path, its rules in order, the longest pattern that fits."""

    def __init__(self, texts: dict[Directory, str]) -> None:
        cache: dict[str, list[tuple[re.Pattern[str], str, frozenset[str]]]] = {}
        self._rules = {d: cache.setdefault(text, _compiled(text)) for d, text in texts.items()}

    def check(self, question: Question) -> bool:
        """Whether the requester may."""
        segments = question.path.segments
        for depth in range(len(segments) - 1, -1, -1):
            rules = self._rules.get(segments[:depth])
            if rules is not None:
                rest = "/".join(segments[depth:])
                fitting = [
                    (len(pattern), allowed) for regex, pattern, allowed in rules if regex.fullmatch(rest)
                ]
                return bool(fitting) and question.requester in max(fitting, key=lambda pair: pair[0])[1]
        return False


def _compiled(text: str) -> list[tuple[re.Pattern[str], str, frozenset[str]]]:
    found = re.findall(r'pattern: "([^"]+)"\n    access: \{read: \["([^"]+)", "([^"]+)"\]', text)
    return [(re.compile(fnmatch.translate(p)), p, frozenset(who)) for p, *who in found]


def _rules(source: random.Random, number: int, people: int = PEOPLE) -> str:
    """Return a rule file like no other of the same kind: by a pattern of its own, and two people a rule."""
    lines = ["rules:"]
    for pattern in ("**", "*.csv", f"part-{number}/*.csv", "reports/**/*.md", "notes-?.txt"):
        first, second = source.sample(range(people), 2)
        lines.append(f'  - pattern: "{pattern}"\n    access: {{read: ["{_who(first)}", "{_who(second)}"]}}')
    return "\n".join(lines) + "\n"


def _who(number: int) -> str:
    return f"person{number}@lab.example"


def _directories(count: int) -> list[Directory]:
    """Return so many directories, three levels deep."""
    return [(f"area-{n % 20}", f"project-{n // 20 % 500}", f"set-{n}") for n in range(count)]


def _tree(parsed: Sequence[RuleSet], directories: Sequence[Directory]) -> RuleTree:
    return RuleTree.build(OWNER, ((d, parsed[n % TEXTS], n + 1) for n, d in enumerate(directories)))


def _questions(source: random.Random, directories: Sequence[Directory]) -> list[Question]:
    names = ("table.csv", "readme.md", "reports/2026/march.md", "notes-1.txt", "deep/er/file.bin")
    found = []
    for _ in range(QUESTIONS):
        path = "/".join((OWNER, *source.choice(directories), source.choice(names)))
        found.append(Question(_who(source.randrange(PEOPLE)), parse_path(path), Level.READ, NOW_MS))
    return found


def _times(ask: Callable[[Question], Any], questions: Sequence[Question]) -> list[float]:
    """Return the microseconds of each decision."""
    gc.collect()
    clock = time.perf_counter_ns
    found = []
    for question in questions:
        started = clock()
        ask(question)
        found.append((clock() - started) / 1000)
    return found
