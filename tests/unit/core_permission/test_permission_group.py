from __future__ import annotations

import tracemalloc

import pytest
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    GroupList,
    Groups,
    Level,
    Question,
    ReaderKind,
    RuleTree,
    decide,
    is_group_name,
    level_for_write,
    parse_groups,
    parse_ruleset,
    readers_of,
)
from syftmesh_core.permission.group import MAX_GROUPS, MAX_MEMBERS, MAX_RESOLVED

ALICE, BOB, DORA, EVE = "alice@x.org", "bob@x.org", "dora@lab.example", "eve@corp.example"
NOW = 1_800_000_000_000


def refusal(text: str | bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_groups(text.encode() if isinstance(text, str) else text)
    assert caught.value.reason == "RULES_INVALID"
    assert caught.value.message.isascii()
    return caught.value


def resolved(text: str) -> dict[str, set[str]]:
    return {name: set(members) for name, members in parse_groups(text.encode()).resolved.items()}


FULL = f"""
# who reviews
groups:
  reviewers: ["{BOB}", "group:leads"]
  leads:
  - Dora@Lab.example
  nobody:
  empty: []
"""


def test_groups_are_named_lists_of_people_and_groups() -> None:
    found = parse_groups(FULL.encode())
    assert found.members["reviewers"].principals == {BOB}
    assert found.members["reviewers"].groups == ("leads",)
    assert found.members["leads"].principals == {DORA}
    assert found.resolved == {
        "reviewers": {BOB, DORA},
        "leads": {DORA},
        "nobody": frozenset(),
        "empty": frozenset(),
    }
    assert [found.lines[name] for name in ("reviewers", "empty")] == [4, 8]


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "{}", "groups:", "groups: {}"])
def test_a_file_without_groups_has_none(text: str) -> None:
    found = parse_groups(text.encode())
    assert (found.members, found.resolved, found.lines) == ({}, {}, {})
    assert isinstance(found, GroupList)


def test_nested_groups_are_resolved_whatever_their_order() -> None:
    text = "groups: {c: [c@x.org], a: ['group:b', a@x.org], b: ['group:c', 'group:d', b@x.org], d: [d@x.org]}"
    assert resolved(text) == {
        "a": {"a@x.org", "b@x.org", "c@x.org", "d@x.org"},
        "b": {"b@x.org", "c@x.org", "d@x.org"},
        "c": {"c@x.org"},
        "d": {"d@x.org"},
    }


def test_a_group_in_two_others_is_no_circle() -> None:
    text = "groups: {a: ['group:b', 'group:c'], b: ['group:d'], c: ['group:d'], d: [bob@x.org]}"
    assert resolved(text)["a"] == {BOB}


def test_a_nested_group_that_is_unknown_is_nobody() -> None:
    assert resolved("groups: {a: ['group:none', b@x.org]}") == {"a": {"b@x.org"}}


@pytest.mark.parametrize(
    ("text", "circle", "line"),
    [
        ("groups: {a: ['group:a']}", "a > a", 1),
        ("groups:\n  a: ['group:b']\n  b: ['group:a']", "a > b > a", 3),
        (
            "groups:\n  z: ['group:a']\n  a: ['group:b']\n  b: ['group:c']\n  c: ['group:a']",
            "a > b > c > a",
            5,
        ),
        ("groups:\n  ok: [b@x.org]\n  a: ['group:ok', 'group:a']", "a > a", 3),
    ],
)
def test_groups_that_contain_each_other_are_refused_with_the_circle(
    text: str, circle: str, line: int
) -> None:
    error = refusal(text)
    assert error.metadata == {"line": str(line), "why": f"the groups contain each other: {circle}"}


