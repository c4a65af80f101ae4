"""`mesh.common.v1.ErrorReason` lists exactly the reasons that the code gives, and protos and docs agree with it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mesh.common.v1 import error_reason_pb2
from syftmesh_core.errors import BY_CODE

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
ERRORS_ITEM = re.compile(r"([A-Z_]+) \(([A-Z_]+(?:, [A-Z_]+)*)\): (.+)")


def _load(name: str) -> ModuleType:
    sys.path.insert(0, str(REFERENCE))  # the scripts of the reference lie beside each other
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(REFERENCE))


reason_scan: Any = _load("reason_scan")


@pytest.fixture(scope="module")
def found() -> Any:
    return reason_scan.scan()


@pytest.fixture(scope="module")
def named() -> dict[str, int]:
    return {
        name.removeprefix("ERROR_REASON_"): number for name, number in error_reason_pb2.ErrorReason.items()
    }


def _scan(*modules: str) -> Any:
    texts = {(f"part{n}", f"part{n}.py"): text for n, text in enumerate(modules)}
    errors = (ROOT / "libs/core/src/syftmesh_core/errors.py").read_text()
    return reason_scan.Scan({("syftmesh_core.errors", "errors.py"): errors, **texts}).run()


def test_catalogue_lists_every_reason_of_the_code(found: Any, named: dict[str, int]) -> None:
    missing = {
        reason: sorted(map(str, places)) for reason, places in found.reasons.items() if reason not in named
    }
    assert not missing


def test_catalogue_lists_nothing_that_no_code_gives(found: Any, named: dict[str, int]) -> None:
    assert set(named) - {"UNSPECIFIED"} <= set(found.reasons)


def test_every_reason_can_be_followed(found: Any) -> None:
    assert {str(place): text for place, text in found.unknown.items()} == {}


def test_generated_enum_is_the_one_of_the_proto(named: dict[str, int]) -> None:
    values = reason_scan.catalogue(reason_scan.ENUM_FILE.read_text())
    assert {reason: number for reason, (number, _) in values.items()} == named


def test_numbers_lie_in_the_range_of_their_domain() -> None:
    domain = (0, 0)
    for line in reason_scan.ENUM_FILE.read_text().splitlines():
        if found := re.match(r"  // ==== (\d+)-(\d+): ", line):
            assert int(found[1]) > domain[1]
            domain = (int(found[1]), int(found[2]))
        elif found := re.match(r"  \w+ = (\d+);", line):
            assert domain[0] <= int(found[1]) <= domain[1], line


def test_every_meaning_is_a_sentence() -> None:
    for reason, (_, meaning) in reason_scan.catalogue(reason_scan.ENUM_FILE.read_text()).items():
        assert meaning.endswith("."), reason
        assert len(meaning) > 20, reason


def _error_lists() -> Iterator[tuple[str, str]]:
    """Every item below an `Errors:` of a comment, with its place; continued lines joined."""
    for path in sorted((ROOT / "protos" / "mesh").rglob("*.proto")):
        item, place, inside = "", "", False
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            comment = re.match(r"\s*// ?(.*)", line)
            text = comment[1] if comment else ""
            starts = text.startswith("* ")
            if item and (starts or comment is None):
                yield place, item
                item = ""
            inside = comment is not None and (inside or text.strip() == "Errors:")
            if inside and starts:
                item, place = text[2:], f"{path.relative_to(ROOT)}:{number}"
            elif inside and item:
                item += " " + text.strip()


def test_errors_of_the_protos_are_known_and_fit_their_code(found: Any, named: dict[str, int]) -> None:
    wrong = []
    count = 0
    for place, item in _error_lists():
        parts = ERRORS_ITEM.match(item)
        if parts is None:
            # A sentence about all of a result is allowed, a malformed item is not.
            if re.match(r"[A-Z]+_[A-Z_]+", item):
                wrong.append(f"{place}: {item}")
            continue
        count += 1
        if parts[1] not in BY_CODE:
            wrong.append(f"{place}: no class has the code {parts[1]}")
        for reason in parts[2].split(", "):
            if reason not in named:
                wrong.append(f"{place}: {reason} is no reason")
            elif found.codes[reason] and parts[1] not in found.codes[reason]:
                wrong.append(f"{place}: {reason} is raised as {sorted(found.codes[reason])}, not {parts[1]}")
    assert not wrong
    assert count > 50


def test_page_of_errors_is_as_generated() -> None:
    command = [sys.executable, str(REFERENCE / "generate_errors.py"), "--check"]
    assert subprocess.run(command, check=False, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    "code",
    [
        'raise NotFound("x", reason="LOST_" + kind)',
        'raise NotFound("x", reason=f"{kind}_LOST")',
        'raise NotFound("x", reason=kind.upper())',
        'raise NotFound("x", reason=make())',
        'raise NotFound("x", reason=decision.reason)',
        'raise NotFound("x", reason="not a constant")',
        'raise NotFound("x", reason="lower_case")',
    ],
)
def test_scan_reports_a_reason_put_together_at_run_time(code: str) -> None:
    scanned = _scan(f"def f(kind, decision):\n    {code}\n")
    assert [str(place) for place in scanned.unknown] == ["part0.py:2"]


@pytest.mark.parametrize(
    "code",
    [
        'raise NotFound("x", reason="CAT_LOST")',
        'raise kind("x", reason="CAT_LOST")',
        'raise NotFound("x", reason="CAT_LOST" if kind else None)',
        'why = None or "CAT_LOST"; raise NotFound("x", reason=why)',
        'raise NotFound("x", reason=CAT)',
        'raise NotFound("x", reason=TABLE.get(kind, "x"))',
        'raise NotFound("x", reason=TABLE[kind])',
        'raise made("CAT_LOST")',
        "raise made(CAT)",
        'raise made(why="CAT_LOST")',
        'self._end(failure_reason="CAT_LOST")',
        "answer = Reply(1, CAT)",
    ],
)
def test_scan_follows_a_reason_to_where_it_is_spelled(code: str) -> None:
    module = (
        'from part1 import CAT\nTABLE = {"KEY": "CAT_LOST"}\n'
        f"class Reply:\n    number: int\n    failure_reason: str\n"
        f'def made(why):\n    return NotFound("x", reason=why)\ndef f(self, kind):\n    {code}\n'
    )
    scanned = _scan(module, 'CAT = "CAT_LOST"\n')
    assert "CAT_LOST" in scanned.reasons
    assert not scanned.unknown


def test_scan_follows_the_default_of_a_parameter() -> None:
    scanned = _scan('def made(*, why="CAT_LOST"):\n    return NotFound("x", reason=why)\n')
    assert "CAT_LOST" in scanned.reasons


def test_scan_tells_the_class_of_a_reason_given_to_a_maker() -> None:
    scanned = _scan(
        'def made(why):\n    return NotFound("x", reason=why)\ndef f():\n    raise made("CAT_LOST")\n'
    )
    assert scanned.codes["CAT_LOST"] == {"NOT_FOUND"}


def test_scan_leaves_logs_and_other_vocabularies_alone() -> None:
    scanned = _scan(
        'def f(_log):\n    _log.info("x", reason="CAT_SEEN")\n    return Decision(reason="CAT_RULE")\n'
    )
    assert not {"CAT_SEEN", "CAT_RULE"} & set(scanned.reasons)
