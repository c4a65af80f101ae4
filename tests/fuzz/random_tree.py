"""Random trees, groups and paths from a seed: plain and cheap, so that ten thousand of them take seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from slow_reading import (
    BOB,
    EVE,
    TEMPLATES,
    Groups,
    Part,
    SlowFile,
    SlowRule,
    SlowTree,
    is_wellformed,
    value,
)

CHARACTERS = "ab@.-A0,\u00e9"
DIRECTORIES = ("a", "b", BOB)
SEGMENTS = (
    *("a", "b", "ab", "ba", "A", "-", "\u00e9", "07", "a,b", "b@a", "a@a.-a", "0" * 16),
    *("syft.pub.yaml", ".syftignore", "settings.yaml", "syft.groups.yaml"),
    *(BOB, EVE, BOB.upper(), value(".UserHash", BOB)),
    *(value("sha2 .UserEmail 2", BOB), value("sha2 .UserEmail 2", EVE)),
)
ENTRIES = ("*", "USER", BOB, EVE, "*@a.ba", "*b@*", "a*@*", "group:g", "group:h", "group:none")
RANGES = (("a", "a"), ("a", "z"), ("@", "@"), ("0", "9"), (".", "/"))
STAR, SLASH = ("*",), ("/",)
FREQUENT: tuple[tuple[Part, ...], ...] = (
    (STAR, STAR),
    (STAR, STAR, SLASH, STAR),
    (STAR, STAR, SLASH, STAR, ("c", "a")),
    (("c", "a"), SLASH, STAR, STAR, SLASH, STAR),
    (STAR,),
    (STAR, ("c", "a")),
    (("t", ".UserEmail"), SLASH, STAR, STAR),
    (("c", "a"), SLASH, ("t", ".UserEmail"), SLASH, STAR, STAR),
    (("c", "a"), SLASH, STAR, STAR),
    (("t", "sha2 .UserEmail 2"), STAR),
    (("c", "a"),),
)


@dataclass(frozen=True)
class Case:
    """A datasite, and a path in it that is asked about."""

    tree: SlowTree
    path: tuple[str, ...]


def random_case(source: Random) -> Case:
    """Return the next case; the same for the same state of `source`."""
    files = {_directory(source): _file(source) for _ in range(source.randrange(4))}
    if source.random() < 0.7:
        files[()] = _file(source)
    groups = _groups(source)
    start = _directory(source) if source.random() < 0.5 else ()
    path = (*start, *(_segment(source) for _ in range(source.randrange(1, 4))))
    return Case(SlowTree(files, groups), path)


def _groups(source: Random) -> Groups:
    """Return groups that seldom contain each other: most name those behind them only."""
    names = ("g", "h", "i")[: source.randrange(4)]
    groups: Groups = {}
    for index, name in enumerate(names):
        others = names if source.random() < 0.1 else names[index + 1 :]
        groups[name] = _some(source, (*(f"group:{other}" for other in (*others, "none")), BOB, EVE), 3)
    return groups


def _directory(source: Random) -> tuple[str, ...]:
    return tuple(_some(source, DIRECTORIES, 2))


def _some(source: Random, among: Sequence[str], most: int) -> list[str]:
    return source.choices(among, k=source.randrange(most + 1))


def _file(source: Random) -> SlowFile:
    return SlowFile(source.random() < 0.3, [_rule(source) for _ in range(source.randrange(6))])


def _rule(source: Random) -> SlowRule:
    levels = source.sample(("admin", "write", "create", "read"), k=source.randrange(1, 4))
    return SlowRule(
        parts=_pattern(source),
        access={level: _some(source, ENTRIES, 2) for level in levels},
        deny=_some(source, ENTRIES, 2) if source.random() < 0.3 else [],
        expired=source.random() < 0.15,
        max_size=source.choice((0, 5, 6)) if source.random() < 0.2 else None,
        allow_dirs=source.random() < 0.8,
    )


def _pattern(source: Random) -> tuple[Part, ...]:
    while source.random() < 0.6:
        parts = _parts(source, most=6, depth=2)
        if is_wellformed(parts):
            return parts
    return source.choice(FREQUENT)


def _parts(source: Random, most: int, depth: int) -> tuple[Part, ...]:
    return tuple(_part(source, depth) for _ in range(source.randrange(most) + 1))


def _part(source: Random, depth: int) -> Part:
    if depth and source.random() < 0.15:
        options = (_parts(source, 2, depth - 1) for _ in range(source.randrange(1, 3)))
        return ("{", tuple(options) + (((),) if source.random() < 0.2 else ()))
    return source.choice(_LEAVES)(source)


_LEAVES: tuple[Callable[[Random], Part], ...] = (
    lambda source: ("c", source.choice(CHARACTERS)),
    lambda source: ("c", source.choice(CHARACTERS)),
    lambda source: ("c", source.choice("ab")),
    lambda _: STAR,
    lambda _: STAR,
    lambda _: SLASH,
    lambda _: SLASH,
    lambda _: ("?",),
    lambda source: ("[", source.random() < 0.5, tuple(source.sample(RANGES, k=source.randrange(1, 3)))),
    lambda source: ("t", source.choice(TEMPLATES)),
)


def _segment(source: Random) -> str:
    while source.random() < 0.2:
        text = "".join(source.choices(CHARACTERS, k=source.randrange(1, 5)))
        if text not in (".", ".."):
            return text
    return source.choice(SEGMENTS)
