"""Sentences of the contract: patterns, templates, what is refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from contract_table import (
    ALICE,
    BOB,
    EVE,
    EVERYBODY,
    NOW,
    ask,
    matches,
    pattern_refused,
    refused,
    rule,
    rules_refused,
    sentence,
    tree,
)
from syftmesh_core.permission import RuleSet, Subject, parse_entries, parse_pattern, parse_ruleset
from syftmesh_core.principal import user_hash

SHA = hashlib.sha256(BOB.encode()).hexdigest()

# --- patterns ---


@sentence("`*` any run without `/` (also empty)")
def _() -> None:
    assert matches("a*c", "abbc")
    assert matches("a*c", "ac")
    assert not matches("a*c", "a/c")


@sentence("`**` as a whole segment any number of segments, none included")
def _() -> None:
    for path in ("a/b", "a/x/b", "a/x/y/z/b"):
        assert matches("a/**/b", path)
    assert not matches("a/**/b", "a/xb")


@sentence("`**` inside a segment is like `*`")
def _() -> None:
    assert matches("a**", "abc")
    assert matches("**c", "abc")
    assert not matches("a**", "a/b")


@sentence("`?` one character, not `/`")
def _() -> None:
    assert matches("a?c", "a\u00e9c")
    assert not matches("a?c", "ac")
    assert not matches("a?c", "a/c")


@sentence("`[abc]`, `[a-z]`, `[!a]`, `[^a]`")
def _() -> None:
    accepted = {"[abc]": "b", "[a-z]": "q", "[!a]": "b", "[^a]": "b"}
    for pattern, character in accepted.items():
        assert matches(pattern, character)
    for pattern, character in {"[abc]": "d", "[a-z]": "A", "[!a]": "a", "[^a]": "a"}.items():
        assert not matches(pattern, character)


@sentence("`{a,b}` alternatives, nested up to 3, an empty one allowed")
def _() -> None:
    for path in ("a", "b"):
        assert matches("{a,b}", path)
    assert matches("{a,{b,{c,d}}}", "d")
    assert matches("x{,y}", "x")
    assert "deeper" in pattern_refused("{a,{b,{c,{d}}}}")


@sentence("`\\` takes the next character literally")
def _() -> None:
    for character in "*?[]{}\\!,a":
        assert matches(f"\\{character}", character) or character == "\\"
    assert not matches("\\*", "a")
    assert matches("{a\\,b,c}", "a,b")
    assert parse_pattern("a\\\\b").could_match(Subject("a\\b"), NOW)


@sentence("`a/**` also matches `a`")
def _() -> None:
    assert matches("a/**", "a")
    assert not matches("a/**", "ab")


@sentence("Only `**` matches `/`; classes never do")
def _() -> None:
    for pattern in ("a*b", "a?b", "a[/]b", "a[!x]b", "a[.-0]b", "a{?,*}b"):
        assert not matches(pattern, "a/b")
    assert matches("a/**/b", "a/x/b")


@sentence("Patterns are brought to NFC, a trailing `/` is dropped, then they are scored")
def _() -> None:
    assert parse_pattern("e\u0301/") == parse_pattern("\u00e9")
    assert parse_pattern("e\u0301/").score == 4


@sentence("relative")
def _() -> None:
    assert "begins with '/'" in pattern_refused("/a")


@sentence("at most 1,024 bytes")
def _() -> None:
    assert parse_pattern("a" * 1024)
    for text in ("a" * 1025, "\u00e9" * 513, "a" * 10_000):
        assert "1024 bytes" in pattern_refused(text)


@sentence("and 32 wildcards (each run of `*`, `?`, class and brace pair is one)")
def _() -> None:
    for piece in ("*a", "**a", "?", "[ab]", "{a,b}"):
        assert parse_pattern(piece * 32)
        assert "32 wildcards" in pattern_refused(piece * 33)


@sentence("without empty, `.` or `..` segments")
def _() -> None:
    for text in ("", "/", "a//b", "a//", ".", "..", "a/../b", "./a", "a/\\."):
        pattern_refused(text)


@sentence("an alternative that would leave an empty segment matches nothing")
def _() -> None:
    assert not matches("a/{,b}", "a")
    assert matches("a/{,b}", "a/b")
    assert not matches("{/a,b}", "a")


@sentence("Malformed: an unclosed `[` or `{`, a `}` without `{`, an empty class, a trailing `\\`")
def _() -> None:
    for text in ("[", "[a", "[!", "{", "{a", "{a,{b}", "}", "a}", "[]", "[!]", "[^]", "a\\", "\\"):
        pattern_refused(text)


# --- templates ---


@sentence(
    "Templates: {{.UserEmail}}, {{.UserHash}} (first 16 hex digits of SHA-256 of the normalised e-mail)"
)
def _() -> None:
    assert matches("{{.UserEmail}}", BOB, BOB)
    assert not matches("{{.UserEmail}}", EVE, BOB)
    assert user_hash(BOB) == SHA[:16]
    assert matches("{{.UserHash}}", SHA[:16], BOB)
    assert not matches("{{.UserHash}}", SHA[:16], EVE)


@sentence("{{.Year}} (4 digits) {{.Month}} {{.Date}} (2 digits, UTC, of the moment of the decision)")
def _() -> None:
    midnight = int(datetime(2026, 3, 7, tzinfo=UTC).timestamp() * 1000)
    dated = "{{.Year}}/{{.Month}}/{{.Date}}"
    assert matches(dated, "2026/03/07", now_ms=midnight)
    assert matches(dated, "2026/03/06", now_ms=midnight - 1)
    rules = tree({"": rule("{{.Date}}", "read: ['*']")})
    assert ask(rules, "07", now_ms=midnight).allowed
    assert not ask(rules, "07", now_ms=midnight - 1).allowed


@sentence(
    "with `upper`, `lower`, `sha2` ({{sha2 .UserEmail}} 64 hex digits, {{sha2 .UserEmail 8}} the first 8, 1 to 64)"
)
def _() -> None:
    assert matches("{{upper .UserEmail}}", BOB.upper(), BOB)
    assert matches("{{lower .UserEmail}}", BOB, BOB)
    assert matches("{{sha2 .UserEmail}}", SHA, BOB)
    for digits in (1, 8, 64):
        assert matches(f"{{{{sha2 .UserEmail {digits}}}}}", SHA[:digits], BOB)
    for digits in ("0", "65", "08", "-1", "1.0"):
        pattern_refused(f"{{{{sha2 .UserEmail {digits}}}}}")


@sentence("Spaces inside the braces are allowed; `{{` always begins a template")
def _() -> None:
    assert matches("{{  .UserEmail  }}", BOB, BOB)
    assert matches("{{ sha2  .UserEmail  8 }}", SHA[:8], BOB)
    for text in ("{{", "{{a,b}}", "[{{.Year}}]", "\\{{.Year}}", "{{.Year}"):
        assert "'{{' begins a template" in pattern_refused(text)


@sentence("Nothing else: no pipes, conditions or variables")
def _() -> None:
    for inner in (
        ".UserEmail | upper",
        "if .UserEmail",
        "$x",
        "- .Year",
        ".Hour",
        "upper .UserEmail 3",
        "sha2 'a'",
    ):
        pattern_refused("{{" + inner + "}}")


@sentence("Values are matched literally, never as globs")
def _() -> None:
    assert not matches("{{.UserEmail}}", "aXb@x.org", "a.b@x.org")
    assert not matches("{{.UserEmail}}", "aab@x.org", "a+b@x.org")
    assert matches("{{.UserEmail}}", "a%+._-b@x.org", "a%+._-b@x.org")


@sentence("In lists no templates")
def _() -> None:
    for text in ("{{.UserEmail}}", "{{.UserEmail}}@x.org", "*{{.Year}}@x.org"):
        refused(lambda entry: parse_entries([entry]), text, "ENTRY_INVALID")


# --- what is refused ---


@sentence("A rule file is refused as INVALID_ARGUMENT with line and reason")
def _() -> None:
    assert rules_refused(f"rules:\n- {rule('a')}\n- {rule('[')}", line=3)


@sentence("not UTF-8")
def _() -> None:
    assert "UTF-8" in rules_refused(b"rules: []\n# \xff", line=2)
    rules_refused("rules: []".encode("utf-16"))


@sentence("larger than 64 KiB")
def _() -> None:
    assert parse_ruleset(b"#" + b"x" * (65_536 - 1)) == RuleSet()
    assert "65536 bytes" in rules_refused(b"#" + b"x" * 65_536)


@sentence("more than 1,000 rules")
def _() -> None:
    item = "- {pattern: a, access: {}}\n"
    assert len(parse_ruleset(("rules:\n" + item * 1000).encode()).rules) == 1000
    assert "1000 rules" in rules_refused("rules:\n" + item * 1001, line=1002)


@sentence("not a mapping")
def _() -> None:
    for text in ("[]", "text", "5", "null", "rules: [text]", "rules: [[]]", "rules: {}"):
        rules_refused(text, line=1)


@sentence("YAML errors")
def _() -> None:
    for text in ("rules: [", "a: b: c", "rules:\n\t- a", "'", "rules: []\n---\nrules: []"):
        rules_refused(text)


@sentence("duplicate keys")
def _() -> None:
    for text in (
        "rules: []\nrules: []",
        "rules: [{pattern: a, access: {},\n pattern: b}]",
        "rules: [{pattern: a, access: {read: [],\n read: []}}]",
    ):
        assert "twice" in rules_refused(text, line=2)


@sentence("tags, anchors or aliases")
def _() -> None:
    for text in ("!!map {}", "terminal: !!bool true", "rules: ! []", "%TAG ! tag:x,2000:\n--- {}"):
        assert "tag" in rules_refused(text)
    for text in ("rules: &a []", "terminal: *a", "rules: [*]"):
        assert "anchor" in rules_refused(text)


@sentence("depth over 8")
def _() -> None:
    assert "deeper" not in rules_refused("rules: " + "[" * 7 + "]" * 7)
    assert "deeper than 8" in rules_refused("rules: " + "[" * 8 + "]" * 8)


@sentence("an unknown key (those of SyftBox's own files are known)")
def _() -> None:
    for text in ("Rules: []", "x: 1", "<<: {}", "rules: [{pattern: a, access: {}, allow: []}]"):
        assert "unknown key" in rules_refused(text)
    for text in (rule("a", "x: []"), rule("a", "", ", limits: {maxDirs: 1}")):
        assert "unknown key" in rules_refused(f"rules: [{text}]")
    limits = "limits: {maxFileSize: 1, maxFiles: 1, allowDirs: true, allowSymlinks: false}"
    lists = "admin: [], write: [], create: [], read: []"
    assert parse_ruleset(f"terminal: false\nrules: [{rule('a', lists, ', ' + limits)}]".encode())


@sentence("a missing or empty or malformed pattern")
def _() -> None:
    for pattern in ("", "pattern:, ", "pattern: '', ", "pattern: null, ", "pattern: 5, ", "pattern: '[', "):
        rules_refused(f"rules: [{{{pattern}access: {{}}}}]", line=1)


@sentence("a bad template")
def _() -> None:
    assert "template" in rules_refused(f"rules: [{rule('{{.Hour}}')}]")


@sentence("no `access`")
def _() -> None:
    assert "no access" in rules_refused("rules: [{pattern: a}]")


@sentence("a bare string where a list belongs")
def _() -> None:
    for name in ("admin", "write", "create", "read"):
        assert "not a list" in rules_refused(f"rules: [{rule('a', f'{name}: {BOB}')}]")
    assert "not a list" in rules_refused(f"rules: [{rule('a', '', f', deny: {BOB}')}]")


@sentence("an entry that is no entry")
def _() -> None:
    for entry in (
        "bob",
        "user",
        "''",
        "' b@x.org'",
        "guest",
        "'group:'",
        "'?@x.org'",
        "[]",
        "{}",
        "5",
        "null",
    ):
        rules_refused(f"rules:\n- pattern: a\n  access:\n    read:\n    - USER\n    - {entry}", line=6)


@sentence("a bad size or count")
def _() -> None:
    for limit in ("maxFileSize: -1", "maxFileSize: 1.5MB", "maxFileSize: many", "maxFileSize: 99999999999GB"):
        rules_refused(f"rules: [{rule('a', '', f', limits: {{{limit}}}')}]")
    for limit in (
        "maxFiles: -1",
        "maxFiles: 1.0",
        "maxFiles: '5'",
        "maxFiles: 5KB",
        "maxFiles: 9999999999999999999",
    ):
        rules_refused(f"rules: [{rule('a', '', f', limits: {{{limit}}}')}]")


@sentence("a value of the wrong type")
def _() -> None:
    for text in ("terminal: 'true'", "terminal: 1", "terminal: []", "terminal:"):
        assert "neither true nor false" in rules_refused(text)
    for more in (
        ", limits: []",
        ", limits: 5",
        ", limits: {allowDirs: 1}",
        ", limits: {allowSymlinks: maybe}",
    ):
        rules_refused(f"rules: [{rule('a', '', more)}]")


@sentence("an `expires` without date, time and zone (quoted or not)")
def _() -> None:
    for moment in (
        "2027-01-31",
        "2027-01-31T00:00:00",
        "00:00:00Z",
        "tomorrow",
        "1800000000",
        "2027-02-30T00:00:00Z",
    ):
        for text in (moment, f"'{moment}'"):
            rules_refused(f"rules: [{rule('a', '', f', expires: {text}')}]")
    for text in ("2027-01-31T00:00:00Z", "'2027-01-31 00:00:00+02:00'"):
        assert parse_ruleset(f"rules: [{rule('a', '', f', expires: {text}')}]".encode()).rules[0].expires_ms


@sentence("`100 MiB` with a space is accepted; an `access` left empty is refused")
def _() -> None:
    limits = (
        parse_ruleset(f"rules: [{rule('a', '', ', limits: {maxFileSize: 100 MiB}')}]".encode())
        .rules[0]
        .limits
    )
    assert limits is not None
    assert limits.max_file_size_bytes == 100 * 2**20
    rules_refused("rules: [{pattern: a, access: }]")


@sentence("A file that is empty or has only comments is a private directory")
def _() -> None:
    for text in ("", "\n\n", "# a comment\n"):
        rules = tree({"": rule(), "d": text})
        assert all(ask(rules, "d/f", who).reason == "NO_RULE_MATCHES" for who in EVERYBODY)
        assert ask(rules, "d/f", ALICE).allowed


# --- service ---


@sentence("Explain: which file, line, rule, why, what would be needed")
def _() -> None:
    decision = ask(tree({"a/b": f"rules:\n- {rule('x')}\n- {rule('**', '')}"}), "a/b/f")
    assert decision.rule == (f"{ALICE}/a/b/syft.pub.yaml", 3, "**")
    assert decision.reason == "NOT_LISTED"
    assert "contains read" in decision.needed


@sentence("Patterns are compiled to linear-time matchers; no input may make a check slow")
def _() -> None:
    def steps(length: int) -> int:
        subject = Subject("a" * length)
        for start in ("*a" * 30, "{*a,*aa}*a*a*a*a", "*" + "?*" * 14, "*[!b]" * 15):
            assert not parse_pattern(start + "[b]?").could_match(subject, NOW)
        return subject.steps

    assert steps(100) > 100
    assert steps(1000) <= 10 * steps(100)
