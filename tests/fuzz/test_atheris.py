"""Guided by coverage: every target in a child process for a bounded time, from its seeds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_seed import SEEDS
from fuzz_target import TARGETS

SECONDS = int(os.environ.get("SYFTMESH_FUZZ_S", "3"))
"""How long each target is fuzzed."""

_ONE_INPUT_S = 1
_START_S = 90
_LONGEST_INPUT = 4096
_CHILD = Path(__file__).with_name("fuzz_child.py")


@pytest.mark.timeout(SECONDS + _START_S + 30)
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_crashes_or_hangs(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this platform")
    corpus, found = tmp_path / "corpus", tmp_path / "found"
    corpus.mkdir()
    found.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{number}").write_bytes(seed)
    flags = {
        "max_total_time": SECONDS,
        "timeout": _ONE_INPUT_S,
        "max_len": _LONGEST_INPUT,
        "rss_limit_mb": 1024,
        "artifact_prefix": f"{found}/",
        "print_final_stats": 1,
        "seed": 20260307,
    }
    command = [sys.executable, str(_CHILD), target, *(f"-{k}={v}" for k, v in flags.items()), str(corpus)]
    # By way of a shell, which forks: what libFuzzer takes for the target's own memory is a peak that a process
    # inherits from whoever started it, here a test run that may be larger than the limit.
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit "$?"', "sh", *command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + _START_S,
        check=False,
    )
    inputs = [file.read_bytes() for file in sorted(found.iterdir())]
    assert (done.returncode, inputs) == (0, []), f"{inputs!r}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert _executed(done.stderr) > len(SEEDS[target]), done.stderr[-4000:]


def _executed(stats: str) -> int:
    """Return how many inputs libFuzzer says that it tried."""
    line = next(line for line in stats.splitlines() if line.startswith("stat::number_of_executed_units"))
    return int(line.rpartition(":")[2])
