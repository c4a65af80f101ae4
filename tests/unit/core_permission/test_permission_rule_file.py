from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml
from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission import Limits, RuleSet, document, parse_ruleset


def refusal(text: str | bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_ruleset(text.encode() if isinstance(text, str) else text)
    assert caught.value.reason == "RULES_INVALID"
    assert caught.value.message.isascii()
    return caught.value


def rule(extra: str = "", *, pattern: str = '"**"', access: str = "{read: []}") -> bytes:
    return f"rules:\n- pattern: {pattern}\n  access: {access}\n{extra}".encode()


FULL = """
terminal: true
rules:
  - pattern: "**/*.csv"
    access:
      admin: []
      write: ["*@corp.example", "Bob@X.example", "group:reviewers"]
      create: null
      read:  ["*", USER]
    deny: ["eve@x.example"]
    expires: 2027-01-31T00:00:00Z
    limits: {maxFileSize: 100MiB, maxFiles: 1000, allowDirs: false, allowSymlinks: true}
  - pattern: "a"
    access:
      read:
"""


def test_every_key_is_understood() -> None:
    rules = parse_ruleset(FULL.encode())
    first, second = rules.rules
    assert rules.terminal
    assert (first.pattern.text, first.line, first.index) == ("**/*.csv", 4, 0)
    assert (second.pattern.text, second.line, second.index) == ("a", 13, 1)
    assert first.access.write.principals == {"bob@x.example"}
    assert first.access.write.groups == ("reviewers",)
    assert [glob.text for glob in first.access.write.globs] == ["*@corp.example"]
    assert (first.access.read.everyone, first.access.read.authenticated) == (True, True)
    assert first.deny.principals == {"eve@x.example"}
    assert first.expires_ms == int(datetime(2027, 1, 31, tzinfo=UTC).timestamp() * 1000)
    assert first.limits == Limits(100 * 2**20, 1000, allow_dirs=False)
    assert (second.limits, second.expires_ms) == (None, None)


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment\n", "---\n", "\ufeff", "{}", "rules:", "rules: []"]
)
def test_file_without_rules_is_private(text: str) -> None:
    assert parse_ruleset(text.encode()) == RuleSet()


def test_terminal_stands_alone() -> None:
    assert parse_ruleset(b"terminal: true") == RuleSet(terminal=True)


MALFORMED: list[tuple[str | bytes, int]] = [
    (b"\xff", 1),
    (b"a: 1\nb: \xc3\x28", 2),
    (b"terminal: false\n\x00", 2),
    ("[]", 1),
    ("text", 1),
    ("null", 1),
    ("5", 1),
    ("- a\n", 1),
    ("terminal: [\n", 2),
    ("terminal: false\n\tx: 1", 2),
    ("terminal: false\n---\nterminal: true\n", 2),
    ("terminal: false\nterminal: false", 2),
    ("terminal: false\nother: 1", 2),
    ("terminal: 'true'", 1),
    ("terminal: 1", 1),
    ("terminal:", 1),
    ("terminal: []", 1),
    ("Rules: []", 1),
    ("rules: {}", 1),
    ("rules: text", 1),
    ("rules:\n- text", 2),
    ("rules:\n- []", 2),
    ("rules:\n-", 2),
    ("rules:\n- pattern: a", 2),
    ("rules:\n- access: {}", 2),
    ("rules:\n\n- pattern: a\n  access:", 4),
    ("rules:\n- pattern: a\n  access: null", 3),
    ("rules:\n- pattern: a\n  access: []", 3),
    ("rules:\n- pattern: a\n  access: {reed: []}", 3),
    ("rules:\n- pattern: a\n  access: {read: [], read: []}", 3),
    ("rules:\n- pattern: a\n  access: {}\n  pattern: b", 4),
    ("rules:\n- pattern: a\n  access: {}\n  allow: []", 4),
    ("rules:\n- ? [a]\n  : b", 2),
    ("!!map {}", 1),
    ("terminal: !!bool true", 1),
    ("terminal: ! true", 1),
    ("%TAG ! tag:x,2000:\n--- {}", 1),
    ("rules: &a []", 1),
    ("rules: &a\n- *a", 1),
    ("terminal: *a", 1),
    ("rules:\n- pattern: a\n  access: {read: [*]}", 3),
    ("<<: {terminal: true}", 1),
    ("rules: " + "[" * 8 + "]" * 8, 1),
    ("[" * 30_000, 1),
    ("{a: " * 15_000, 1),
]


@pytest.mark.parametrize(("text", "line"), MALFORMED)
def test_malformed_file_is_refused_with_its_line(text: str | bytes, line: int) -> None:
    error = refusal(text)
    assert error.metadata["line"] == str(line)
    assert error.metadata["why"] in error.message


@pytest.mark.parametrize(
    "pattern", ['""', "''", "", "null", "~", "5", "1.5", "true", "no", "[a]", "{a: b}", '"["', '"{{.X}}"']
)
def test_pattern_that_is_none_is_refused(pattern: str) -> None:
    assert refusal(rule(pattern=pattern)).metadata["line"] == "2"


@pytest.mark.parametrize("pattern", ["docs", "'5'", '"true"', "2024-01-01", "a b", "docs/{a,b}"])
def test_pattern_that_is_text_is_accepted(pattern: str) -> None:
    assert parse_ruleset(rule(pattern=pattern)).rules[0].pattern.text == pattern.strip("'\"")


@pytest.mark.parametrize("name", ["admin", "write", "create", "read", "deny"])
@pytest.mark.parametrize("value", ["bob@x.org", '"*"', "{}", "5", "true", '""'])
def test_anything_but_a_list_is_refused_where_a_list_belongs(name: str, value: str) -> None:
    if name == "deny":
        refusal(rule(f"  deny: {value}"))
    else:
        refusal(rule(access=f"{{{name}: {value}}}"))


