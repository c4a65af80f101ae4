from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.permission import RuleSet, RuleTree, parse_ruleset

SITE = "alice@x.org"
directories = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)
rule_sets = st.sampled_from(
    [RuleSet(), RuleSet(terminal=True), parse_ruleset(b"rules: [{pattern: a, access: {}}]")]
)


def test_a_change_leaves_earlier_trees_alone() -> None:
    empty = RuleTree(SITE)
    first = empty.with_rules(("a",), RuleSet(), 1)
    second = first.with_rules(("a",), RuleSet(terminal=True), 2)
    assert list(empty) == []
    assert [file.revision for file in first] == [1]
    assert [file.revision for file in second] == [2]
    assert first.without_rules(("b",)) is first
    assert list(second.without_rules(("a",))) == []


def test_a_file_knows_its_path() -> None:
    tree = RuleTree(SITE).with_rules((), RuleSet(), 1).with_rules(("a", "b"), RuleSet(), 2)
    assert [file.path for file in tree] == [f"{SITE}/syft.pub.yaml", f"{SITE}/a/b/syft.pub.yaml"]


def test_a_directory_of_ten_thousand_files_is_built_at_once() -> None:
    tree = RuleTree.build(SITE, [((f"d{n}",), RuleSet(), n) for n in range(10_000)])
    assert tree.rules_in(("d77",)).revision == 77  # type: ignore[union-attr]
    assert tree.governing(("d77", "x")) is tree.rules_in(("d77",))


@given(st.lists(st.tuples(directories, st.none() | rule_sets), max_size=12), directories)
def test_governing_file_is_that_of_a_plain_walk(
    changes: list[tuple[tuple[str, ...], RuleSet | None]], path: tuple[str, ...]
) -> None:
    tree = RuleTree(SITE)
    plain: dict[tuple[str, ...], tuple[RuleSet, int]] = {}
    for revision, (directory, rules) in enumerate(changes):
        if rules is None:
            tree = tree.without_rules(directory)
            plain.pop(directory, None)
        else:
            tree = tree.with_rules(directory, rules, revision)
            plain[directory] = (rules, revision)
    expected = None
    for depth in range(len(path)):
        if path[:depth] in plain:
            expected = path[:depth]
            if plain[expected][0].terminal:
                break
    built = RuleTree.build(SITE, [(d, rules, revision) for d, (rules, revision) in plain.items()])
    for candidate in (tree, built):
        found = candidate.governing(path)
        assert (found and found.directory) == expected
        assert {f.directory: (f.rules, f.revision) for f in candidate} == plain