MALFORMED: list[tuple[str | bytes, int]] = [
    (b"\xff", 1),
    (b"groups:\n  a: []\n\x00", 3),
    ("[]", 1),
    ("text", 1),
    ("null", 1),
    ("groups: []", 1),
    ("groups: text", 1),
    ("groups: {}\nother: 1", 2),
    ("Groups: {}", 1),
    ("groups: {}\ngroups: {}", 2),
    ("groups:\n  a: []\n  a: []", 3),
    ("groups: {A: []}", 1),
    ("groups: {-a: []}", 1),
    ("groups: {'a b': []}", 1),
    ("groups: {'': []}", 1),
    ("groups: {'group:a': []}", 1),
    (f"groups: {{{'a' * 64}: []}}", 1),
    ("groups: {\u00e9: []}", 1),
    ("groups:\n  a: b@x.org", 2),
    ("groups:\n  a: {}", 2),
    ("groups:\n  a: 5", 2),
    ("groups:\n  a: ''", 2),
    ("groups:\n  a:\n  - b@x.org\n  - '*'", 4),
    ("groups:\n  a:\n  - USER", 3),
    ("groups:\n  a:\n  - '*@x.org'", 3),
    ("groups:\n  a:\n  - guest", 3),
    ("groups:\n  a:\n  - 'group:B'", 3),
    ("groups:\n  a:\n  - bob", 3),
    ("groups:\n  a:\n  - 5", 3),
    ("groups:\n  a:\n  -", 3),
    ("groups:\n  a:\n  - [b@x.org]", 3),
    ("groups:\n  a:\n  - {b: c}", 3),
    ("groups:\n  a:\n  - ' b@x.org'", 3),
    ("groups: &x {a: []}", 1),
    ("groups:\n  a: &x []\n  b: *x", 2),
    ("groups: !!map {a: []}", 1),
    ("groups:\n  <<: {a: []}", 2),
    ("groups: {}\n---\ngroups: {}", 2),
    ("groups: {a: [[[[[[[[[[]]]]]]]]]]}", 1),
    ("[" * 30_000, 1),
    ("groups: {a: [" * 5_000, 1),
]


@pytest.mark.parametrize(("text", "line"), MALFORMED)
def test_malformed_groups_are_refused_with_their_line(text: str | bytes, line: int) -> None:
    error = refusal(text)
    assert error.metadata["line"] == str(line)
    assert error.metadata["why"] in error.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", True),
        ("9_-", True),
        ("a" * 63, True),
        ("", False),
        ("a" * 64, False),
        ("-a", False),
        ("A", False),
    ],
)
def test_names_of_groups(name: str, *, expected: bool) -> None:
    assert is_group_name(name) is expected


def test_a_file_has_at_most_64_kib() -> None:
    refusal("#" + "x" * 64 * 1024)
    refusal(b"groups: {a: [b@x.org]}\n" + b"#" * 5_000_000)


def test_numbers_of_groups_and_members_are_bounded() -> None:
    assert len(resolved("groups:\n" + "".join(f"  g{n}:\n" for n in range(MAX_GROUPS)))) == MAX_GROUPS
    assert (
        "groups"
        in refusal("groups:\n" + "".join(f"  g{n}:\n" for n in range(MAX_GROUPS + 1))).metadata["why"]
    )
    people = [f"p{n}@x.org" for n in range(MAX_MEMBERS)]
    assert len(resolved(f"groups: {{a: [{', '.join(people)}]}}")["a"]) == MAX_MEMBERS
    refusal(f"groups: {{a: [{', '.join([*people, BOB])}]}}")
    error = refusal(f"groups:\n  a: [{', '.join(people)}]\n  b: ['group:a', {BOB}]")
    assert error.metadata["line"] == "3"
    assert "nested" in error.metadata["why"]


