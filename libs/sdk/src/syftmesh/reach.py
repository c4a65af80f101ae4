"""Whom a change of rules or groups gives what, and from whom it takes it, on the files that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import Deciding, Question, decide, find_deciding, level_for_write
from syftmesh_core.permission.entry import EntryList, Groups, join
from syftmesh_core.permission.reader import readers_of
from syftmesh_core.permission.ruleset import Level, Rule
from syftmesh_core.permission.tree import RuleTree
from syftmesh_core.principal import is_principal

MAX_FILES: Final = 10_000
"""Live files that a change is worked out for; of more it is told how many were not looked at."""

_ORDER: Final = (Level.READ, Level.CREATE, Level.WRITE, Level.ADMIN)


@dataclass(frozen=True, slots=True)
class Gain:
    """Somebody who gains or loses a right.

    Attributes:
        level: read, create, write or admin.
        who: An e-mail; ``*``, ``USER`` or a glob where more than those known by name are meant.
        files: On how many live files; 0 where only files still to come are concerned.
    """

    level: str
    who: str
    files: int


@dataclass(frozen=True, slots=True)
class Reach:
    """What a change comes to.

    Attributes:
        adds: Who gains what.
        removes: Who loses what.
        gained: Paths of the live files that somebody can read from now on who could not before.
        lost: Paths of the live files that somebody could read and cannot any more.
    """

    adds: tuple[Gain, ...]
    removes: tuple[Gain, ...]
    gained: tuple[str, ...]
    lost: tuple[str, ...]


Holders = Mapping[Level, frozenset[str]]


def reach(
    before: RuleTree,
    after: RuleTree,
    paths: Iterable[MeshPath],
    now_ms: int,
    edited: tuple[Rule | None, Rule | None] = (None, None),
) -> Reach:
    """Return what the change of `before` to `after` comes to on the live files `paths`.

    Args:
        before: Rules and groups as they are.
        after: As they would be.
        paths: Live files of the datasite.
        now_ms: Moment of the decisions, Unix milliseconds.
        edited: The rule that changes, before and after: whom it names is told also where no file is yet.
    """
    adds: Counter[tuple[Level, str]] = Counter()
    removes: Counter[tuple[Level, str]] = Counter()
    gained: list[str] = []
    lost: list[str] = []
    known: dict[Any, tuple[Holders, Holders]] = {}
    for path in paths:
        old, new = _holders(before, after, path, now_ms, known)
        for level in _ORDER:
            adds.update((level, who) for who in new[level] - old[level])
            removes.update((level, who) for who in old[level] - new[level])
        if new[Level.READ] - old[Level.READ]:
            gained.append(str(path))
        if old[Level.READ] - new[Level.READ]:
            lost.append(str(path))
    edited = _in_force(edited[0], now_ms), _in_force(edited[1], now_ms)
    for level in _ORDER:
        for who in _new_names(edited[0], edited[1], level, (before.groups, after.groups)):
            adds.setdefault((level, who), 0)
        for who in _new_names(edited[1], edited[0], level, (after.groups, before.groups)):
            removes.setdefault((level, who), 0)
    return Reach(tuple(_gains(adds)), tuple(_gains(removes)), tuple(gained), tuple(lost))


def reach_texts(adds: Sequence[Gain], removes: Sequence[Gain]) -> list[str]:
    """Return what a change comes to, for people: a line for each right and number of files."""
    return [*_lines("adds", adds), *_lines("removes", removes)] or ["It changes nobody's rights."]


def _lines(verb: str, gains: Sequence[Gain]) -> Iterator[str]:
    together: dict[tuple[str, int], list[str]] = {}
    for gain in gains:
        together.setdefault((gain.level, gain.files), []).append(gain.who)
    for (level, files), who in together.items():
        where = f"{files} file{'' if files == 1 else 's'}" if files else "no file yet"
        yield f"{verb} {level}: {', '.join(who)} on {where}"


def _gains(counted: Counter[tuple[Level, str]]) -> Iterator[Gain]:
    for level, who in sorted(counted, key=lambda key: (_ORDER.index(key[0]), key[1])):
        yield Gain(level.value, who, counted[level, who])


def _holders(
    before: RuleTree, after: RuleTree, path: MeshPath, now_ms: int, known: dict[Any, tuple[Holders, Holders]]
) -> tuple[Holders, Holders]:
    """Return who has what at `path` before and after; files for which the same rules decide share the answer."""
    decidings = find_deciding(before, path, now_ms), find_deciding(after, path, now_ms)
    is_personal = any(d is not None and d.rule is not None and d.rule.pattern.is_personal for d in decidings)
    key = (*(_key(d, path) for d in decidings), level_for_write(path, exists=True))
    if not is_personal and key in known:
        return known[key]
    people = {who for tree in (before, after) for d in decidings for who in _people(tree, d, path, now_ms)}
    people.discard(path.site)
    old, new = (
        _granted(tree, d, path, people, now_ms) for tree, d in zip((before, after), decidings, strict=True)
    )
    if not is_personal:
        known[key] = (old, new)
    return old, new


def _key(deciding: Deciding | None, path: MeshPath) -> Any:
    if deciding is None or deciding.rule is None:
        return None
    # Limits look at the depth.
    return deciding.file.path, deciding.rule.index, len(path.segments) - len(deciding.file.directory) > 1


def _people(tree: RuleTree, deciding: Deciding | None, path: MeshPath, now_ms: int) -> set[str]:
    """Return everybody whom the deciding rule names, to grant or to deny."""
    if deciding is None or deciding.rule is None:
        return set()
    if deciding.rule.pattern.is_personal:
        found = set(readers_of(tree, path, now_ms).principals)
    else:
        found = set()
    entries = join((*(deciding.rule.access.granted(level) for level in _ORDER), deciding.rule.deny))
    return found | set(entries.principals) | _members(entries, tree.groups)


def _members(entries: EntryList, groups: Groups) -> set[str]:
    return {who for name in entries.groups for who in groups.get(name, ())}


def _granted(
    tree: RuleTree, deciding: Deciding | None, path: MeshPath, people: set[str], now_ms: int
) -> Holders:
    found = {}
    for level in _ORDER:
        held = {who for who in people if decide(tree, Question(who, path, level, now_ms)).allowed}
        found[level] = frozenset(held | _opening(deciding, level, now_ms))
    return found


def _opening(deciding: Deciding | None, level: Level, now_ms: int) -> set[str]:
    """Return the entries that mean more than people known by name."""
    rule = None if deciding is None else _in_force(deciding.rule, now_ms)
    # Where the person can be read off the path nobody else is meant, whatever entry says so.
    return set() if rule is None or rule.pattern.email_slot is not None else _open_entries(rule, level)


def _in_force(rule: Rule | None, now_ms: int) -> Rule | None:
    expired = rule is not None and rule.expires_ms is not None and now_ms >= rule.expires_ms
    return None if expired else rule


def _open_entries(rule: Rule, level: Level) -> set[str]:
    granted, deny = rule.access.granted(level), rule.deny
    if deny.everyone:
        return set()
    found = {"*"} if granted.everyone else set()
    if not deny.authenticated:
        found |= {"USER"} if granted.authenticated else set()
        found |= {glob.text for glob in granted.globs}
    return found


def _new_names(old: Rule | None, new: Rule | None, level: Level, groups: tuple[Groups, Groups]) -> set[str]:
    """Return whom `new` grants `level` and `old` does not, wherever their pattern matches."""
    if new is None:
        return set()
    granted = new.access.granted(level)
    named = set(granted.principals) | _members(granted, groups[1])
    people = {who for who in named if _grants(new, level, who, groups[1])}
    before = set() if old is None else {who for who in people if _grants(old, level, who, groups[0])}
    return (people - before) | (_open_entries(new, level) - (_open_entries(old, level) if old else set()))


def _grants(rule: Rule, level: Level, who: str, groups: Groups) -> bool:
    return rule.access.granted(level).names(who, groups) and not rule.deny.names(who, groups)


def still_granted(rule: Rule, removed: Iterable[str], groups: Groups) -> list[str]:
    """Return those of `removed` whom another entry of `rule` still grants something."""
    levels = (Level.READ, Level.CREATE)
    return [
        who for who in removed if is_principal(who) and any(_grants(rule, lv, who, groups) for lv in levels)
    ]
