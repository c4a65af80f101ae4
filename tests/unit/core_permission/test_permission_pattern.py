from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission import Subject, parse_pattern
from syftmesh_core.permission.node import Alternation, Node, matches_whole
from syftmesh_core.permission.program import compile_program, run
from syftmesh_core.permission.syntax import Syntax
from syftmesh_core.permission.template import Moment
from syftmesh_core.principal import user_hash

NOW = int(datetime(2026, 3, 7, 23, 59, tzinfo=UTC).timestamp() * 1000)


def could(pattern: str, path: str) -> bool:
    return parse_pattern(pattern).could_match(Subject(path), NOW)


MATCHES = [
    ("*", "a", True),
    ("*", "a/b", False),
    ("a*", "a", True),
    ("a*c", "abbc", True),
    ("a*/c", "ab/c", True),
    ("*.csv", "d/x.csv", False),
    ("**", "a", True),
    ("**", "a/b/c", True),
    ("**/*", "a", True),
    ("**/*", "a/b/c", True),
    ("**/*.csv", "x.csv", True),
    ("**/*.csv", "a/b/x.csv", True),
    ("**/*.csv", "a/b/x.csv/y", False),
    ("**/*.csv", ".csv", True),
    ("a/**", "a", True),
    ("a/**", "a/b/c", True),
    ("a/**", "ab", False),
    ("a/**", "b/a/c", False),
    ("a/**/**", "a", True),
    ("a/**/*", "a", False),
    ("a/**/*", "a/b", True),
    ("a/**/*b", "a/b", True),
    ("a/**/*a", "a", False),
    ("a/*", "a", False),
    ("a/*/c", "a/c", False),
    ("ab*ba", "aba", False),
    ("ab*ba", "abba", True),
    ("a*/*", "ab/c", True),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "a/xb", False),
    ("**/a/**", "a", True),
    ("**/a/**", "x/a/y", True),
    ("**/a", "xa", False),
    ("a**", "ab", True),
    ("a**", "a/b", False),
    ("a**c", "abc", True),
    ("***", "a", True),
    ("***", "a/b", False),
    ("?", "é", True),
    ("?", "a/b", False),
    ("a?b", "a/b", False),
    ("??", "a", False),
    ("[abc]", "b", True),
    ("[a-c]x", "bx", True),
    ("[a-c]x", "dx", False),
    ("[!a]", "b", True),
    ("[^a]", "a", False),
    ("[!a]b", "/b", False),
    ("a[/]b", "a/b", False),
    ("a[!x]b", "a/b", False),
    ("a[.-0]b", "a/b", False),
    ("[a-]", "-", True),
    ("[-a]", "-", True),
    ("[\\]]", "]", True),
    ("[*?{]", "*", True),
    ("[a!]", "!", True),
    ("{a,b}", "b", True),
    ("{a,b}", "{a,b}", False),
    ("{a,b}/c", "b/c", True),
    ("{a,b/c}/d", "b/c/d", True),
    ("x{,y}z", "xz", True),
    ("x{}z", "xz", True),
    ("{a{b,{c,d}},e}", "ad", True),
    ("{a{b,{c,d}},e}", "e", True),
    ("{,a}", "a", True),
    ("a/{,b}", "a", False),
    ("a/{,b}", "a/b", True),
    ("a/{,b/}c", "a/c", True),
    ("a/{b,}/c", "a/c", False),
    ("{**,a}/b", "x/y/b", True),
    ("{**,a}/b", "b", True),
    ("{a,**}", "x/y", True),
    ("a/{b,**}", "a", True),
    ("{*,x}*", "a/b", True),
    ("{*,x}*", "xq", True),
    ("{*,x}y*", "a/b", False),
    ("a{/b,}/c", "a/b/c", True),
    ("a{/b,}/c", "a/c", True),
    ("{[,],x}", ",", True),
    ("a,b]", "a,b]", True),
    ("\\*", "*", True),
    ("\\*", "a", False),
    ("\\{a\\}", "{a}", True),
    ("{a\\,b,c}", "a,b", True),
    ("a\\/b", "a/b", True),
    ("e\u0301", "\u00e9", True),
    ("A", "a", False),
    ("a/", "a", True),
    ("{a/b,c}", "a/b", True),
    ("{/a,b}", "a", False),
    ("a.b", "axb", False),
    ("$^(a|b)+", "$^(a|b)+", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES)
