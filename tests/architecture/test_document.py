"""Pages of the documentation lead where they say, and name tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")


def _named(page: Path) -> list[tuple[str, str]]:
    return [(file, name or "") for file, name in _TEST.findall(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    for file, name in _named(page):
        assert (ROOT / file).is_file(), file
        if name:
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            tree = ast.parse((ROOT / file).read_text())
            assert name in {node.name for node in tree.body if isinstance(node, kinds)}, f"{file}::{name}"


def test_each_claim_on_federated_security_names_its_test() -> None:
    page = ROOT / "docs/security/federated.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ") and "`tests/" not in line]
    heads = [row for row in rows if row.startswith("| claim")]
    assert heads
    assert rows == heads
    assert len(_named(page)) > 20
