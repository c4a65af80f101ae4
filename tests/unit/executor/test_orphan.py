"""Which processes count as sandboxes of a runner that is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from syftmesh_executor.orphan import _runner_of, end_orphans, mark_of

SANDBOX = ["/usr/bin/bwrap", "--args", "9", "--", "/bin/sh", "-c", "gate", mark_of(41), "python", "main.py"]


def command_line(words: list[str]) -> bytes:
    return b"".join(word.encode() + b"\0" for word in words)


def test_a_sandbox_names_its_runner() -> None:
    assert _runner_of(command_line(SANDBOX)) == 41


@pytest.mark.parametrize(
    "words",
    [[], ["python", mark_of(41)], SANDBOX[:7], [*SANDBOX[:7], "job"], [*SANDBOX[:7], "syftmesh-job-x"],
     ["/usr/bin/grep", *SANDBOX[1:]], ["bwrap", "--bind", *SANDBOX[2:]]],
)  # fmt: skip
def test_anything_else_is_left_alone(words: list[str]) -> None:
    assert _runner_of(command_line(words)) is None


def test_a_living_runner_keeps_its_sandboxes(tmp_path: Path) -> None:
    (tmp_path / "40").mkdir()
    (tmp_path / "40" / "cmdline").write_bytes(command_line(SANDBOX))
    (tmp_path / "41").mkdir()
    (tmp_path / "stat").write_text("")
    assert end_orphans(proc=tmp_path) == 0
