"""What an enemy sends: each a typed error that names the field, in bounded memory, bounded steps, and no clock."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    Level,
    Question,
    RuleTree,
    Subject,
    decide,
    parse_entries,
    parse_groups,
    parse_pattern,
    parse_ruleset,
)
from syftmesh_core.principal import normalise_principal
from syftmesh_core.url import parse_url

ALICE, BOB = "alice@x.org", "bob@x.org"
NOW = 1_800_000_000_000
MIB = 2**20


@contextmanager
def memory_below(limit_bytes: int) -> Iterator[None]:
    """Hold the block to so many bytes at once, beyond what was there before."""
    tracemalloc.start()
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < limit_bytes


def refused(parse: Callable[[], object], reason: str, field: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse()
    assert caught.value.reason == reason
    assert caught.value.metadata[field]
    assert len(caught.value.message) < 2000
    return caught.value


TRAVERSALS = [
    "..",
    "../..",
    "a/../../carol@x.org/secret",
    "./a",
    "a/./b",
    "a//b",
    "/etc/passwd",
    "..\\..\\a",
    "a\\..\\b",
    "a\x00.csv",
    "\x00",
    "a\x7f",
    "a\nb",
    "a\u202ecsv.exe",
    "a\u200b",
    "\ud800",
]


@pytest.mark.parametrize("below", TRAVERSALS, ids=ascii)
def test_traversal_nul_and_invisible_characters(below: str) -> None:
    refused(lambda: parse_path(f"{ALICE}/{below}"), "PATH_INVALID", "path")
    refused(lambda: parse_path(ALICE).child(below), "PATH_INVALID", "path")


@pytest.mark.parametrize("below", ["%2e%2e/a", "..%2fa", "a%00", "%5c"])
def test_percent_signs_are_no_second_way_around(below: str) -> None:
    assert ".." not in parse_path(f"{ALICE}/{below}").segments
    refused(lambda: parse_url(f"syft://{BOB}/app_data/a/rpc/{below}"), "INVALID_URL", "url")


def test_twins_of_another_normal_form_are_one_path_and_one_pattern() -> None:
    nfc, nfd = "\u00e9t\u00e9", "e\u0301te\u0301"
    assert parse_path(f"{ALICE}/{nfd}") == parse_path(f"{ALICE}/{nfc}")
    closed = f"rules: [{{pattern: '{nfd}', access: {{}}}}, {{pattern: '*', access: {{read: ['*']}}}}]"
    tree = RuleTree(ALICE).with_rules((), parse_ruleset(closed.encode()), 1)
    for name in (nfc, nfd):
        assert not decide(tree, Question("", parse_path(f"{ALICE}/{name}"), Level.READ, NOW)).allowed


@pytest.mark.parametrize(
    "below", ["a" * 300, "\u00e9" * 150, "d/" + "a" * 256, "/".join("a" * 256), "a" * 5_000_000]
)
def test_segments_of_300_bytes_and_256_levels(below: str) -> None:
    text = f"{ALICE}/{below}"
    with memory_below(MIB):
        refused(lambda: parse_path(text), "PATH_INVALID", "path")


BOMBS = {
    "aliases": b"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nrules: [*c,*c,*c,*c]",
    "merge keys": b"rules: []\n<<: {<<: {<<: {terminal: true}}}",
    "depth in flow": b"rules: " + b"[" * 60_000,
    "depth in blocks": b"\n".join(b" " * n + b"a:" for n in range(300)),
    "depth in keys": b"? " * 30_000,
    "depth in pairs": b"{a: " * 15_000,
    "a tag": b"rules: !!python/object/apply:os.system ['true']",
    "a local tag": b"rules: !x []",
    "a tag handle": b"%TAG !e! tag:example.org,2000:\n---\nrules: !e!x []",
    "a key twice": b"rules: []\nrules: []",
    "a key twice, escaped": b'"rules": []\n"r\\u0075les": []',
    "a second document": b"rules: []\n---\nterminal: true\n",
    "a complex key": b"{[a, b]: c}",
    "long scalar": b"rules: [{pattern: " + b"a" * 60_000 + b", access: {}}]",
    "many rules": b"rules: [" + b"{}," * 20_000 + b"]",
    "many keys": b"{" + b"".join(b"k%d: ," % n for n in range(8_000)) + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("parse", [parse_ruleset, parse_groups])
def test_yaml_that_would_expand_run_or_contradict(name: str, parse: Callable[[bytes], object]) -> None:
    with memory_below(16 * MIB):
        error = refused(lambda: parse(BOMBS[name]), "RULES_INVALID", "why")
    assert int(error.metadata["line"]) >= 1


@pytest.mark.parametrize("parse", [parse_ruleset, parse_groups])
@pytest.mark.parametrize(
    "data", [b"#" * 5_000_000, b"\xff" * 5_000_000, b"[" * 5_000_000, b"- a\n" * 1_250_000]
)
def test_files_of_five_megabytes_are_not_read(parse: Callable[[bytes], object], data: bytes) -> None:
    with memory_below(MIB):
        assert "65536 bytes" in refused(lambda: parse(data), "RULES_INVALID", "why").message


LONG_PATTERNS = [
    "a" * 10_000,
    "*" * 10_000,
    "{" * 10_000,
    "[" * 10_000,
    "\\" * 10_001,
    "{{" * 5_000,
    "a/" * 5_000,
]
LONG_PATTERNS += ["\u0344" * 10_000, "{a," * 300, "e\u0301" * 5_000_000]


@pytest.mark.parametrize("text", LONG_PATTERNS, ids=lambda text: f"{text[:3]!a} x {len(text)}")
def test_patterns_of_ten_thousand_characters(text: str) -> None:
    with memory_below(MIB):
        refused(lambda: parse_pattern(text), "PATTERN_INVALID", "pattern")


def test_a_pattern_that_is_none_is_refused_in_its_rule_file_with_its_line() -> None:
    text = f"rules:\n- pattern: a\n  access: {{}}\n- pattern: '{'*a' * 5_000}'\n  access: {{}}\n"
    assert refused(lambda: parse_ruleset(text.encode()), "RULES_INVALID", "why").metadata["line"] == "4"


CATASTROPHIC = [
    "*a*a*a*b",
    "*a" * 30 + "*b?",
    "**/*a*a*a*b",
    "{*a,*aa,a*}*a*a*b?",
    "*?*?*?*?*?b[c]",
    "[!b]*[!b]*[!b]*b?",
]
LONG_PATHS = ["a" * 255, "/".join(["a" * 200] * 5), "/".join(["a"] * 250), "a@a.aa" * 40]


@pytest.mark.parametrize("pattern", CATASTROPHIC)
@pytest.mark.parametrize("path", LONG_PATHS, ids=range(len(LONG_PATHS)))
def test_patterns_that_would_backtrack_take_steps_in_proportion(pattern: str, path: str) -> None:
    parsed = parse_pattern(pattern)
    subject = Subject(path)
    with memory_below(MIB):
        assert not parsed.could_match(subject, NOW)
        assert not parsed.matches_for(BOB, subject, NOW)
    assert subject.steps <= 4 * len(path) + 64 * len(pattern)


def test_a_file_of_a_thousand_catastrophic_rules_takes_steps_in_proportion() -> None:
    item = f"- {{pattern: '{'*a' * 8}*[b]?', access: {{}}}}\n"
    rules = parse_ruleset(("rules:\n" + item * 1000).encode())
    subject = Subject("/".join(["a" * 200] * 5))
    assert rules.deciding(subject, NOW) is None
    assert 1000 <= subject.steps <= 1000 * 64 + 4 * subject.length


CRAFTED = [
    "{{.UserEmail}}@x.org",
    "*@x.org",
    "a*@x.org",
    "[ab]@x.org",
    "{a,b}@x.org",
    "a/../b@x.org",
    "a\\*@x.org",
    "a?@x.org",
    "**/x@x.org",
    "a@x.org/../b@x.org",
    "a@x.org\x00",
    "a@x.org\n- b@x.org",
    "bob@x.org ",
    "\uff42ob@x.org",
    "bob@x.or\u200bg",
    "\u0431ob@x.org",
    "a" * 1_000_000 + "@x.org",
]


@pytest.mark.parametrize("text", CRAFTED, ids=lambda text: ascii(text[:24]))
def test_an_e_mail_that_would_inject_into_a_template_cannot_be_a_principal(text: str) -> None:
    with memory_below(MIB):
        refused(lambda: normalise_principal(text), "PRINCIPAL_INVALID", "principal")


# Every mark that a principal may hold, and names that are like keywords of rules, dates or values.
ODD = ["%2e%2e@x.org", "a.b+c%d_e-f@x.org", "...@x.org", "user@x.org", "guest@x.org", "2027@01.15", "-@x.org"]


@pytest.mark.parametrize("who", ODD)
def test_odd_e_mails_open_their_own_place_and_no_other(who: str) -> None:
    personal = "{pattern: 'p/{{.UserEmail}}/**', access: {admin: [USER]}}"
    tree = RuleTree(ALICE).with_rules((), parse_ruleset(f"rules: [{personal}]".encode()), 1)
    assert decide(tree, Question(who, parse_path(f"{ALICE}/p/{who}/f"), Level.READ, NOW)).allowed
    for other in {BOB, *ODD, who.replace(".", "x", 1), who.replace("+", "c"), who.upper()} - {who}:
        decision = decide(tree, Question(who, parse_path(f"{ALICE}/p/{other}/f"), Level.READ, NOW))
        assert not decision.allowed, other


@pytest.mark.parametrize("entry", ["group:" + "a" * 1_000_000, "*" * 1_000_000, "*a" * 500_000 + "@x.org"])
def test_entries_of_a_megabyte(entry: str) -> None:
    with memory_below(MIB):
        refused(lambda: parse_entries([entry]), "ENTRY_INVALID", "entry")


def test_a_glob_of_many_stars_is_matched_piece_by_piece() -> None:
    glob = "*a" * 100 + "*b@" + "*a" * 20 + "*b"
    (parsed,) = parse_entries([glob]).globs
    assert not parsed.matches("a" * 64 + "@" + "a" * 63 + ".aa")
    assert parse_entries(["*a*a*b@*.*"]).names("aab@x.org", {})


@pytest.mark.parametrize(
    "text",
    [
        f"syft://{BOB}/app_data/a/rpc/../../x",
        f"syft://{BOB}/app_data/a/rpc/%2e%2e/x",
        f"syft://{BOB}/app_data/%2e%2e/rpc/x",
        f"syft://{BOB}/app_data/a/rpc/x%00",
        f"syft://{BOB}/app_data/a/rpc/" + "a" * 300,
        f"syft://{BOB}/app_data/a/rpc/" + "a/" * 256 + "a",
        f"syft://{BOB}/app_data/a/rpc/e?" + "k=v&" * 1_000_000,
        "syft://" + "a" * 1_000_000,
    ],
    ids=range(8),
)
def test_addresses(text: str) -> None:
    with memory_below(MIB):
        refused(lambda: parse_url(text), "INVALID_URL", "url")
