"""The page for users shows files that are accepted, and names every reason there is."""

from __future__ import annotations

import re
from pathlib import Path

from syftmesh_core.permission import engine, parse_groups, parse_ruleset

PAGE = (Path(__file__).parents[3] / "docs/reference/permissions.md").read_text()


def test_the_files_that_it_shows_are_accepted() -> None:
    rules, groups = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(parse_ruleset(rules.encode()).rules) == 1
    assert parse_groups(groups.encode()).resolved["reviewers"] == {"bob@clinic.example", "dora@lab.example"}


def test_it_names_every_reason() -> None:
    reasons = {name for name, value in vars(engine).items() if name == value}
    assert len(reasons) == 12
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE} == set()