def test_pattern_matches_as_the_contract_says(pattern: str, path: str, *, expected: bool) -> None:
    assert could(pattern, path) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/",
        "//",
        "/a",
        "a//b",
        "a//",
        ".",
        "..",
        "a/../b",
        "./a",
        "a/\\.",
        "[",
        "[a",
        "[]",
        "[!]",
        "[^]",
        "[]a]",
        "[z-a]",
        "[a\\",
        "{",
        "{a",
        "{a,{b}",
        "}",
        "a}",
        "a\\",
        "a\\/",
        "{a,{b,{c,{d}}}}",
        "*?" * 17,
        "[a]" * 33,
        "{a}" * 33,
        "a" * 1025,
        "é" * 513,
        "\ud800",
        "{{",
        "{{}}",
        "{{.UserEmail}",
        "{{.useremail}}",
        "{{UserEmail}}",
        "{{.Hour}}",
        "{{.UserEmail | upper}}",
        "{{upper.UserEmail}}",
        "{{upper (lower .UserEmail)}}",
        "{{if .UserEmail}}",
        "{{$x}}",
        "{{- .UserEmail}}",
        "{{sha2 .UserEmail 0}}",
        "{{sha2 .UserEmail 65}}",
        "{{sha2 .UserEmail 08}}",
        "{{upper .UserEmail 3}}",
        "{{ .UserEmail\n}}",
        "{{a,b}}",
        "[{{.Year}}]",
        "\\{{.Year}}",
    ],
)
def test_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_pattern(pattern)
    assert caught.value.reason == "PATTERN_INVALID"


def test_bounds_themselves_are_accepted() -> None:
    assert could("{a,{b,{c}}}", "c")
    for pattern in ("*?" * 16, "[a]" * 32, "{a}" * 32, "a" * 1024, "a" * 1024 + "/", "{{.Year}}" * 33):
        parse_pattern(pattern)


SCORES = [
    ("**", -100),
    ("**/", -100),
    ("**/*", -99),
    ("a", 2),
    ("a/", 2),
    ("é", 4),
    ("e\u0301", 4),
    ("a/b", 16),
    ("*", 2 - 20),
    ("*.csv", 10 - 20),
    ("**/*.csv", 16 + 10 - 20 - 10 - 10),
    ("a/**", 8 + 10 - 20),
    ("a*b*", 8 - 20),
    ("a?", 4 - 2),
    ("[!a]", 8 - 4),
    ("a!b", 6 - 2),
    ("[^a]", 8 - 2),
    ("{a,b}", 10 - 2),
    ("\\*", 4 - 10),
    ("\\{", 4 - 2),
    ("{{.UserEmail}}", 28 + 50 - 4),
    ("{{ .UserEmail }}/**", 2 * 19 + 10 + 50 - 4 - 20),
    ("{{.Year}}/*", 22 + 10 + 50 - 4 - 10),
    ("**/**", 10 + 10 - 20 - 30),
]


@pytest.mark.parametrize(("pattern", "score"), SCORES)
def test_score_is_that_of_syftbox(pattern: str, score: int) -> None:
    assert parse_pattern(pattern).score == score


BOB = "bob@x.org"
SHA = hashlib.sha256(BOB.encode()).hexdigest()


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("{{.UserEmail}}", BOB),
        ("{{  .UserEmail  }}", BOB),
        ("{{upper .UserEmail}}", "BOB@X.ORG"),
        ("{{lower .UserEmail}}", BOB),
        ("{{.UserHash}}", user_hash(BOB)),
        ("{{upper .UserHash}}", user_hash(BOB).upper()),
        ("{{sha2 .UserEmail}}", SHA),
        ("{{sha2 .UserEmail 8}}", SHA[:8]),
        ("{{sha2  .UserEmail  64}}", SHA),
        ("{{sha2 .UserHash 4}}", hashlib.sha256(user_hash(BOB).encode()).hexdigest()[:4]),
        ("{{.Year}}-{{.Month}}-{{.Date}}", "2026-03-07"),
        ("{{upper .Year}}{{sha2 .Year 2}}", "2026" + hashlib.sha256(b"2026").hexdigest()[:2]),
    ],
)
def test_template_stands_for_its_value_literally(pattern: str, value: str) -> None:
    parsed = parse_pattern(f"u_{pattern}/**")
    assert parsed.matches_for(BOB, Subject(f"u_{value}/f"), NOW)
    assert parsed.could_match(Subject(f"u_{value}/f"), NOW)
    assert not parsed.matches_for(BOB, Subject(f"u_{value}x/f"), NOW)


def test_dates_change_with_the_moment_in_utc() -> None:
    pattern = parse_pattern("{{.Date}}")
    assert pattern.could_match(Subject("07"), NOW)
    assert pattern.could_match(Subject("08"), NOW + 60_000)
    assert not pattern.could_match(Subject("07"), NOW + 60_000)


def test_a_value_is_never_a_glob() -> None:
    pattern = parse_pattern("{{.UserEmail}}")
    assert not pattern.matches_for("a.b@x.org", Subject("aXb@x.org"), NOW)
    assert not pattern.matches_for("a+b@x.org", Subject("aab@x.org"), NOW)


