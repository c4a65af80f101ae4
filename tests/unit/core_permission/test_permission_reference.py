"""The engine against a slow and obvious reading of the contract."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_reading import (
    BOB,
    EVE,
    OWNER,
    PEOPLE,
    TEMPLATES,
    Part,
    SlowFile,
    SlowRule,
    SlowTree,
    allows,
    groups_text,
    has_circle,
    in_group,
    is_email,
    is_wellformed,
    pattern_matches,
    rules_text,
    score,
    templates,
    value,
    wildcards,
    written,
)
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import MeshPath
from syftmesh_core.permission import (
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
from syftmesh_core.permission.node import matches_whole
from syftmesh_core.permission.program import compile_program, run
from syftmesh_core.permission.syntax import Syntax
from syftmesh_core.permission.template import Moment

EXAMPLES = int(os.environ.get("MESH_PROPERTY_EXAMPLES", "250"))
many = settings(max_examples=EXAMPLES, deadline=None)

NOW = int(datetime(2026, 3, 7, tzinfo=UTC).timestamp() * 1000)

# --- what is tried ---

CHARACTERS = "ab@.-A0,é"
character = st.sampled_from(CHARACTERS).map(lambda c: ("c", c))
ranges = st.lists(
    st.sampled_from([("a", "a"), ("a", "z"), ("@", "@"), ("0", "9"), (".", "/")]), min_size=1, max_size=2
)
leaf = st.one_of(
    character,
    character,
    st.just(("*",)),
    st.just(("*",)),
    st.just(("/",)),
    st.just(("/",)),
    st.just(("?",)),
    st.tuples(st.just("["), st.booleans(), ranges.map(tuple)),
    st.sampled_from(TEMPLATES).map(lambda name: ("t", name)),
)


def braces(inner: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    options = st.lists(st.lists(inner, max_size=3).map(tuple), min_size=1, max_size=3)
    return st.tuples(st.just("{"), options.map(tuple))


part = st.one_of(leaf, leaf, leaf, braces(leaf), braces(st.one_of(leaf, braces(leaf))))
FREQUENT: list[tuple[Part, ...]] = [
    (("*",), ("*",)),
    (("*",), ("*",), ("/",), ("*",)),
    (("*",), ("*",), ("/",), ("*",), ("c", "a")),
    (("c", "a"), ("/",), ("*",), ("*",), ("/",), ("*",), ("c", "b")),
    (("c", "a"), ("/",), ("*",), ("*",), ("/",), ("*",)),
    (("*",), ("c", "a")),
    (("c", "a"), ("*",), ("/",), ("c", "b")),
    (("*",), ("/",), ("*",)),
    (("t", ".UserEmail"), ("/",), ("*",), ("*",)),
    (("c", "a"), ("/",), ("t", ".UserEmail"), ("/",), ("*",), ("*",)),
    (("c", "a"), ("/",), ("*",), ("*",)),
    (("t", "sha2 .UserEmail 2"), ("*",)),
    (("c", "a"),),
]


def has_few_wildcards(parts: tuple[Part, ...]) -> bool:
    return wildcards(parts) <= 32


patterns = st.one_of(
    st.sampled_from(FREQUENT),
    st.lists(part, min_size=1, max_size=7).map(tuple).filter(is_wellformed).filter(has_few_wildcards),
)
SEGMENTS = ["a", "b", "ab", "ba", "A", "-", "é", "07", BOB, EVE, BOB.upper(), "b@a", "a@a.-a", "0" * 16]
SEGMENTS += [value(".UserHash", BOB), value("sha2 .UserEmail 2", BOB), value("sha2 .UserEmail 2", EVE), "a,b"]
segment = st.one_of(
    st.sampled_from(SEGMENTS),
    st.text(CHARACTERS, min_size=1, max_size=6).filter(lambda text: text not in (".", "..")),
)
paths = st.lists(segment, min_size=1, max_size=4).map(tuple)


@many
@given(patterns, paths)
def test_pattern_matches_like_the_reference(parts: tuple[Part, ...], path: tuple[str, ...]) -> None:
    pattern = parse_pattern(written(parts))
    subject = Subject("/".join(path))
    assert pattern.could_match(subject, NOW) == pattern_matches(parts, path, None)
    for who in (BOB, EVE):
        expected = pattern_matches(parts, path, who)
        assert pattern.matches_for(who, subject, NOW) == expected
        assert not expected or pattern_matches(parts, path, None)


@many
@given(patterns, paths)
def test_every_way_of_matching_gives_the_same(parts: tuple[Part, ...], path: tuple[str, ...]) -> None:
    syntax = Syntax(written(parts))
    syntax.parse()
    program = compile_program(syntax.nodes)
    subject = Subject("/".join(path))
    for moment in (Moment(NOW), Moment(NOW, BOB)):
        whole = matches_whole(syntax.nodes, subject, moment)
        assert program is None or run(program, subject, moment) == whole
    found = parse_pattern(written(parts)).could_match(subject, NOW)
    assert found == matches_whole(syntax.nodes, subject, Moment(NOW))


@many
@given(patterns)
def test_score_is_like_the_reference(parts: tuple[Part, ...]) -> None:
    text = written(parts)
    pattern = parse_pattern(text)
    assert pattern.text == text
    assert pattern.score == score(text)
    assert pattern.is_personal == any("User" in name for name in templates(parts))


entries = st.lists(
    st.sampled_from(["*", "USER", BOB, EVE, "*@a.ba", "*b@*", "a*@*", "group:g", "group:none"]), max_size=2
)
accesses = st.dictionaries(st.sampled_from(["admin", "write", "create", "read"]), entries, max_size=3)
slow_rules = st.builds(
    SlowRule,
    patterns,
    accesses,
    st.just([]) | entries,
    st.sampled_from([False] * 5 + [True]),
    allow_dirs=st.sampled_from([True] * 3 + [False]),
)
slow_files = st.builds(SlowFile, st.booleans(), st.lists(slow_rules, max_size=5))
places = st.lists(st.sampled_from(["a", "b", BOB]), max_size=2).map(tuple)


files_by_place = st.dictionaries(places, slow_files, max_size=3)
members = st.lists(st.sampled_from([BOB, EVE, "group:g", "group:h", "group:none"]), max_size=3)
slow_groups = st.dictionaries(st.sampled_from(["g", "h", "i"]), members, max_size=3)
asked_paths = st.one_of(paths, st.tuples(places, paths).map(lambda pair: (*pair[0], *pair[1])))


def tree_of(slow: SlowTree) -> RuleTree:
    files = [(place, parse_ruleset(rules_text(file)), 1) for place, file in slow.files.items()]
    return RuleTree.build(OWNER, files, parse_groups(groups_text(slow.groups)).resolved)


trees = st.builds(SlowTree, files_by_place, slow_groups.filter(lambda groups: not has_circle(groups)))


@many
@given(trees, asked_paths)
def test_decision_is_like_the_reference(slow: SlowTree, path: tuple[str, ...]) -> None:
    tree = tree_of(slow)
    for who, level in product(PEOPLE, Level):
        decision = decide(tree, Question(who, MeshPath(OWNER, path), level, NOW))
        assert decision.allowed == allows(slow, path, who, level.value), (who, level, decision)
        assert bool(decision.needed) is not decision.allowed


@many
@given(trees, asked_paths)
def test_readers_are_those_who_may_read(slow: SlowTree, path: tuple[str, ...]) -> None:
    readers = readers_of(tree_of(slow), MeshPath(OWNER, path), NOW)
    may = {who for who in PEOPLE if allows(slow, path, who, "read")}
    assert OWNER in readers.principals
    assert (readers.kind is ReaderKind.PUBLIC) == ("" in may)
    assert ("guest" in may) == ("" in may)
    if readers.kind is not ReaderKind.PUBLIC:
        assert readers.principals & set(PEOPLE) <= may
    if readers.kind is ReaderKind.CLOSED:
        # Everybody who could be meant at all: those listed, in a group, or standing in the path.
        stand = {segment[i:j].lower() for segment in path for i in range(len(segment)) for j in range(i, 99)}
        others = {who for who in stand if is_email(who) and allows(slow, path, who, "read")}
        assert readers.principals == may | others


@many
@given(slow_groups)
def test_groups_that_contain_each_other_are_refused_and_no_others(groups: dict[str, list[str]]) -> None:
    if has_circle(groups):
        with pytest.raises(InvalidInput, match="contain each other"):
            parse_groups(groups_text(groups))
        return
    resolved = parse_groups(groups_text(groups)).resolved
    assert resolved.keys() == groups.keys()
    for name, found in resolved.items():
        assert found == {who for who in (BOB, EVE) if in_group(who, name, groups)}