def test_nesting_cannot_multiply_people_beyond_a_bound() -> None:
    people = ", ".join(f"p{n}@x.org" for n in range(1500))
    nested = "".join(f"  g{n}: ['group:g{n - 1}', n{n}@x.org]\n" for n in range(1, 400))
    text = f"groups:\n  g0: [{people}]\n{nested}".encode()
    tracemalloc.start()
    try:
        error = refusal(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(MAX_RESOLVED) in error.metadata["why"]
    assert peak_bytes < 32 * 2**20


def test_a_chain_as_long_as_a_file_may_hold_needs_no_recursion() -> None:
    chain = "".join(f"  g{n}: ['group:g{n + 1}']\n" for n in range(MAX_GROUPS - 1))
    found = resolved(f"groups:\n{chain}  g{MAX_GROUPS - 1}: [{BOB}]\n")
    assert found["g0"] == {BOB}


# --- the groups of a tree decide ---


def tree(rules: str, groups: str | Groups) -> RuleTree:
    known = parse_groups(groups.encode()).resolved if isinstance(groups, str) else groups
    return RuleTree(ALICE).with_groups(known).with_rules((), parse_ruleset(f"rules: [{rules}]".encode()), 1)


def allowed(rules: RuleTree, who: str, level: Level = Level.READ, name: str = "f") -> bool:
    return decide(rules, Question(who, parse_path(f"{ALICE}/{name}"), level, NOW)).allowed


READ_TEAM = "{pattern: '**', access: {read: ['group:team']}}"
TEAM = f"groups: {{team: ['group:leads'], leads: [{DORA}]}}"


def test_a_tree_without_groups_has_nobody_in_any() -> None:
    assert not allowed(
        RuleTree(ALICE).with_rules((), parse_ruleset(f"rules: [{READ_TEAM}]".encode()), 1), DORA
    )


def test_members_of_nested_groups_have_what_the_group_has() -> None:
    rules = tree(READ_TEAM, TEAM)
    assert allowed(rules, DORA)
    assert not allowed(rules, DORA, Level.WRITE)
    for who in (BOB, "guest", ""):
        assert not allowed(rules, who)


def test_deny_reaches_members_of_nested_groups() -> None:
    rules = tree("{pattern: '**', access: {read: ['*']}, deny: ['group:team']}", TEAM)
    assert not allowed(rules, DORA)
    assert allowed(rules, BOB)


def test_a_change_of_groups_is_a_new_tree_and_the_rules_stay() -> None:
    before = tree(READ_TEAM, TEAM)
    after = before.with_groups(parse_groups(b"groups: {team: [bob@x.org]}").resolved)
    assert [allowed(before, who) for who in (DORA, BOB)] == [True, False]
    assert [allowed(after, who) for who in (DORA, BOB)] == [False, True]
    assert list(after) == list(before)
    later = after.with_rules(("d",), parse_ruleset(b""), 2).without_rules(("d",))
    assert later.groups == after.groups
    assert not allowed(after.with_groups({}), BOB)


def test_a_tree_built_at_once_has_the_groups_given() -> None:
    rules = parse_ruleset(f"rules: [{READ_TEAM}]".encode())
    built = RuleTree.build(ALICE, [((), rules, 1)], parse_groups(TEAM.encode()).resolved)
    assert allowed(built, DORA)
    assert RuleTree.build(ALICE, [], {"team": frozenset({BOB})}).groups["team"] == {BOB}


def test_readers_are_those_of_the_groups_of_the_tree() -> None:
    readers = readers_of(tree(READ_TEAM, TEAM), parse_path(f"{ALICE}/f"), NOW)
    assert (readers.kind, readers.principals) == (ReaderKind.CLOSED, {ALICE, DORA})


@pytest.mark.parametrize("level", [Level.CREATE, Level.WRITE, Level.ADMIN])
def test_nobody_but_the_owner_changes_the_groups(level: Level) -> None:
    rules = tree(f"{{pattern: '**', access: {{admin: ['*', USER, {BOB}]}}}}", {})
    path = parse_path(f"{ALICE}/syft.groups.yaml")
    assert path.is_groups_file
    assert path.is_policy_file
    assert level_for_write(path, exists=True) is level_for_write(path, exists=False) is None
    assert decide(rules, Question(BOB, path, level, NOW)).reason == "OWNER_ONLY"
    assert allowed(rules, ALICE, level, "syft.groups.yaml")
    assert allowed(rules, BOB, Level.READ, "syft.groups.yaml")


def test_below_the_root_the_name_is_an_ordinary_one() -> None:
    path = parse_path(f"{ALICE}/d/syft.groups.yaml")
    assert not path.is_groups_file
    assert level_for_write(path, exists=True) is Level.WRITE
    rules = tree(f"{{pattern: '**', access: {{write: [{BOB}]}}}}", {})
    assert allowed(rules, BOB, Level.WRITE, "d/syft.groups.yaml")