COULD_BE_EMAIL = [
    ("bob@x.org", True),
    ("a" * 64 + "@x.org", True),
    ("a" * 65 + "@x.org", False),
    ("bob@localhost", False),
    ("Bob@x.org", False),
    ("bob@x-.org", False),
    ("bob@-x.org", False),
    ("bob@x..org", False),
    ("bob@" + "a" * 63 + ".org", True),
    ("bob@" + "a" * 64 + ".org", False),
    ("b" * 6 + "@" + ".".join(["a" * 61] * 4), True),
    ("b" * 7 + "@" + ".".join(["a" * 61] * 4), False),
    ("a@b@x.org", False),
    ("b*b@x.org", False),
    ("@x.org", False),
    ("bob@", False),
    ("files", False),
]


@pytest.mark.parametrize(("text", "expected"), COULD_BE_EMAIL)
def test_personal_pattern_matches_what_can_be_a_principal_and_no_more(text: str, *, expected: bool) -> None:
    assert could("{{.UserEmail}}", text) is expected
    assert could("x/{{.UserEmail}}/**", f"x/{text}/f") is expected


def test_shape_of_hashes_and_upper_case() -> None:
    digits = "0123456789abcdef"
    assert could("{{.UserHash}}", digits)
    assert not could("{{.UserHash}}", digits.upper())
    assert could("{{upper .UserHash}}", digits.upper())
    assert not could("{{.UserHash}}", digits[:-1])
    assert not could("{{.UserHash}}", digits + "0")
    assert could("{{sha2 .UserEmail 8}}", "deadbeef")
    assert not could("{{sha2 .UserEmail 8}}", "deadbeeg")
    assert could("{{upper .UserEmail}}", "BOB@X.ORG")
    assert not could("{{upper .UserEmail}}", "bob@x.org")


def test_shape_next_to_wildcards_takes_any_split() -> None:
    assert could("*{{.UserEmail}}*", "--bob@x.org--")
    assert could("{{.UserEmail}}{{.UserEmail}}", "a@b.cd@e.f")
    assert could("{a,{{.UserEmail}}}/**", "bob@x.org/f")
    assert could("{{.UserEmail}}.txt", "bob@x.org.txt")
    assert not could("{{.UserEmail}}.txt", "bob@org.txt")


HOSTILE = [
    "*a" * 31 + "*b",
    "**/" * 31 + "b",
    "*" + "?" * 31,
    "{a,{a,{a,a}a}a}" * 10,
    "{a,b}{a,b}*" * 10,
    "{*,a}{*,a}{*,a}{*,a}*b",
    "[!b]*" * 16,
    "{{.UserEmail}}" * 50,
    "{{.UserHash}}*" * 30,
    "*{{.UserEmail}}*{{.UserEmail}}*b",
    "{" + "," * 1000 + "}a*",
]
LONG_PATHS = ["a" * 254, "/".join(["a" * 100] * 10), "/".join(["a"] * 500), "a@" * 500, "a@b.c" * 200]


@pytest.mark.parametrize("pattern", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("path", LONG_PATHS, ids=range(len(LONG_PATHS)))
def test_matching_is_linear_in_pattern_and_path(pattern: str, path: str) -> None:
    nodes = parts_of(pattern)
    program = compile_program(nodes)
    subject = Subject(path)
    # The matcher itself, for the literal beginnings and ends of a pattern spare most paths any of it.
    for moment in (Moment(NOW), Moment(NOW, "a@b.cd")):
        whole = matches_whole(nodes, subject, moment)
        assert program is None or run(program, subject, moment) == whole
    # One pass over the parts for each question, a few over the path; a class looks at distinct characters,
    # an e-mail at each '@', hexadecimal digits at each digit: constants of the pattern's parts.
    each = len(set(subject.text)) + subject.text.count("@") + 64
    assert 0 < subject.steps <= 4 * len(path) + 6 * len(pattern) + 6 * counted(nodes) * each


def parts_of(pattern: str) -> tuple[Node, ...]:
    syntax = Syntax(pattern)
    syntax.parse()
    return syntax.nodes


def counted(nodes: tuple[Node, ...]) -> int:
    total = 0
    for node in nodes:
        options = node.options if isinstance(node, Alternation) else ()
        total += 1 + sum(1 + counted(option) for option in options)
    return total


def test_work_for_a_hostile_pattern_grows_with_the_path_no_faster_than_the_path() -> None:
    def steps(length: int) -> int:
        subject = Subject("/".join(["a" * 50] * (length // 50)))
        for pattern in ("{*a,*a}*a*a*a*a*a*a*a*a*b", "**/*a*a*a*a*a*a*a*a*a*a?*a[!x]*b", "*a" * 31 + "*b"):
            matches_whole(parts_of(pattern), subject, Moment(NOW))
        return subject.steps

    assert steps(100) > 100
    assert steps(1000) <= 10 * steps(100)


def test_literal_beginning_and_end_spare_the_matcher() -> None:
    for pattern in ("docs/*x*", "*x*.csv", "*middle*", "{{.UserEmail}}/**"):
        subject = Subject("other/path.txt")
        assert not parse_pattern(pattern).could_match(subject, NOW)
        assert subject.steps == 0
