"""What the bench of federated rounds reads from logs and processes, and the app that both sides run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from syftmesh_flower.bundle import build_bundle, read_bundle

FILE = Path(__file__).parents[2] / "bench" / "flower_app.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_flower_app", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_flower_app"] = module
    spec.loader.exec_module(module)
    return module


flower: Any = _load()

# Flower itself, while it builds a bundle.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def test_phases_are_the_times_between_the_ends_of_rounds() -> None:
    log = "PHASE 0 10.0\nINFO : [ROUND 1/3]\nPHASE 1 14.5\nPHASE 2 16.5\nPHASE 3 19.0\n"
    assert flower.phases(log, 3) == (2.0, 2.5)


def test_the_first_phase_does_not_count() -> None:
    assert flower.phases("PHASE 0 1.0\nPHASE 1 100.0\nPHASE 2 101.0\n", 2) == (1.0,)


@pytest.mark.parametrize("log", ["", "PHASE 1 1.0\n", "PHASE 1 1.0\nPHASE 3 2.0\n"])
def test_a_round_that_did_not_end_is_told(log: str) -> None:
    with pytest.raises(ValueError, match="did not end"):
        flower.phases(log, 3)


def test_one_round_alone_gives_no_phase() -> None:
    with pytest.raises(ValueError, match="of 1 rounds"):
        flower.phases("PHASE 1 1.0\n", 1)


def test_a_sample_is_the_median_phase() -> None:
    assert flower.Sample((9.0, 2.0, 3.0)).median_s == 3.0


def test_peaks_keep_the_highest_of_each_part() -> None:
    peaks = flower.Peaks()
    peaks.see({"SuperLink": 100.0})
    peaks.see({"SuperLink": 90.0, "SuperNode": 80.0})
    assert peaks.mb == {"SuperLink": 100.0, "SuperNode": 80.0}


def test_the_memory_of_a_part_is_found_by_a_word_of_its_command_line() -> None:
    code = "import sys; held = bytearray(b'x') * 30_000_000; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "the-marked-one"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = flower.memory([os.getpid()], {"the-marked-one": "part", "nobody-has-this": "other"})
        child.communicate(b"")
    assert found.keys() == {"part"}
    assert 30 < found["part"] < 200


def test_a_process_that_has_ended_is_left_out() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        assert flower.memory([child.pid], {"python": "part"}) == {}


def test_the_app_is_one_that_a_site_takes(tmp_path: Path) -> None:
    bundle = read_bundle(build_bundle(flower.write_app(tmp_path)))
    assert bundle.server_app == "bench_fl.server_app:app"
    assert bundle.client_app == "bench_fl.client_app:app"


def test_the_models_are_as_large_as_their_names_say() -> None:
    sizes = [4 * model.arrays * model.floats for model in (flower.SMALL, flower.LARGE)]
    assert sizes == [1024, 50_000_000]
