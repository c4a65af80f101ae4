"""What the benches say of their samples: who goes first, medians, verdicts, the table."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "bench" / "measure.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_measure", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_measure"] = module
    spec.loader.exec_module(module)
    return module


measure: Any = _load()


async def test_pairs_alternate_who_begins_and_drop_the_first_of_each() -> None:
    order: list[str] = []

    async def ours() -> float:
        order.append("ours")
        return float(order.count("ours"))

    async def peer() -> float:
        order.append("peer")
        return 1.0

    found = await measure.pairs(5, ours, peer)
    assert order[:6] == ["ours", "peer", "ours", "peer", "peer", "ours"]
    assert [mine for mine, _ in found] == [2.0, 3.0, 4.0, 5.0, 6.0]


async def test_fewer_than_five_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        await measure.pairs(4, None, None)


def test_ratio_is_the_median_of_the_pairs_and_is_judged() -> None:
    found = [(2.0, 1.0), (3.0, 1.0), (9.0, 1.0)]
    row = measure.compared("x", "ms", "peer", found, measure.Target(2.5))
    assert (row.ratio, row.spread, row.ours, row.peer, row.verdict) == (3.0, (2.0, 9.0), 3.0, 1.0, "missed")
    assert measure.compared("x", "ms", "peer", found, measure.Target(3.0)).verdict == "met"
    assert measure.compared("x", "ms", "peer", found, measure.Target(3.5, at_least=True)).verdict == "missed"
    assert measure.compared("x", "ms", "peer", found, None).verdict == "shown"


def test_what_has_no_peer_is_judged_by_its_median_or_by_its_worst() -> None:
    samples = [1.0, 2.0, 9.0]
    assert measure.alone("x", "s", samples, 2.0).verdict == "met"
    assert measure.alone("x", "s", samples, 2.0, highest=True).verdict == "missed"
    assert measure.alone("x", "s", samples, None).verdict == "shown"


def test_percentile_is_that_of_the_nearest_rank() -> None:
    samples = list(range(1, 101))
    assert [measure.percentile(samples, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]


def test_a_missed_target_stands_in_table_and_document(tmp_path: Path) -> None:
    row = measure.alone("start", "s", [7.0], 6.0)
    assert "| missed" in measure.table([row])
    measure.write_json(tmp_path / "bench.json", [row])
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["rows"][0]["verdict"] == "missed"
    assert set(document["machine"]) >= {"cores", "memory_gib", "load"}
