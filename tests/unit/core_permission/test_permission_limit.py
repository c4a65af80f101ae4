from __future__ import annotations

import pytest
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    LIMIT_REASONS,
    Level,
    Question,
    RuleKey,
    RuleTree,
    decide,
    deciding_rule_key,
    parse_ruleset,
)

ALICE, BOB, EVE = "alice@x.org", "bob@x.org", "eve@x.org"
NOW = 1_800_000_000_000


def tree(limits: str, pattern: str = "**", directory: tuple[str, ...] = ("d",)) -> RuleTree:
    text = f"rules: [{{pattern: '{pattern}', access: {{admin: [USER]}}, limits: {limits}}}]"
    return RuleTree(ALICE).with_rules(directory, parse_ruleset(text.encode()), 7)


def reason(rules: RuleTree, name: str, level: Level = Level.WRITE, who: str = BOB, **more: object) -> str:
    question = Question(who, parse_path(f"{ALICE}/d/{name}"), level, NOW, **more)  # type: ignore[arg-type]
    return decide(rules, question).reason


def test_a_version_larger_than_the_limit_is_refused() -> None:
    rules = tree("{maxFileSize: 10}")
    assert reason(rules, "f", size_bytes=10) == "RULE_ALLOWS"
    assert reason(rules, "f", size_bytes=11) == "LIMIT_FILE_SIZE"
    assert reason(rules, "f", Level.CREATE, size_bytes=11) == "LIMIT_FILE_SIZE"
    assert reason(rules, "f") == "RULE_ALLOWS"


def test_a_limit_of_zero_allows_nothing() -> None:
    assert reason(tree("{maxFileSize: 0}"), "f", size_bytes=1) == "LIMIT_FILE_SIZE"
    assert reason(tree("{maxFiles: 0}"), "f", live_files=0) == "LIMIT_FILE_COUNT"


def test_files_count_after_the_write() -> None:
    rules = tree("{maxFiles: 2}")
    assert reason(rules, "f", live_files=1) == "RULE_ALLOWS"
    assert reason(rules, "f", live_files=2) == "LIMIT_FILE_COUNT"


def test_the_count_is_asked_for_the_deciding_rule_and_only_when_it_matters() -> None:
    asked: list[RuleKey] = []

    def live_files(key: RuleKey) -> int:
        asked.append(key)
        return 0

    assert reason(tree("{maxFiles: 2}"), "f", live_files=live_files) == "RULE_ALLOWS"
    assert asked == [RuleKey(("d",), 7, 0, "")]
    reason(tree("{}"), "f", live_files=live_files)
    reason(tree("{maxFiles: 2}"), "f", Level.READ, live_files=live_files)
    assert len(asked) == 1


def test_rule_files_do_not_count() -> None:
    rules = tree("{maxFiles: 1}")
    assert reason(rules, "syft.pub.yaml", live_files=5) == "RULE_ALLOWS"
    assert deciding_rule_key(rules, parse_path(f"{ALICE}/d/x/syft.pub.yaml"), BOB, NOW) is None


def test_files_of_one_rule_have_one_key() -> None:
    rules = tree("{maxFiles: 1}", "*.csv")
    keys = {deciding_rule_key(rules, parse_path(f"{ALICE}/d/{n}.csv"), BOB, NOW) for n in "abc"}
    assert keys == {RuleKey(("d",), 7, 0, "")}
    assert deciding_rule_key(rules, parse_path(f"{ALICE}/d/a.txt"), BOB, NOW) is None
    assert deciding_rule_key(rules, parse_path(f"{ALICE}/a.csv"), BOB, NOW) is None


def test_in_a_personal_rule_those_of_the_same_requester_count() -> None:
    rules = tree("{maxFiles: 1}", "{{.UserEmail}}/**")
    path = parse_path(f"{ALICE}/d/{BOB}/f")
    assert deciding_rule_key(rules, path, BOB, NOW) == RuleKey(("d",), 7, 0, BOB)
    assert deciding_rule_key(rules, path, EVE, NOW) is None
    assert deciding_rule_key(rules, path, "", NOW) is None
    live = [path]

    def count(key: RuleKey) -> int:
        return sum(deciding_rule_key(rules, one, key.principal, NOW) == key for one in live)

    assert reason(rules, f"{BOB}/g", live_files=count) == "LIMIT_FILE_COUNT"
    assert reason(rules, f"{EVE}/g", who=EVE, live_files=count) == "RULE_ALLOWS"


def test_without_directories_only_the_rule_files_own_is_open() -> None:
    rules = tree("{allowDirs: false}")
    assert reason(rules, "f") == "RULE_ALLOWS"
    assert reason(rules, "s/f") == "LIMIT_DIRECTORY"
    assert reason(rules, "s/f", Level.CREATE) == "LIMIT_DIRECTORY"
    assert reason(rules, "s/f", Level.READ) == "RULE_ALLOWS"
    assert reason(rules, "s/f", deletes=True) == "RULE_ALLOWS"


def test_the_right_comes_before_the_limit() -> None:
    rules = tree("{allowDirs: false, maxFileSize: 0, maxFiles: 0}")
    assert reason(rules, "s/f", who="guest", size_bytes=5, live_files=5) == "NOT_LISTED"


def test_limits_do_not_bind_the_owner() -> None:
    rules = tree("{allowDirs: false, maxFileSize: 0, maxFiles: 0}")
    assert reason(rules, "s/f", who=ALICE, size_bytes=5, live_files=5) == "OWNER"


@pytest.mark.parametrize("value", ["true", "false"])
def test_allow_symlinks_has_no_effect(value: str) -> None:
    assert reason(tree(f"{{allowSymlinks: {value}}}"), "s/f", size_bytes=5, live_files=5) == "RULE_ALLOWS"


def test_limit_reasons_are_told_apart_from_a_missing_right() -> None:
    assert reason(tree("{maxFileSize: 0}"), "f", size_bytes=1) in LIMIT_REASONS
    assert "NOT_LISTED" not in LIMIT_REASONS
