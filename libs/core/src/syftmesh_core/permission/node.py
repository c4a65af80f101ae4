"""Parts of a pattern: each takes the places where it may begin to those where it may end."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.template import Moment, Template


class Places(NamedTuple):
    """Sets of positions (see `subject`), told apart by what the pattern's current segment holds so far.

    The last two have not consumed anything: they wait to see whether the segment is exactly ``**``, which
    with alternatives such as ``{*,a}*`` only its end can tell.
    """

    start: int = 0
    inside: int = 0
    one_star: int = 0
    two_stars: int = 0


NOWHERE = Places()
BEGIN = Places(start=1)


class Node(Protocol):
    """One part of a pattern."""

    def after(self, places: Places, subject: Subject, moment: Moment) -> Places:
        """Return where this part ends in `subject` when it begins at `places`."""
        ...


class Within:
    """A part that stays within a segment; the same function of places whatever came before."""

    __slots__ = ()

    def move(self, places: int, subject: Subject, moment: Moment) -> int:
        """Return where this part ends when it begins at `places`."""
        raise NotImplementedError

    def after(self, places: Places, subject: Subject, moment: Moment) -> Places:
        """Return where this part ends in `subject` when it begins at `places`."""
        return Places(0, self.move(places.start | places.inside, subject, moment))


@dataclass(frozen=True, slots=True)
class Literal(Within):
    """Characters that stand for themselves, none of them ``/``."""

    text: str

    def move(self, places: int, subject: Subject, moment: Moment) -> int:  # noqa: ARG002 - one signature
        """Return where the text ends."""
        return subject.after_literal(places, self.text)


@dataclass(frozen=True, slots=True)
class Slash:
    """The end of a segment; one that is empty matches nothing."""

    def after(self, places: Places, subject: Subject, moment: Moment) -> Places:  # noqa: ARG002 - one signature
        """Return the beginnings of what follows."""
        return Places(
            start=subject.after_literal(places.inside, "/") | subject.after_segments(places.two_stars)
        )


@dataclass(frozen=True, slots=True)
class Star(Within):
    """A run of so many ``*``."""

    count: int

    def move(self, places: int, subject: Subject, moment: Moment) -> int:  # noqa: ARG002 - one signature
        """Return where any run without ``/`` ends."""
        return subject.after_run(places)

    def after(self, places: Places, subject: Subject, moment: Moment) -> Places:  # noqa: ARG002 - one signature
        """Return where any run without ``/`` ends, and keep what may become a whole ``**``.

        Where the segment does turn out to be ``**``, the run alone is one segment: ``**`` matches that too.
        """
        return Places(
            inside=subject.after_run(places.start | places.inside),
            one_star=places.start if self.count == 1 else 0,
            two_stars={1: places.one_star, 2: places.start}.get(self.count, 0),
        )


@dataclass(frozen=True, slots=True)
class AnyCharacter(Within):
    """One character but ``/``."""

    def move(self, places: int, subject: Subject, moment: Moment) -> int:  # noqa: ARG002 - one signature
        """Return where that character ends."""
        return subject.after_any(places)


@dataclass(frozen=True, slots=True)
class CharacterClass(Within):
    """One character but ``/`` inside the ranges, or outside them when negated.

    Attributes:
        negated: Whether the class begins with ``!`` or ``^``.
        lows: First code points of disjoint ranges, ascending.
        highs: Last code points of the same ranges.
    """

    negated: bool
    lows: tuple[int, ...]
    highs: tuple[int, ...]

    def accepts(self, character: str) -> bool:
        """Return whether the class holds `character`."""
        point = ord(character)
        index = bisect_right(self.lows, point) - 1
        return (index >= 0 and point <= self.highs[index]) != self.negated

    def move(self, places: int, subject: Subject, moment: Moment) -> int:  # noqa: ARG002 - one signature
        """Return where that character ends."""
        return subject.after_one_of(places, self.accepts)


@dataclass(frozen=True, slots=True)
class TemplateValue(Within):
    """The value of a template, literally."""

    template: Template

    def move(self, places: int, subject: Subject, moment: Moment) -> int:
        """Return where the value ends."""
        return self.template.after(places, subject, moment)


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of several sequences; an empty one leaves everything as it is."""

    options: tuple[tuple[Node, ...], ...]

    def after(self, places: Places, subject: Subject, moment: Moment) -> Places:
        """Return where any of the sequences ends; the places are sets, so each is passed once."""
        start = inside = one_star = two_stars = 0
        for option in self.options:
            subject.steps += 1
            end = after_all(option, places, subject, moment)
            start |= end.start
            inside |= end.inside
            one_star |= end.one_star
            two_stars |= end.two_stars
        return Places(start, inside, one_star, two_stars)


_END = Slash()


def after_all(nodes: tuple[Node, ...], places: Places, subject: Subject, moment: Moment) -> Places:
    """Return where the whole sequence ends when it begins at `places`."""
    for node in nodes:
        if places == NOWHERE:
            break
        places = node.after(places, subject, moment)
    return places


def matches_whole(nodes: tuple[Node, ...], subject: Subject, moment: Moment) -> bool:
    """Return whether the sequence matches all of `subject`."""
    end = _END.after(after_all(nodes, BEGIN, subject, moment), subject, moment)
    return bool(end.start >> subject.length)
