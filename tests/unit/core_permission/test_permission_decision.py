from __future__ import annotations

import pytest
from syftmesh_core.errors import Internal, InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    Decision,
    Groups,
    Level,
    Question,
    RuleTree,
    decide,
    level_for_write,
    parse_pattern,
    parse_ruleset,
)

ALICE, BOB, EVE = "alice@x.org", "bob@x.org", "eve@corp.example"
NOW = 1_800_000_000_000


def tree(**files: str) -> RuleTree:
    """Return a tree; `_` is the root, `a__b` the directory a/b."""
    built = RuleTree(ALICE)
    for number, (name, text) in enumerate(files.items()):
        directory = () if name == "_" else tuple(name.split("__"))
        built = built.with_rules(directory, parse_ruleset(text.encode()), number)
    return built


def one(pattern: str, access: str, more: str = "") -> str:
    return f"rules: [{{pattern: '{pattern}', access: {{{access}}}{more}}}]"


def ask(
    rules: RuleTree, path: str, who: str = BOB, level: Level = Level.READ, groups: Groups | None = None
) -> Decision:
    question = Question(who, parse_path(f"{ALICE}/{path}"), level, NOW)
    return decide(rules.with_groups(groups) if groups else rules, question)


OPEN = one("**", 'read: ["*"]')
CLOSED = one("**", "read: []")


def test_the_owner_has_every_right_whatever_the_rules_say() -> None:
    rules = tree(_=one("**", "", f", deny: ['{ALICE}', '*'], limits: {{maxFileSize: 0}}"))
    for level in Level:
        assert ask(rules, "a/b", ALICE, level) == Decision(True, "OWNER", level)
    assert ask(RuleTree(ALICE), "settings.yaml", ALICE, Level.WRITE).allowed


@pytest.mark.parametrize("who", ["alice@x.or", "alice@x.org.evil.example", "xalice@x.org", "", "guest"])
def test_nobody_else_has_a_right_by_name(who: str) -> None:
    assert ask(RuleTree(ALICE), "a", who) == Decision(False, "NO_RULE_FILE", Level.READ)


def test_without_a_rule_file_everything_is_denied() -> None:
    assert ask(tree(other=OPEN), "a/b").reason == "NO_RULE_FILE"


def test_the_root_directory_is_the_owners() -> None:
    root = decide(tree(_=OPEN), Question(BOB, parse_path(ALICE), Level.READ, NOW))
    assert root.reason == "NO_RULE_FILE"


def test_the_deepest_rule_file_governs_alone() -> None:
    rules = tree(_=OPEN, a=CLOSED, a__b=OPEN)
    assert ask(rules, "x").allowed
    assert not ask(rules, "a/x").allowed
    assert ask(rules, "a/b/c/x").allowed


def test_nothing_is_merged_from_files_above() -> None:
    decision = ask(tree(_=OPEN, a=one("other", 'read: ["*"]')), "a/x")
    assert (decision.allowed, decision.reason) == (False, "NO_RULE_MATCHES")
    assert decision.rule is not None
    assert decision.rule.file == f"{ALICE}/a/syft.pub.yaml"


def test_a_terminal_file_hides_those_below_it() -> None:
    rules = tree(_="terminal: true\n" + OPEN, a=CLOSED, a__b=CLOSED)
    assert ask(rules, "a/b/x").allowed
    below = tree(_=CLOSED, a="terminal: true\n" + OPEN, a__b=CLOSED)
    assert ask(below, "a/b/x").allowed
    assert not ask(below, "x").allowed


def test_a_directorys_own_file_does_not_count_for_it() -> None:
    rules = tree(_=CLOSED, a=OPEN)
    assert not ask(rules, "a").allowed
    assert ask(rules, "a/x").allowed


def test_a_rule_file_is_governed_by_itself() -> None:
    assert ask(tree(_=CLOSED, a=one("syft.pub.yaml", "read: [USER]")), "a/syft.pub.yaml").allowed


def test_a_deleted_file_leaves_nothing_behind() -> None:
    rules = tree(_=CLOSED, a="terminal: true\n" + CLOSED, a__b=OPEN)
    assert not ask(rules, "a/b/x").allowed
    assert ask(rules.without_rules(("a",)), "a/b/x").allowed
    assert not ask(rules, "a/b/x").allowed


RULES = """
rules:
- {pattern: "**", access: {read: ["*"]}}
- {pattern: "**/*.csv", access: {read: []}}
- {pattern: "docs/x.csv", access: {read: ["*"]}}
- {pattern: "docs/?.csv", access: {read: []}}
"""


