"""A slow and obvious reading of the contract of permissions, which the engine is held against.

It shares nothing with the engine: patterns are parts and never text, braces are multiplied out, nested groups
are walked at every question.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

OWNER, BOB, EVE = "a@a.aa", "b@a.ba", "ab@a.ba"
PEOPLE = (OWNER, BOB, EVE, "guest", "")

# A pattern is a sequence of parts: ("c", character), ("*",), ("?",), ("[", negated, ranges), ("/",),
# ("{", sequences), ("t", text of the template).
Part = tuple[Any, ...]


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


TEMPLATES = (".UserEmail", "lower .UserEmail", "upper .UserEmail", ".UserHash", "sha2 .UserEmail 2", ".Date")


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


def brace_first(parts: tuple[Part, ...]) -> bool:
    """Return whether `{` comes before `{` or a template in the text, which would begin a template there."""
    text = written(parts)
    templated = sum(text.count("{{" + name + "}}") for name in TEMPLATES)
    return "{{{" in text or text.count("{{") != templated


def is_wellformed(parts: tuple[Part, ...]) -> bool:
    """Return whether no segment outside braces is empty or made of dots, nor a brace follows a brace."""
    segments = "".join("/" if p == ("/",) else p[1] if p[0] == "c" else "x" for p in parts).split("/")
    return not any(s in ("", ".", "..") for s in segments) and not brace_first(parts)


def wildcards(parts: tuple[Part, ...]) -> int:
    """Return how many wildcards a pattern has: each run of `*`, each `?`, class and pair of braces is one."""
    count, before = 0, ""
    for part in parts:
        if part[0] == "{":
            count += 1 + sum(map(wildcards, part[1]))
        elif part[0] in "?[" or (part[0] == "*" and before != "*"):
            count += 1
        before = part[0]
    return count


# --- rules, groups, decisions ---

Groups = dict[str, list[str]]
"""Members as written: e-mails and `group:<name>`."""


@dataclass(frozen=True)
class SlowRule:
    parts: tuple[Part, ...]
    access: dict[str, list[str]]
    deny: list[str]
    expired: bool = False
    max_size: int | None = None
    allow_dirs: bool = True


@dataclass(frozen=True)
class SlowFile:
    terminal: bool
    rules: list[SlowRule]


@dataclass(frozen=True)
class SlowTree:
    """Rule files by directory, and the owner's groups."""

    files: dict[tuple[str, ...], SlowFile]
    groups: Groups = field(default_factory=dict)


def in_group(who: str, name: str, groups: Groups) -> bool:
    return any(
        in_group(who, entry.removeprefix("group:"), groups) if entry.startswith("group:") else entry == who
        for entry in groups.get(name, [])
    )


def has_circle(groups: Groups) -> bool:
    def reaches(name: str, way: tuple[str, ...]) -> bool:
        inner = [entry.removeprefix("group:") for entry in groups.get(name, []) if entry.startswith("group:")]
        return name in way or any(reaches(other, (*way, name)) for other in inner)

    return any(reaches(name, ()) for name in groups)


def named(entries: list[str], who: str, groups: Groups) -> bool:
    for entry in entries:
        if entry == "*":
            return True
        if who in ("", "guest"):
            continue
        if entry.startswith("group:"):
            if in_group(who, entry.removeprefix("group:"), groups):
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


def governing(tree: SlowTree, path: tuple[str, ...]) -> tuple[str, ...] | None:
    found = None
    for depth in range(len(path)):
        if path[:depth] in tree.files:
            found = path[:depth]
            if tree.files[found].terminal:
                break
    return found


def deciding(tree: SlowTree, path: tuple[str, ...]) -> tuple[SlowRule | None, tuple[str, ...]]:
    """Return the rule that decides, and the path relative to the directory of its file."""
    directory = governing(tree, path)
    if directory is None:
        return None, path
    below = path[len(directory) :]
    best = None
    for rule in tree.files[directory].rules:
        if pattern_matches(rule.parts, below, None) and (
            best is None or score(written(rule.parts)) > score(written(best.parts))
        ):
            best = rule
    return best, below


CONTAINING = {
    "read": ["read", "write", "admin"],
    "create": ["create", "write", "admin"],
    "write": ["write", "admin"],
    "admin": ["admin"],
}


def allows(tree: SlowTree, path: tuple[str, ...], who: str, level: str, size: int | None = None) -> bool:
    if who == OWNER:
        return True
    if level != "read" and path in (("settings.yaml",), ("syft.groups.yaml",)):
        return False
    asked = level
    if level != "read" and path[-1] in ("syft.pub.yaml", ".syftignore"):
        level = "admin"
    rule, below = deciding(tree, path)
    if rule is None or rule.expired or named(rule.deny, who, tree.groups):
        return False
    personal = any("User" in name for name in templates(rule.parts))
    if personal and (who in ("", "guest") or not pattern_matches(rule.parts, below, who)):
        return False
    if not any(named(rule.access.get(name, []), who, tree.groups) for name in CONTAINING[level]):
        return False
    if asked == "read" or (asked == "admin" and size is None):
        return True
    too_large = rule.max_size is not None and size is not None and size > rule.max_size
    return not too_large and (rule.allow_dirs or len(below) == 1)


# --- as an owner would write it; JSON is YAML ---


def rules_text(file: SlowFile) -> bytes:
    rules = []
    for rule in file.rules:
        limits: dict[str, object] = {"allowDirs": rule.allow_dirs}
        if rule.max_size is not None:
            limits["maxFileSize"] = rule.max_size
        rules.append(
            {
                "pattern": written(rule.parts),
                "access": rule.access,
                "deny": rule.deny,
                "expires": "2026-03-07T00:00:00Z" if rule.expired else "2026-03-07T00:00:00.001Z",
                "limits": limits,
            }
        )
    return json.dumps({"terminal": file.terminal, "rules": rules}).encode()


def groups_text(groups: Groups) -> bytes:
    return json.dumps({"groups": groups}).encode()
