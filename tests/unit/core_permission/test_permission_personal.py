from __future__ import annotations

import hashlib

import pytest
from syftmesh_core.path import parse_path
from syftmesh_core.permission import Level, Question, RuleTree, decide, parse_ruleset
from syftmesh_core.principal import user_hash

ALICE, BOB, EVE = "alice@x.org", "bob@x.org", "eve@corp.example"
NOW = 1_800_000_000_000
OPEN_BEHIND = '- {pattern: "**", access: {admin: ["*"]}}'


def reason(rule: str, path: str, who: str, level: Level = Level.READ) -> str:
    tree = RuleTree(ALICE).with_rules((), parse_ruleset(f"rules:\n- {rule}\n{OPEN_BEHIND}".encode()), 1)
    return decide(tree, Question(who, parse_path(f"{ALICE}/{path}"), level, NOW)).reason


PERSONAL = "{pattern: 'p/{{.UserEmail}}/**', access: {read: [USER], write: [USER]}}"


def test_where_the_requesters_value_stands_the_lists_apply() -> None:
    assert reason(PERSONAL, f"p/{BOB}/f", BOB) == "RULE_ALLOWS"
    assert reason(PERSONAL, f"p/{BOB}/f", BOB, Level.WRITE) == "RULE_ALLOWS"
    assert reason(PERSONAL, f"p/{BOB}/f", BOB, Level.ADMIN) == "NOT_LISTED"


@pytest.mark.parametrize("who", [EVE, "guest", "", "b@x.org", "xbob@x.org"])
def test_nobody_falls_through_a_personal_rule_to_an_open_one(who: str) -> None:
    for level in Level:
        assert reason(PERSONAL, f"p/{BOB}/f", who, level) == "PERSONAL_OF_ANOTHER"
        assert reason(PERSONAL, f"p/{BOB}", who, level) == "PERSONAL_OF_ANOTHER"


def test_what_no_principals_value_can_be_is_not_personal() -> None:
    for name in ("shared", "Bob@x.org", "bob@x", "a" * 65 + "@x.org"):
        assert reason(PERSONAL, f"p/{name}/f", EVE) == "RULE_ALLOWS"


@pytest.mark.parametrize("entry", ["*", "USER", "*@*", BOB])
def test_every_entry_is_bounded_by_the_persons_own_place(entry: str) -> None:
    rule = f"{{pattern: '{{{{.UserEmail}}}}/**', access: {{read: ['{entry}']}}}}"
    assert reason(rule, f"{BOB}/f", BOB) == "RULE_ALLOWS"
    for who in (EVE, "guest", ""):
        assert reason(rule, f"{BOB}/f", who) == "PERSONAL_OF_ANOTHER"


def test_lists_of_a_personal_rule_still_choose() -> None:
    rule = f"{{pattern: '{{{{.UserEmail}}}}/**', access: {{read: [{EVE}]}}}}"
    assert reason(rule, f"{BOB}/f", BOB) == "NOT_LISTED"
    assert reason(rule, f"{EVE}/f", EVE) == "RULE_ALLOWS"


def test_deny_of_a_personal_rule_denies_the_person() -> None:
    rule = "{pattern: '{{.UserEmail}}/**', access: {read: [USER]}, deny: ['*@x.org']}"
    assert reason(rule, f"{BOB}/f", BOB) == "DENIED_BY_RULE"
    assert reason(rule, f"{EVE}/f", EVE) == "RULE_ALLOWS"


SHA = hashlib.sha256(BOB.encode()).hexdigest()


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{.UserHash}}", user_hash(BOB)),
        ("{{upper .UserEmail}}", BOB.upper()),
        ("{{upper .UserHash}}", user_hash(BOB).upper()),
        ("{{sha2 .UserEmail}}", SHA),
        ("{{sha2 .UserEmail 8}}", SHA[:8]),
        ("x_{{lower .UserEmail}}_y", f"x_{BOB}_y"),
        ("{{.UserEmail}}_{{.UserHash}}", f"{BOB}_{user_hash(BOB)}"),
        ("{a,{{.UserEmail}}}", BOB),
    ],
)
def test_functions_of_the_two_are_personal(template: str, value: str) -> None:
    rule = f"{{pattern: 'p/{template}/**', access: {{read: [USER]}}}}"
    assert reason(rule, f"p/{value}/f", BOB) == "RULE_ALLOWS"
    for who in (EVE, "guest", ""):
        assert reason(rule, f"p/{value}/f", who) == "PERSONAL_OF_ANOTHER"


def test_two_values_must_both_be_the_requesters() -> None:
    rule = "{pattern: '{{.UserEmail}}/{{.UserHash}}', access: {read: [USER]}}"
    assert reason(rule, f"{BOB}/{user_hash(BOB)}", BOB) == "RULE_ALLOWS"
    assert reason(rule, f"{BOB}/{user_hash(EVE)}", BOB) == "PERSONAL_OF_ANOTHER"
    assert reason(rule, f"{BOB}/{user_hash(EVE)}", EVE) == "PERSONAL_OF_ANOTHER"


def test_a_date_alone_is_not_personal() -> None:
    rule = "{pattern: '{{.Year}}/**', access: {read: []}}"
    assert reason(rule, "2027/f", BOB) == "NOT_LISTED"
    assert reason(rule, "2026/f", BOB) == "RULE_ALLOWS"


def test_segments_are_compared_as_written() -> None:
    assert (
        reason(PERSONAL, "p/BOB@x.org/f", BOB) == "RULE_ALLOWS"
    )  # by the open rule behind: no principal's value
    assert reason(PERSONAL, f"P/{BOB}/f", EVE) == "RULE_ALLOWS"
