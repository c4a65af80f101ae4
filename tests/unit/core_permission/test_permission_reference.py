"""The engine against a slow and obvious reading of the contract."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.path import MeshPath
from syftmesh_core.permission import (
    Level,
    Question,
    ReaderKind,
    RuleTree,
    Subject,
    decide,
    parse_pattern,
    parse_ruleset,
    readers_of,
)
from syftmesh_core.permission.node import matches_whole
from syftmesh_core.permission.program import run
from syftmesh_core.permission.template import Moment

EXAMPLES = int(os.environ.get("MESH_PROPERTY_EXAMPLES", "250"))
many = settings(max_examples=EXAMPLES, deadline=None)

NOW = int(datetime(2026, 3, 7, tzinfo=UTC).timestamp() * 1000)
OWNER, BOB, EVE = "a@a.aa", "b@a.ba", "ab@a.ba"
PEOPLE = (OWNER, BOB, EVE, "guest", "")

# A pattern is a sequence of parts: ("c", character), ("*",), ("?",), ("[", negated, ranges), ("/",),
# ("{", sequences), ("t", text of the template).
Part = tuple[Any, ...]


# --- the contract, read slowly ---


def written(parts: tuple[Part, ...], *, nested: bool = False) -> str:
    text = ""
    for part in parts:
        kind = part[0]
        if kind == "c":
            special = part[1] in "*?[{}\\" or (nested and part[1] == ",")
            text += ("\\" if special else "") + part[1]
        elif kind == "[":
            ranges = "".join(low if low == high else f"{low}-{high}" for low, high in part[2])
            text += f"[{'!' if part[1] else ''}{ranges}]"
        elif kind == "{":
            text += "{" + ",".join(written(option, nested=True) for option in part[1]) + "}"
        elif kind == "t":
            text += "{{" + part[1] + "}}"
        else:
            text += kind
    return text


def expanded(parts: tuple[Part, ...]) -> list[tuple[Part, ...]]:
    """Return the patterns without braces that a pattern with braces stands for."""
    choices: list[list[tuple[Part, ...]]] = []
    for part in parts:
        if part[0] == "{":
            choices.append([tail for option in part[1] for tail in expanded(option)])
        else:
            choices.append([(part,)])
    return [tuple(part for piece in chosen for part in piece) for chosen in product(*choices)]


def is_email(text: str) -> bool:
    local, at, domain = text.partition("@")
    labels = domain.split(".")
    return (
        bool(at)
        and 1 <= len(local) <= 64
        and all(c in "abcdefghijklmnopqrstuvwxyz0123456789._%+-" for c in local)
        and len(labels) >= 2
        and len(text) <= 254
        and all(
            1 <= len(label) <= 63
            and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in label)
            and label[0] != "-" != label[-1]
            for label in labels
        )
    )


def could_be(template: str, text: str) -> bool:
    digits = "0123456789abcdef"
    match template:
        case ".UserEmail" | "lower .UserEmail":
            return is_email(text)
        case "upper .UserEmail":
            return text == text.upper() and is_email(text.lower())
        case ".UserHash":
            return len(text) == 16 and all(c in digits for c in text)
        case "sha2 .UserEmail 2":
            return len(text) == 2 and all(c in digits for c in text)
        case ".Date":
            return text == "07"
    raise AssertionError(template)


def value(template: str, who: str) -> str:
    sha = hashlib.sha256(who.encode()).hexdigest()
    return {
        ".UserEmail": who,
        "lower .UserEmail": who,
        "upper .UserEmail": who.upper(),
        ".UserHash": sha[:16],
        "sha2 .UserEmail 2": sha[:2],
        ".Date": "07",
    }[template]


def segment_matches(parts: tuple[Part, ...], text: str, who: str | None) -> bool:
    if not parts:
        return not text
    kind, rest = parts[0][0], parts[1:]
    if kind == "*":
        return any(segment_matches(rest, text[n:], who) for n in range(len(text) + 1))
    if kind == "t":
        template = parts[0][1]
        for n in range(1, len(text) + 1):
            stands = could_be(template, text[:n]) if who is None else text[:n] == value(template, who)
            if stands and segment_matches(rest, text[n:], who):
                return True
        return False
    if not text:
        return False
    if kind == "c" and text[0] != parts[0][1]:
        return False
    if kind == "[" and any(low <= text[0] <= high for low, high in parts[0][2]) == parts[0][1]:
        return False
    return segment_matches(rest, text[1:], who)


def plain_matches(parts: tuple[Part, ...], path: tuple[str, ...], who: str | None) -> bool:
    pieces: list[list[Part]] = [[]]
    for part in parts:
        if part == ("/",):
            pieces.append([])
        else:
            pieces[-1].append(part)
    if not all(pieces):
        return False

    @cache
    def from_here(piece: int, at: int) -> bool:
        if piece == len(pieces):
            return at == len(path)
        if pieces[piece] == [("*",), ("*",)]:
            return any(from_here(piece + 1, later) for later in range(at, len(path) + 1))
        return (
            at < len(path)
            and segment_matches(tuple(pieces[piece]), path[at], who)
            and from_here(piece + 1, at + 1)
        )

    return from_here(0, 0)


def pattern_matches(parts: tuple[Part, ...], path: tuple[str, ...], who: str | None) -> bool:
    return any(plain_matches(plain, path, who) for plain in expanded(parts))


def templates(parts: tuple[Part, ...]) -> list[str]:
    found = []
    for part in parts:
        if part[0] == "t":
            found.append(part[1])
        elif part[0] == "{":
            found += [name for option in part[1] for name in templates(option)]
    return found


def score(text: str) -> int:
    if text == "**":
        return -100
    if text == "**/*":
        return -99
    total = 2 * len(text.encode()) + 10 * text.count("/") + (50 if "{{" in text else 0)
    for index, character in enumerate(text):
        if character == "*":
            total -= 10 if index else 20
        elif character in "?![{":
            total -= 2
    return total


@dataclass(frozen=True)
class SlowRule:
    parts: tuple[Part, ...]
    access: dict[str, list[str]]
    deny: list[str]
    expired: bool


@dataclass(frozen=True)
class SlowFile:
    terminal: bool
    rules: list[SlowRule]


def named(entries: list[str], who: str, groups: dict[str, frozenset[str]]) -> bool:
    for entry in entries:
        if entry == "*":
            return True
        if who in ("", "guest"):
            continue
        if entry.startswith("group:"):
            if who in groups.get(entry.removeprefix("group:"), frozenset()):
                return True
        elif entry in ("USER", who) or ("*" in entry and glob_matches(entry, who)):
            return True
    return False


def glob_matches(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        ends = range(text.find("@") + 1 if "@" in text else len(text) + 1)
        return any(glob_matches(glob[1:], text[n:]) for n in ends)
    return bool(text) and text[0] == glob[0] and glob_matches(glob[1:], text[1:])


def allows(
    files: dict[tuple[str, ...], SlowFile],
    groups: dict[str, frozenset[str]],
    path: tuple[str, ...],
    who: str,
    level: str,
) -> bool:
    if who == OWNER:
        return True
    governing = None
    for depth in range(len(path)):
        if path[:depth] in files:
            governing = path[:depth]
            if files[governing].terminal:
                break
    if governing is None:
        return False
    below = path[len(governing) :]
    deciding = None
    for rule in files[governing].rules:
        if pattern_matches(rule.parts, below, None) and (
            deciding is None or score(written(rule.parts)) > score(written(deciding.parts))
        ):
            deciding = rule
    if deciding is None or deciding.expired or named(deciding.deny, who, groups):
        return False
    personal = any("User" in name for name in templates(deciding.parts))
    if personal and (who in ("", "guest") or not pattern_matches(deciding.parts, below, who)):
        return False
    containing = {
        "read": ["read", "write", "admin"],
        "create": ["create", "write", "admin"],
        "write": ["write", "admin"],
        "admin": ["admin"],
    }
    return any(named(deciding.access.get(name, []), who, groups) for name in containing[level])


# --- what is tried ---

TEMPLATES = (".UserEmail", "lower .UserEmail", "upper .UserEmail", ".UserHash", "sha2 .UserEmail 2", ".Date")
CHARACTERS = "ab@.-A0,é"
character = st.sampled_from(CHARACTERS).map(lambda c: ("c", c))
ranges = st.lists(
    st.sampled_from([("a", "a"), ("a", "z"), ("@", "@"), ("0", "9"), (".", "/")]), min_size=1, max_size=2
)
leaf = st.one_of(
    character,
    character,
    st.just(("*",)),
    st.just(("*",)),
    st.just(("/",)),
    st.just(("/",)),
    st.just(("?",)),
    st.tuples(st.just("["), st.booleans(), ranges.map(tuple)),
    st.sampled_from(TEMPLATES).map(lambda name: ("t", name)),
)


def braces(inner: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    options = st.lists(st.lists(inner, max_size=3).map(tuple), min_size=1, max_size=3)
    return st.tuples(st.just("{"), options.map(tuple))


part = st.one_of(leaf, leaf, leaf, braces(leaf), braces(st.one_of(leaf, braces(leaf))))
FREQUENT: list[tuple[Part, ...]] = [
    (("*",), ("*",)),
    (("*",), ("*",), ("/",), ("*",)),
    (("*",), ("*",), ("/",), ("*",), ("c", "a")),
    (("t", ".UserEmail"), ("/",), ("*",), ("*",)),
    (("c", "a"), ("/",), ("t", ".UserEmail"), ("/",), ("*",), ("*",)),
    (("c", "a"), ("/",), ("*",), ("*",)),
    (("t", "sha2 .UserEmail 2"), ("*",)),
    (("c", "a"),),
]


def is_wellformed(parts: tuple[Part, ...]) -> bool:
    """Return whether no segment outside braces is empty or made of dots, nor a brace follows a brace."""
    segments = "".join("/" if p == ("/",) else p[1] if p[0] == "c" else "x" for p in parts).split("/")
    return not any(s in ("", ".", "..") for s in segments) and not brace_first(parts)


def brace_first(parts: tuple[Part, ...]) -> bool:
    """Return whether `{` comes before `{` or a template in the text, which would begin a template there."""
    text = written(parts)
    templated = sum(text.count("{{" + name + "}}") for name in TEMPLATES)
    return "{{{" in text or text.count("{{") != templated


patterns = st.one_of(
    st.sampled_from(FREQUENT),
    st.lists(part, min_size=1, max_size=7).map(tuple).filter(is_wellformed),
)
SEGMENTS = ["a", "b", "ab", "ba", "A", "-", "é", "07", BOB, EVE, BOB.upper(), "b@a", "a@a.-a", "0" * 16]
SEGMENTS += [value(".UserHash", BOB), value("sha2 .UserEmail 2", BOB), value("sha2 .UserEmail 2", EVE), "a,b"]
segment = st.one_of(
    st.sampled_from(SEGMENTS),
    st.text(CHARACTERS, min_size=1, max_size=6).filter(lambda text: text not in (".", "..")),
)
paths = st.lists(segment, min_size=1, max_size=4).map(tuple)


@many
@given(patterns, paths)
def test_pattern_matches_like_the_reference(parts: tuple[Part, ...], path: tuple[str, ...]) -> None:
    pattern = parse_pattern(written(parts))
    subject = Subject("/".join(path))
    assert pattern.could_match(subject, NOW) == pattern_matches(parts, path, None)
    for who in (BOB, EVE):
        expected = pattern_matches(parts, path, who)
        assert pattern.matches_for(who, subject, NOW) == expected
        assert not expected or pattern_matches(parts, path, None)


@many
@given(patterns, paths)
def test_every_way_of_matching_gives_the_same(parts: tuple[Part, ...], path: tuple[str, ...]) -> None:
    pattern = parse_pattern(written(parts))
    subject = Subject("/".join(path))
    for moment in (Moment(NOW), Moment(NOW, BOB)):
        whole = matches_whole(pattern.nodes, subject, moment)
        assert pattern.program is None or run(pattern.program, subject, moment) == whole
    assert pattern.could_match(subject, NOW) == matches_whole(pattern.nodes, subject, Moment(NOW))


@many
@given(patterns)
def test_score_is_like_the_reference(parts: tuple[Part, ...]) -> None:
    text = written(parts)
    pattern = parse_pattern(text)
    assert pattern.text == text
    assert pattern.score == score(text)
    assert pattern.is_personal == any("User" in name for name in templates(parts))


entries = st.lists(
    st.sampled_from(["*", "USER", BOB, EVE, "*@a.ba", "*b@*", "a*@*", "group:g", "group:none"]), max_size=2
)
accesses = st.dictionaries(st.sampled_from(["admin", "write", "create", "read"]), entries, max_size=3)
slow_rules = st.builds(
    SlowRule, patterns, accesses, st.just([]) | entries, st.sampled_from([False] * 5 + [True])
)
slow_files = st.builds(SlowFile, st.booleans(), st.lists(slow_rules, max_size=5))
places = st.lists(st.sampled_from(["a", "b", BOB]), max_size=2).map(tuple)


def as_yaml(file: SlowFile) -> bytes:
    rules = []
    for rule in file.rules:
        expires = "2026-03-07T00:00:00Z" if rule.expired else "2026-03-07T00:00:00.001Z"
        rules.append(
            {"pattern": written(rule.parts), "access": rule.access, "deny": rule.deny, "expires": expires}
        )
    return json.dumps({"terminal": file.terminal, "rules": rules}).encode()


def tree_of(files: dict[tuple[str, ...], SlowFile]) -> RuleTree:
    return RuleTree.build(OWNER, [(place, parse_ruleset(as_yaml(file)), 1) for place, file in files.items()])


trees = st.dictionaries(places, slow_files, max_size=3)
member_sets = st.sampled_from([{}, {"g": frozenset({EVE})}, {"g": frozenset({BOB, EVE})}])
asked_paths = st.one_of(paths, st.tuples(places, paths).map(lambda pair: (*pair[0], *pair[1])))


@many
@given(trees, member_sets, asked_paths)
def test_decision_is_like_the_reference(
    files: dict[tuple[str, ...], SlowFile], groups: dict[str, frozenset[str]], path: tuple[str, ...]
) -> None:
    tree = tree_of(files)
    for who, level in product(PEOPLE, Level):
        decision = decide(tree, Question(who, MeshPath(OWNER, path), level, NOW), groups)
        assert decision.allowed == allows(files, groups, path, who, level.value), (who, level, decision)
        assert bool(decision.needed) is not decision.allowed


@many
@given(trees, member_sets, asked_paths)
def test_readers_are_those_who_may_read(
    files: dict[tuple[str, ...], SlowFile], groups: dict[str, frozenset[str]], path: tuple[str, ...]
) -> None:
    readers = readers_of(tree_of(files), MeshPath(OWNER, path), groups, NOW)
    may = {who for who in PEOPLE if allows(files, groups, path, who, "read")}
    assert OWNER in readers.principals
    assert (readers.kind is ReaderKind.PUBLIC) == ("" in may)
    assert ("guest" in may) == ("" in may)
    if readers.kind is not ReaderKind.PUBLIC:
        assert readers.principals & set(PEOPLE) <= may
    if readers.kind is ReaderKind.CLOSED:
        # Everybody who could be meant at all: those listed, in a group, or standing in the path.
        stand = {segment[i:j].lower() for segment in path for i in range(len(segment)) for j in range(i, 99)}
        others = {who for who in stand if is_email(who) and allows(files, groups, path, who, "read")}
        assert readers.principals == may | others
