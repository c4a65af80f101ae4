"""What a decision tells: file, line, rule, reason, and what is needed, which is then done and turns the answer."""

from __future__ import annotations

import pytest
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    Decision,
    Groups,
    Level,
    Question,
    RuleRef,
    RuleTree,
    decide,
    parse_groups,
    parse_ruleset,
)

ALICE, BOB, EVE = "alice@x.org", "bob@x.org", "eve@corp.example"
NOW = 1_800_000_000_000
FILE = f"{ALICE}/d/syft.pub.yaml"
WHOLE = RuleRef(FILE, 0, "")
SECOND = RuleRef(FILE, 3, "**")
TEAM: Groups = {"team": frozenset({EVE}), "leads": frozenset({EVE, BOB})}


def explained(
    rule: str,
    who: str = BOB,
    level: Level = Level.READ,
    *,
    path: str = "d/f",
    groups: Groups = TEAM,
    **more: object,
) -> Decision:
    """Return the decision by a file in `d` whose second rule, at line 3, is `rule`; none when it is empty."""
    tree = RuleTree(ALICE).with_groups(groups)
    if rule:
        first = "- {pattern: other, access: {}}"
        tree = tree.with_rules(("d",), parse_ruleset(f"rules:\n{first}\n- {rule}\n".encode()), 1)
    question = Question(who, parse_path(f"{ALICE}/{path}"), level, NOW, **more)  # type: ignore[arg-type]
    return decide(tree, question)


def rule(access: str, more: str = "", pattern: str = "**") -> str:
    return f"{{pattern: '{pattern}', access: {{{access}}}{more}}}"


OPEN = rule("read: ['*']")
PERSONAL = "{{.UserEmail}}/**"


def test_a_yes_needs_nothing_and_names_the_rule_that_gave_it() -> None:
    assert explained(OPEN) == Decision(True, "RULE_ALLOWS", Level.READ, SECOND)
    assert explained(OPEN, ALICE) == Decision(True, "OWNER", Level.READ)
    assert explained(OPEN).needed == explained("", ALICE).needed == ""


def test_owner_only() -> None:
    for name in ("settings.yaml", "syft.groups.yaml"):
        found = explained(OPEN, level=Level.WRITE, path=name)
        assert found == Decision(False, "OWNER_ONLY", Level.WRITE)
        assert found.needed == "Only the owner of the datasite may change its settings and groups."
        assert explained(OPEN, ALICE, Level.WRITE, path=name).allowed


def test_no_rule_file() -> None:
    found = explained("")
    assert found == Decision(False, "NO_RULE_FILE", Level.READ)
    assert found.needed == "A rule file of the owner, in a directory above the path, that grants read."
    assert explained(OPEN).allowed


def test_no_rule_matches() -> None:
    found = explained(rule("read: ['*']", pattern="*.csv"))
    assert found == Decision(False, "NO_RULE_MATCHES", Level.READ, WHOLE)
    assert found.needed == f"A rule in {FILE} whose pattern matches the path and that grants read."
    assert explained(rule("read: ['*']", pattern="*")).allowed


def test_not_listed() -> None:
    found = explained(rule("read: [USER]"), level=Level.WRITE)
    assert found == Decision(False, "NOT_LISTED", Level.WRITE, SECOND)
    assert found.needed == f"An entry for the requester that contains write, in the rule at line 3 of {FILE}."
    assert explained(rule(f"admin: [{BOB}]"), level=Level.WRITE).allowed


def test_the_level_told_is_the_one_that_was_needed() -> None:
    found = explained(rule("write: [USER]"), level=Level.WRITE, path="d/e/syft.pub.yaml")
    assert found == Decision(False, "NOT_LISTED", Level.ADMIN, SECOND)
    assert "contains admin" in found.needed


def test_not_listed_where_a_group_would_do() -> None:
    found = explained(rule("read: ['group:team']"))
    assert found == Decision(False, "NOT_LISTED", Level.READ, SECOND, ("team",))
    assert found.needed == (
        f"An entry for the requester that contains read, in the rule at line 3 of {FILE}, or a place in the group team."
    )
    assert explained(rule("read: ['group:team']"), groups={"team": frozenset({BOB})}).allowed


