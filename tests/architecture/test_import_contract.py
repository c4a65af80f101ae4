"""The import contracts name every package that there is, so that a new one cannot escape them."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _packages() -> set[str]:
    found = {"mesh"}
    for group in ("libs", "services"):
        for source in (ROOT / group).glob("*/src/*/__init__.py"):
            found.add(source.parent.name)
    return found


def _contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def test_root_packages_are_the_folders_of_the_workspace() -> None:
    named = set(_contracts()["importlinter"]["root_packages"].split())
    assert named == _packages()


def test_every_package_has_its_layer() -> None:
    layers = _contracts()["importlinter:contract:dists"]["layers"].replace("|", " ").split()
    assert set(layers) == _packages()


def test_locks_hold_hashes_and_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock.name
        assert "://" not in text, lock.name