@pytest.mark.parametrize(
    "entry",
    [
        "user",
        "bob",
        '""',
        '" bob@x.org"',
        '"bob@x.org "',
        "bob@x",
        "'**'",
        "'*@*@x'",
        "'@*'",
        "'*@'",
        "'*é@x.org'",
        "'*'''",
        "bob@x.or?",
        "'{{.UserEmail}}'",
        "'group:'",
        "'group:Reviewers'",
        "'group:-a'",
        "'group:a b'",
        f"'group:{'a' * 64}'",
        "guest",
        "5",
        "null",
        "true",
        "[bob@x.org]",
        "{a: b}",
    ],
)
def test_entry_that_is_none_is_refused(entry: str) -> None:
    assert refusal(rule(access=f"\n    read:\n    - USER\n    - {entry}")).metadata["line"] == "6"
    refusal(rule(f"  deny: [{entry}]"))


def test_null_list_and_null_deny_are_empty() -> None:
    parsed = parse_ruleset(rule("  deny:\n", access="{read: null, write: ~, admin: }"))
    assert not parsed.rules[0].deny.names("bob@x.org", {})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("1KB", 1000),
        ("2MB", 2_000_000),
        ("3GB", 3 * 10**9),
        ("1KiB", 1024),
        ("100 MiB", 100 * 2**20),
        ("'100MiB'", 100 * 2**20),
        ("2GiB", 2**31),
    ],
)
def test_sizes(text: str, size: int) -> None:
    limits = parse_ruleset(rule(f"  limits: {{maxFileSize: {text}}}")).rules[0].limits
    assert limits == Limits(max_file_size_bytes=size)


@pytest.mark.parametrize(
    "limits",
    [
        "{maxFileSize: -1}",
        "{maxFileSize: 1.5MB}",
        "{maxFileSize: 1mb}",
        "{maxFileSize: 1TB}",
        "{maxFileSize: 1  MB}",
        "{maxFileSize: '1 '}",
        "{maxFileSize: 010}",
        "{maxFileSize: 1_000}",
        "{maxFileSize: }",
        "{maxFileSize: []}",
        "{maxFileSize: 9999999999GB}",
        "{maxFiles: 1.0}",
        "{maxFiles: -1}",
        "{maxFiles: '5'}",
        "{maxFiles: 5KB}",
        "{maxFiles: 9999999999999999999}",
        "{maxFiles: many}",
        "{allowDirs: 1}",
        "{allowDirs: 'true'}",
        "{allowSymlinks: maybe}",
        "{maxDirs: 1}",
        "[]",
        "5",
    ],
)
def test_bad_limits_are_refused(limits: str) -> None:
    assert refusal(rule(f"  limits: {limits}")).metadata["line"] == "4"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31T00:00:00Z", datetime(2027, 1, 31, tzinfo=UTC)),
        ("'2027-01-31T00:00:00Z'", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31 02:30:00+02:30", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T00:00Z", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T00:00:00.0019Z", datetime(2027, 1, 31, 0, 0, 0, 1000, tzinfo=UTC)),
        ("1960-01-01T00:00:00Z", datetime(1960, 1, 1, tzinfo=UTC)),
    ],
)
def test_moments_of_expiry(text: str, moment: datetime) -> None:
    expires = parse_ruleset(rule(f"  expires: {text}")).rules[0].expires_ms
    assert expires == int(moment.timestamp() * 1000)


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-31",
        "'2027-01-31'",
        "2027-01-31T00:00:00",
        "00:00:00Z",
        "2027-02-30T00:00:00Z",
        "2027-01-31T25:00:00Z",
        "2027-01-31T00:00:60Z",
        "2027-01-31T00:00:00+99:00",
        "1800000000",
        "tomorrow",
        "",
        "null",
        "[]",
    ],
)
def test_expiry_without_date_time_and_zone_is_refused(text: str) -> None:
    assert refusal(rule(f"  expires: {text}")).metadata["line"] == "4"


def test_file_has_at_most_64_kib() -> None:
    comment = b"#" + b"x" * (64 * 1024 - 1)
    assert parse_ruleset(comment) == RuleSet()
    refusal(comment + b"x")


def test_file_has_at_most_1000_rules() -> None:
    item = "- {pattern: a, access: {}}\n"
    assert len(parse_ruleset(("rules:\n" + item * 1000).encode()).rules) == 1000
    assert refusal("rules:\n" + item * 1001).metadata["line"] == "1002"


def test_nesting_of_eight_is_refused_for_its_type_and_of_nine_for_its_depth() -> None:
    assert "deeper" not in refusal("rules: " + "[" * 7 + "]" * 7).metadata["why"]
    assert "deeper" in refusal("rules: " + "[" * 8 + "]" * 8).metadata["why"]


def test_json_is_accepted() -> None:
    parsed = parse_ruleset(b'{"rules": [{"pattern": "\\u00e9", "access": {"read": ["*"]}}]}')
    assert parsed.rules[0].pattern.text == "é"


def test_refusal_holds_no_text_of_the_parser() -> None:
    assert refusal("a: b: c").metadata["why"] == "it is not valid YAML"


def test_hostile_escapes_end_in_an_answer() -> None:
    refusal(rule(pattern='"\\ud800"'))
    assert parse_ruleset(rule(pattern='"a\\0b"')).rules[0].pattern.text == "a\0b"


@pytest.mark.parametrize("text", [text for text, _ in MALFORMED])
def test_the_slower_parser_refuses_the_same(text: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    refusal(text)


def test_the_slower_parser_understands_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = parse_ruleset(FULL.encode())
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    assert parse_ruleset(FULL.encode()) == fast
