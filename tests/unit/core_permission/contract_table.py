"""The table of sentences of the permissions contract, and short ways to ask the engine about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    Decision,
    Groups,
    Level,
    LiveFiles,
    Question,
    RuleTree,
    Subject,
    decide,
    parse_pattern,
    parse_ruleset,
)

ALICE, BOB, EVE = "alice@x.org", "bob@x.org", "eve@corp.example"
EVERYBODY = (BOB, EVE, "guest", "")
NOW = 1_800_000_000_000
"""2027-01-15T08:00:00Z."""

CONTRACT: list[tuple[str, Callable[[], None]]] = []
"""Each sentence that the engine can show, in the order of the page, with what shows it."""


def sentence(text: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter the decorated function in the table as what shows that the sentence holds."""

    def enter(holds: Callable[[], None]) -> Callable[[], None]:
        CONTRACT.append((text, holds))
        return holds

    return enter


def tree(files: dict[str, str], groups: Groups | None = None) -> RuleTree:
    """Return the tree of rule files by directory (``""`` is the root); each has a list of rules, or a whole text."""
    built = RuleTree(ALICE).with_groups(groups or {})
    for revision, (directory, text) in enumerate(files.items(), 1):
        whole = text if text == "" or "rules:" in text or "terminal:" in text else f"rules: [{text}]"
        place = tuple(directory.split("/")) if directory else ()
        built = built.with_rules(place, parse_ruleset(whole.encode()), revision)
    return built


def rule(pattern: str = "**", access: str = "read: ['*']", more: str = "") -> str:
    """Return one rule; `more` begins with a comma."""
    return f"{{pattern: '{pattern}', access: {{{access}}}{more}}}"


def ask(
    rules: RuleTree,
    path: str = "f",
    who: str = BOB,
    level: Level = Level.READ,
    *,
    now_ms: int = NOW,
    size: int | None = None,
    live: LiveFiles | int | None = None,
) -> Decision:
    """Return the decision about a path of the datasite."""
    where = parse_path(f"{ALICE}/{path}")
    return decide(rules, Question(who, where, level, now_ms, size_bytes=size, live_files=live))


def granted(access: str, who: str = BOB, path: str = "f") -> set[str]:
    """Return the levels that a rule for everything with these lists gives."""
    rules = tree({"": rule("**", access)})
    return {level.value for level in Level if ask(rules, path, who, level).allowed}


def matches(pattern: str, path: str, who: str | None = None, now_ms: int = NOW) -> bool:
    """Return whether the pattern matches, for somebody or for `who`."""
    found = parse_pattern(pattern)
    subject = Subject(path)
    return found.matches_for(who, subject, now_ms) if who else found.could_match(subject, now_ms)


def refused(parse: Callable[[str], object], text: str, reason: str) -> InvalidInput:
    """Return the refusal of `text`; fails when it is accepted."""
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert (caught.value.reason, caught.value.code) == (reason, "INVALID_ARGUMENT"), text
    return caught.value


def path_refused(below: str) -> str:
    """Return why the path below the datasite is none."""
    return refused(parse_path, f"{ALICE}/{below}", "PATH_INVALID").metadata["why"]


def pattern_refused(text: str) -> str:
    """Return why the pattern is none."""
    return refused(parse_pattern, text, "PATTERN_INVALID").metadata["why"]


def rules_refused(text: str | bytes, line: int | None = None) -> str:
    """Return why the rule file is refused, at `line` where one is given."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InvalidInput) as caught:
        parse_ruleset(data)
    assert (caught.value.reason, caught.value.code) == ("RULES_INVALID", "INVALID_ARGUMENT"), text
    assert line is None or caught.value.metadata["line"] == str(line), (text, caught.value)
    return caught.value.metadata["why"]