def test_groups_of_every_level_that_contains_the_one_asked_for() -> None:
    lists = "read: ['group:a'], write: ['group:b'], admin: ['group:c']"
    assert explained(rule(lists)).groups == ("a", "b", "c")
    assert explained(rule(lists), level=Level.WRITE).groups == ("b", "c")
    assert "or a place in the group b or c." in explained(rule(lists), level=Level.WRITE).needed


@pytest.mark.parametrize("who", ["guest", ""])
def test_who_is_nobody_by_name_is_offered_no_group(who: str) -> None:
    assert explained(rule("read: ['group:team']"), who).groups == ()


def test_a_group_that_is_denied_is_not_offered_nor_one_that_may_lie_in_a_denied_one() -> None:
    groups = parse_groups(
        b"groups: {inner: [eve@corp.example], outer: ['group:inner'], free: [d@x.org]}"
    ).resolved
    granting = "read: ['group:inner', 'group:outer', 'group:free']"
    for denied, offered in (
        ("outer", ("free",)),
        ("free", ("inner", "outer")),
        ("none", ("inner", "outer", "free")),
    ):
        found = explained(rule(granting, f", deny: ['group:{denied}']"), groups=groups)
        assert found.groups == offered


def test_denied() -> None:
    found = explained(rule("read: ['*']", f", deny: [{BOB}]"))
    assert found == Decision(False, "DENIED_BY_RULE", Level.READ, SECOND)
    assert found.needed == (
        f"Taking the requester out of the deny list of the rule at line 3 of {FILE}, which must also grant read."
    )
    assert explained(rule("read: ['*']", ", deny: []")).allowed


def test_denied_by_a_group() -> None:
    found = explained(rule("read: ['*']", ", deny: ['group:team', 'group:leads']"))
    assert found == Decision(False, "DENIED_BY_RULE", Level.READ, SECOND, ("leads",))
    assert found.needed == (
        f"Taking the requester out of the group leads and the deny list of the rule at line 3 of {FILE}, "
        "which must also grant read."
    )
    out = {**TEAM, "leads": frozenset({EVE})}
    assert explained(rule("read: ['*']", ", deny: ['group:team', 'group:leads']"), groups=out).allowed


def test_expired() -> None:
    found = explained(rule("read: ['*']", ", expires: 2020-01-01T00:00:00Z"))
    assert found == Decision(False, "EXPIRED", Level.READ, SECOND)
    assert found.needed == f"A later expiry of the rule at line 3 of {FILE}, which must also grant read."
    assert explained(rule("read: ['*']", ", expires: 2040-01-01T00:00:00Z")).allowed


def test_personal_of_another() -> None:
    found = explained(rule("read: ['*', 'group:team']", pattern=PERSONAL), EVE, path=f"d/{BOB}/f")
    assert found == Decision(False, "PERSONAL_OF_ANOTHER", Level.READ, RuleRef(FILE, 3, PERSONAL))
    assert found.needed == f"The requester's own name in the path, as line 3 of {FILE} is a personal rule."
    assert explained(rule("read: ['*']", pattern=PERSONAL), EVE, path=f"d/{EVE}/f").allowed


@pytest.mark.parametrize(
    ("limit", "wider", "reason", "needed"),
    [
        ("maxFileSize: 1", "maxFileSize: 5", "LIMIT_FILE_SIZE", "A smaller file, or a larger maxFileSize"),
        ("maxFiles: 5", "maxFiles: 6", "LIMIT_FILE_COUNT", "Fewer files under the rule"),
        ("allowDirs: false", "allowDirs: true", "LIMIT_DIRECTORY", "A path directly in the directory of"),
    ],
)
def test_limits(limit: str, wider: str, reason: str, needed: str) -> None:
    def ask(limits: str) -> Decision:
        limited = rule("write: [USER]", f", limits: {{{limits}}}")
        return explained(limited, level=Level.WRITE, path="d/e/f", size_bytes=5, live_files=5)

    found = ask(limit)
    assert found == Decision(False, reason, Level.WRITE, SECOND)
    assert found.needed.startswith(needed)
    assert f"line 3 of {FILE}" in found.needed.replace(
        f"{FILE}, or allowDirs in its rule at line 3", f"line 3 of {FILE}"
    )
    assert ask(wider).allowed
