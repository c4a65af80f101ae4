"""Patterns without braces as a straight line of moves: what almost every pattern is.

There it is known beforehand which ``**`` are whole segments, so one set of places is enough (`node` keeps
four).
"""

from __future__ import annotations

from collections.abc import Callable

from syftmesh_core.permission.node import Alternation, Literal, Node, Slash, Star, Within
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.template import Moment

Move = Callable[[int, Subject, Moment], int]
Program = tuple[Move, ...]


def compile_program(nodes: tuple[Node, ...]) -> Program | None:
    """Return the moves of a pattern, the end of its last segment included; None when it has braces."""
    if any(isinstance(node, Alternation) for node in nodes):
        return None
    segments: list[list[Within]] = [[]]
    for node in nodes:
        if isinstance(node, Slash):
            segments.append([])
        elif isinstance(node, Within):
            segments[-1].append(node)
    moves: list[Move] = []
    literal = ""
    for segment in segments:
        if segment == [Star(2)]:
            moves += [Literal(literal).move, _whole_segments] if literal else [_whole_segments]
            literal = ""
            continue
        for node in segment:
            if isinstance(node, Literal):
                literal += node.text
            else:
                moves += [Literal(literal).move, node.move] if literal else [node.move]
                literal = ""
        literal += "/"
    return (*moves, Literal(literal).move) if literal else tuple(moves)


def _whole_segments(places: int, subject: Subject, _moment: Moment) -> int:
    return subject.after_segments(places)


def run(program: Program, subject: Subject, moment: Moment) -> bool:
    """Return whether the moves lead from the beginning of `subject` to its end."""
    places = 1
    for move in program:
        places = move(places, subject, moment)
        if not places:
            return False
    return bool(places >> subject.length)