def test_the_most_specific_rule_decides_alone() -> None:
    rules = tree(_=RULES)
    assert ask(rules, "docs/x.txt").allowed
    assert ask(rules, "x.csv").reason == "NOT_LISTED"
    assert ask(rules, "docs/x.csv").allowed
    assert ask(rules, "docs/y.csv").reason == "NOT_LISTED"


def test_patterns_are_relative_to_the_directory_of_the_file() -> None:
    rules = tree(a=one("b/x", 'read: ["*"]'))
    assert ask(rules, "a/b/x").allowed
    assert not ask(rules, "a/a/b/x").allowed


@pytest.mark.parametrize("count", [0, 11, 900])
@pytest.mark.parametrize(("first", "second"), [("x*", "?*y"), ("x*", "x*"), ("xy", "xy")])
def test_of_equal_scores_the_earlier_rule_decides(count: int, first: str, second: str) -> None:
    filler = "".join(f'- {{pattern: "f{n:03}", access: {{}}}}\n' for n in range(count))
    open_one, closed_one = 'access: {read: ["*"]}', "access: {}"
    if first != second:
        # "x*" scores 4 - 10 and "?*y" 6 - 12: no "*" of either is at the beginning.
        assert parse_pattern(first).score == parse_pattern(second).score
    for one_access, other_access in ((open_one, closed_one), (closed_one, open_one)):
        rules = f'- {{pattern: "{first}", {one_access}}}\n- {{pattern: "{second}", {other_access}}}\n'
        assert ask(tree(_="rules:\n" + filler + rules), "xy").allowed is (one_access == open_one)


def test_an_exact_and_a_wild_pattern_of_equal_score_keep_their_order() -> None:
    assert parse_pattern("abc").score == parse_pattern("?[b]c").score
    for first, second in (("abc", "?[b]c"), ("?[b]c", "abc")):
        rules = tree(
            _="rules: [{pattern: '%s', access: {read: ['*']}}, {pattern: '%s', access: {}}]" % (first, second)  # noqa: UP031
        )
        assert ask(rules, "abc").allowed


def test_there_is_no_fall_through_behind_the_deciding_rule() -> None:
    rules = tree(_='rules: [{pattern: "a", access: {read: []}}, {pattern: "**", access: {read: ["*"]}}]')
    assert not ask(rules, "a").allowed


LEVELS = [
    ("read", {"read"}),
    ("create", {"create"}),
    ("write", {"read", "create", "write"}),
    ("admin", {"read", "create", "write", "admin"}),
]


@pytest.mark.parametrize(("listed", "granted"), LEVELS)
def test_levels_contain_one_another(listed: str, granted: set[str]) -> None:
    rules = tree(_=one("**", f"{listed}: [{BOB}]"))
    assert {level.value for level in Level if ask(rules, "a", level=level).allowed} == granted


ENTRIES = [
    ("*", BOB, True),
    ("*", "guest", True),
    ("*", "", True),
    ("USER", BOB, True),
    ("USER", "guest", False),
    ("USER", "", False),
    ("*@corp.example", EVE, True),
    ("*@corp.example", "a@b.corp.example", False),
    ("*@*.example", "a@b.corp.example", True),
    ("e*@corp.*", EVE, True),
    ("*@*", EVE, True),
    ("*@*", "guest", False),
    ("*@*", "", False),
    ("e*e*e@corp.example", EVE, False),
    ("*eve*@corp.example", EVE, True),
    ("EVE@CORP.example", EVE, True),
    ("*@CORP.example", EVE, True),
    ("bob@x.org", EVE, False),
    ("group:team", EVE, True),
    ("group:team", BOB, False),
    ("group:team", "guest", False),
    ("group:absent", EVE, False),
]


@pytest.mark.parametrize(("entry", "who", "named"), ENTRIES)
def test_entries_name_whom_the_contract_says(entry: str, who: str, *, named: bool) -> None:
    groups = {"team": frozenset({EVE})}
    assert ask(tree(_=one("**", f"read: ['{entry}']")), "a", who, groups=groups).allowed is named
    denying = tree(_=one("**", "read: ['*', USER]", f", deny: ['{entry}']"))
    decision = ask(denying, "a", who, groups=groups)
    assert decision.allowed is not named
    assert decision.reason == ("DENIED_BY_RULE" if named else "RULE_ALLOWS")


def test_deny_belongs_to_its_rule_only() -> None:
    rules = tree(
        _=f"rules: [{{pattern: a, access: {{}}, deny: [{BOB}]}}, {{pattern: '*', access: {{read: [USER]}}}}]"
    )
    assert ask(rules, "b").allowed
    assert ask(rules, "a").reason == "DENIED_BY_RULE"


