"""Ten thousand random datasites against the slow reading of the contract: decisions and readers."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from random import Random

import pytest
from random_tree import Case, random_case
from slow_reading import (
    BOB,
    OWNER,
    PEOPLE,
    allows,
    groups_text,
    has_circle,
    in_group,
    is_email,
    pattern_matches,
    rules_text,
    written,
)
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import MeshPath
from syftmesh_core.permission import (
    LIMIT_REASONS,
    Decision,
    Level,
    Question,
    ReaderKind,
    RuleTree,
    Subject,
    decide,
    parse_groups,
    parse_pattern,
    parse_ruleset,
    readers_of,
)

TREES = 10_000
CHUNK = 500
NOW = int(datetime(2026, 3, 7, tzinfo=UTC).timestamp() * 1000)
SIZE = 6


@pytest.mark.parametrize("chunk", range(TREES // CHUNK))
def test_engine_decides_like_the_slow_reading(chunk: int) -> None:
    source = Random(chunk)  # noqa: S311 - the same cases every time
    seen: set[bool] = set()
    decided = 0
    while decided < CHUNK:
        case = random_case(source)
        tree = _parsed(case)
        if tree is None:
            continue
        shown = f"chunk {chunk}, tree {decided}: {case}"
        _check_patterns(case, shown)
        seen |= _check_decisions(case, tree, shown)
        _check_readers(case, tree, shown)
        decided += 1
    assert seen == {True, False}


def _parsed(case: Case) -> RuleTree | None:
    """Return the tree of the engine; None where the groups contain each other, which has to be refused."""
    text = groups_text(case.tree.groups)
    if has_circle(case.tree.groups):
        with pytest.raises(InvalidInput, match="contain each other"):
            parse_groups(text)
        return None
    files = [(place, parse_ruleset(rules_text(file)), 1) for place, file in case.tree.files.items()]
    return RuleTree.build(OWNER, files, parse_groups(text).resolved)


def _check_patterns(case: Case, shown: str) -> None:
    """Hold every pattern against the whole path, whether it decides there or not."""
    subject = Subject("/".join(case.path))
    for rule in (rule for file in case.tree.files.values() for rule in file.rules):
        pattern = parse_pattern(written(rule.parts))
        expected = pattern_matches(rule.parts, case.path, None)
        assert pattern.could_match(subject, NOW) == expected, f"{pattern.text!r} in {shown}"
        own = pattern_matches(rule.parts, case.path, BOB)
        assert pattern.matches_for(BOB, subject, NOW) == own, f"{pattern.text!r} in {shown}"


def _check_decisions(case: Case, tree: RuleTree, shown: str) -> set[bool]:
    path = MeshPath(OWNER, case.path)
    found = set()
    for who, level in product(PEOPLE, Level):
        decision = decide(tree, Question(who, path, level, NOW, size_bytes=SIZE))
        expected = allows(case.tree, case.path, who, level.value, SIZE)
        assert decision.allowed == expected, f"{who!r} {level.value}: {decision} in {shown}"
        assert bool(decision.needed) is not decision.allowed
        _check_groups(case, tree, Question(who, path, level, NOW, size_bytes=SIZE), decision, shown)
        found.add(expected and who != OWNER)
    return found


def _check_groups(case: Case, tree: RuleTree, question: Question, decision: Decision, shown: str) -> None:
    """Put the requester into each group that is said to do, or take it out of those that are said to deny."""
    groups, who = case.tree.groups, question.requester
    if decision.reason == "NOT_LISTED":
        for name in decision.groups:
            joined = {**groups, name: [*groups.get(name, []), who]}
            later = decide(tree.with_groups(parse_groups(groups_text(joined)).resolved), question)
            assert later.reason in ("RULE_ALLOWS", *LIMIT_REASONS), f"{who!r} in {name}: {later} in {shown}"
    else:
        assert all(in_group(who, name, groups) for name in decision.groups), f"{decision} in {shown}"


def _check_readers(case: Case, tree: RuleTree, shown: str) -> None:
    readers = readers_of(tree, MeshPath(OWNER, case.path), NOW)
    may = {who for who in PEOPLE if allows(case.tree, case.path, who, "read")}
    assert OWNER in readers.principals, shown
    assert (readers.kind is ReaderKind.PUBLIC) == ("" in may), shown
    if readers.kind is not ReaderKind.PUBLIC:
        assert readers.principals & set(PEOPLE) <= may, shown
    if readers.kind is ReaderKind.CLOSED:
        stand = {s[i:j].lower() for s in case.path for i in range(len(s)) for j in range(i + 6, len(s) + 1)}
        others = {who for who in stand if is_email(who) and allows(case.tree, case.path, who, "read")}
        assert readers.principals == may | others, shown
