"""What is fuzzed: every text of another principal that the core parses, and what has to hold of any of it.

A target takes bytes and returns when all holds. Anything but `InvalidInput` with the one reason of its parser
leaves it as an exception.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import MAX_PATH_BYTES, MAX_SEGMENT_BYTES, MeshPath, check_creatable, parse_path
from syftmesh_core.permission import (
    Level,
    Pattern,
    Question,
    ReaderKind,
    RuleTree,
    Subject,
    decide,
    parse_entries,
    parse_groups,
    parse_pattern,
    parse_ruleset,
    readers_of,
)
from syftmesh_core.permission.group import MAX_MEMBERS, MAX_RESOLVED
from syftmesh_core.principal import is_principal, normalise_principal, parse_requester, user_hash
from syftmesh_core.url import MAX_URL_BYTES, parse_url

Target = Callable[[bytes], None]

REASONS: Final = {
    "path": "PATH_INVALID",
    "pattern": "PATTERN_INVALID",
    "rules": "RULES_INVALID",
    "groups": "RULES_INVALID",
    "principal": "PRINCIPAL_INVALID",
    "entry": "ENTRY_INVALID",
    "url": "INVALID_URL",
}

OWNER, BOB = "alice@x.org", "bob@x.org"
NOW_MS: Final = 1_800_000_000_000
_REQUESTERS = (OWNER, BOB, "guest", "")
_PATHS = (
    "a",
    "a/b.csv",
    f"{BOB}/f",
    f"{user_hash(BOB)}/a/b",
    "syft.pub.yaml",
    "a@b.c" * 40,
    "/".join("a" * 200),
)
_LONGEST_MESSAGE = 4096


def text_of(data: bytes) -> str:
    """Return text of any kind: what is not UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def path(data: bytes) -> None:
    text = text_of(data)
    try:
        found = parse_path(text)
    except InvalidInput as error:
        _check_refusal(error, "path")
        return
    shown = str(found)
    assert parse_path(shown) == parse_path(shown + "/", drop_trailing_slash=True) == found
    assert unicodedata.is_normalized("NFC", shown)
    assert len(shown.encode()) <= MAX_PATH_BYTES
    assert is_principal(found.site)
    for segment in found.segments:
        assert segment not in ("", ".", "..")
        assert len(segment.encode()) <= MAX_SEGMENT_BYTES
        assert not any(unicodedata.category(c) in ("Cc", "Cs") or c in "/\\" for c in segment)
    try:
        check_creatable(found)
    except InvalidInput as error:
        _check_refusal(error, "path")
        assert not found.is_policy_file


def pattern(data: bytes) -> None:
    """The first line is a pattern; the second is matched against it, beside some paths that are always."""
    first, _, second = data.partition(b"\n")
    try:
        found = parse_pattern(text_of(first))
    except InvalidInput as error:
        _check_refusal(error, "pattern")
        return
    again = parse_pattern(found.text)
    assert (again, again.shape, again.score) == (found, found.shape, found.score)
    for relative in (*_PATHS, text_of(second)):
        if _is_relative(relative):
            _check_match(found, relative)


def rules(data: bytes) -> None:
    try:
        found = parse_ruleset(data)
    except InvalidInput as error:
        _check_refusal(error, "rules")
        _check_line(error, data)
        return
    assert parse_ruleset(data) == found
    tree = RuleTree(OWNER).with_rules((), found, 1)
    for relative in _PATHS:
        where = parse_path(f"{OWNER}/{relative}")
        for rule in found.rules:
            _check_match(rule.pattern, relative)
        reading = {who: _decided(tree, where, who) for who in _REQUESTERS}
        assert reading[OWNER]
        assert reading["guest"] == reading[""] == (readers_of(tree, where, NOW_MS).kind is ReaderKind.PUBLIC)


def groups(data: bytes) -> None:
    try:
        found = parse_groups(data)
    except InvalidInput as error:
        _check_refusal(error, "groups")
        _check_line(error, data)
        return
    assert found.members.keys() == found.resolved.keys() == found.lines.keys()
    assert sum(map(len, found.resolved.values())) <= MAX_RESOLVED
    written = {}
    for name, entries in found.members.items():
        members = found.resolved[name]
        assert entries.principals <= members
        assert len(members) <= MAX_MEMBERS
        assert all(map(is_principal, members))
        assert all(members >= found.resolved.get(inner, frozenset()) for inner in entries.groups)
        written[name] = [*entries.principals, *(f"group:{inner}" for inner in entries.groups)]
    again = parse_groups(json.dumps({"groups": written}).encode())
    assert (again.resolved, again.members) == (found.resolved, found.members)


def principal(data: bytes) -> None:
    """An e-mail as a principal, as a requester and as an entry of a list."""
    text = text_of(data)
    try:
        found = normalise_principal(text)
    except InvalidInput as error:
        _check_refusal(error, "principal")
        found = ""
    assert bool(found) == is_principal(found)
    if found:
        assert normalise_principal(found) == parse_requester(text) == found
        assert found.isascii()
        assert not set(found) & set("*?[]{}/\\ ")
    try:
        entries = parse_entries([text])
    except InvalidInput as error:
        _check_refusal(error, "entry")
        assert not found
        return
    assert not found or (entries.names(found, {}) and entries.principals == {found})
    assert entries.names("", {}) == entries.names("guest", {}) == (text == "*")


def url(data: bytes) -> None:
    text = text_of(data)
    try:
        found = parse_url(text)
    except InvalidInput as error:
        _check_refusal(error, "url")
        return
    assert parse_url(str(found)) == found
    assert len(str(found)) <= MAX_URL_BYTES
    assert parse_path(str(found.path)) == found.path


def _check_refusal(error: InvalidInput, target: str) -> None:
    assert type(error) is InvalidInput
    assert error.reason == REASONS[target]
    assert error.message.isascii()
    assert error.message.isprintable()
    assert len(error.message) <= _LONGEST_MESSAGE
    assert error.metadata
    assert all(isinstance(value, str) and value.isascii() for value in error.metadata.values())


def _check_line(error: InvalidInput, data: bytes) -> None:
    # YAML also ends lines at CR, NEL, LS and PS; none of them takes less than one byte.
    assert 1 <= int(error.metadata["line"]) <= len(data) + 2
    assert error.metadata["why"] in error.message


def _check_match(found: Pattern, relative: str) -> None:
    subject = Subject(relative)
    some = found.could_match(subject, NOW_MS)
    assert found.matches_for(BOB, subject, NOW_MS) <= some
    # Every part once for either question: a class looks at distinct characters, an e-mail at each '@'.
    each = len(set(subject.text)) + subject.text.count("@") + 64
    assert subject.steps <= 16 * len(subject.text) + 6 * (len(found.text) + 2) * each


def _decided(tree: RuleTree, where: MeshPath, who: str) -> bool:
    for level in Level:
        decision = decide(tree, Question(who, where, level, NOW_MS))
        assert bool(decision.needed) is not decision.allowed
    return decide(tree, Question(who, where, Level.READ, NOW_MS)).allowed


def _is_relative(text: str) -> bool:
    try:
        return parse_path(f"{OWNER}/{text}").segments == tuple(text.split("/"))
    except InvalidInput:
        return False


TARGETS: Final[dict[str, Target]] = {
    "path": path,
    "pattern": pattern,
    "rules": rules,
    "groups": groups,
    "principal": principal,
    "url": url,
}
