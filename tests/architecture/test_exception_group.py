"""What a clause of ``except*`` raises is a group in some releases of Python 3.11 and itself in others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "libs").rglob("src/**/*.py")) + sorted((ROOT / "services").rglob("src/**/*.py"))


def raised_in_star(source: str) -> list[int]:
    """Return the lines that raise inside of an ``except*`` clause."""
    clauses = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.TryStar)]
    return [
        node.lineno
        for clause in clauses
        for handler in clause.handlers
        for node in ast.walk(handler)
        if isinstance(node, ast.Raise)
    ]


def test_the_search_sees_what_it_looks_for() -> None:
    assert raised_in_star(
        "try:\n    pass\nexcept* ValueError as group:\n    raise KeyError from group\n"
    ) == [4]
    assert raised_in_star("try:\n    raise KeyError\nexcept* ValueError:\n    pass\n") == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_raised_inside_of_except_star(path: Path) -> None:
    # Python 3.11.2, which Debian 12 has, wraps it into a group that no `except MeshError` takes.
    assert raised_in_star(path.read_text()) == []