def test_an_expired_rule_grants_nothing_and_still_decides() -> None:
    text = """
    rules:
    - {pattern: "a", access: {read: ["*"]}, expires: "2027-01-15T08:00:00Z"}
    - {pattern: "**", access: {read: ["*"]}}
    """
    rules, path = tree(_=text), parse_path(f"{ALICE}/a")
    assert decide(rules, Question(BOB, path, Level.READ, NOW - 1)).allowed
    assert decide(rules, Question(BOB, path, Level.READ, NOW)).reason == "EXPIRED"
    assert ask(rules, "b").allowed
    assert ask(rules, "a", ALICE).allowed


@pytest.mark.parametrize("name", ["syft.pub.yaml", ".syftignore", "d/syft.pub.yaml", "d/.syftignore"])
def test_change_of_rule_and_ignore_files_needs_admin_and_reading_needs_read(name: str) -> None:
    rules = tree(_=one("**", f"write: [{BOB}], admin: [{EVE}]"))
    path = parse_path(f"{ALICE}/{name}")
    assert level_for_write(path, exists=True) is level_for_write(path, exists=False) is Level.ADMIN
    assert ask(rules, name).allowed
    for level in (Level.CREATE, Level.WRITE):
        assert ask(rules, name, level=level) == Decision(
            False, "NOT_LISTED", Level.ADMIN, ask(rules, name).rule
        )
        assert ask(rules, name, EVE, level).allowed


def test_settings_at_the_root_are_changed_by_the_owner_alone() -> None:
    rules = tree(_=one("**", f"admin: [{BOB}]"))
    assert level_for_write(parse_path(f"{ALICE}/settings.yaml"), exists=True) is None
    for level in (Level.CREATE, Level.WRITE, Level.ADMIN):
        assert ask(rules, "settings.yaml", level=level).reason == "OWNER_ONLY"
        assert ask(rules, "d/settings.yaml", level=level).allowed
    assert ask(rules, "settings.yaml").allowed


def test_writing_needs_create_where_no_live_file_is() -> None:
    path = parse_path(f"{ALICE}/a")
    assert level_for_write(path, exists=False) is Level.CREATE
    assert level_for_write(path, exists=True) is Level.WRITE


@pytest.mark.parametrize("level", [Level.CREATE, Level.WRITE])
@pytest.mark.parametrize("who", [ALICE, BOB, ""])
def test_a_look_alike_is_invalid_before_any_rule(level: Level, who: str) -> None:
    with pytest.raises(InvalidInput):
        ask(tree(_=one("**", "admin: ['*']")), "d/SYFT.pub.yaml", who, level)


def test_a_look_alike_can_be_asked_about_for_reading() -> None:
    assert ask(tree(_=OPEN), "SYFT.pub.yaml").allowed


def test_rules_of_another_datasite_are_never_applied() -> None:
    with pytest.raises(Internal):
        decide(tree(_=OPEN), Question(BOB, parse_path("carol@x.org/a"), Level.READ, NOW))


def test_decision_names_file_line_and_pattern() -> None:
    decision = ask(tree(a__b="# comment\n" + RULES), "a/b/x.csv")
    assert decision.rule == (f"{ALICE}/a/b/syft.pub.yaml", 5, "**/*.csv")
    assert decision.needed == (
        f"An entry for the requester that contains read, in the rule at line 5 of {ALICE}/a/b/syft.pub.yaml."
    )
    assert ask(tree(_=OPEN), "a").needed == ""


def test_every_refusal_says_what_would_be_needed() -> None:
    cases = {
        "OWNER_ONLY": ask(tree(_=OPEN), "settings.yaml", level=Level.WRITE),
        "NO_RULE_FILE": ask(tree(), "a"),
        "NO_RULE_MATCHES": ask(tree(_="rules: []"), "a"),
        "DENIED_BY_RULE": ask(tree(_=one("**", "", f", deny: [{BOB}]")), "a"),
        "EXPIRED": ask(tree(_=one("**", "", ", expires: '2020-01-01T00:00:00Z'")), "a"),
        "NOT_LISTED": ask(tree(_=CLOSED), "a"),
        "PERSONAL_OF_ANOTHER": ask(tree(_=one("{{.UserEmail}}", "read: [USER]")), EVE),
    }
    for reason, decision in cases.items():
        assert decision.reason == reason
        assert decision.needed.endswith(".")
