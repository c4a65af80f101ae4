"""What the benches on a cluster make of pods, of kubelet's statistics, of calls and of files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

# The bench imports itself by its name; last, so that it hides nothing.
sys.path.append(str(Path(__file__).parents[2]))

from bench.cluster_footprint import Container, footprint, quantity
from bench.cluster_probe import Loop
from bench.cluster_recovery import CALLS, NotBack, interruption_s
from bench.image import files_bytes
from syftmesh_core.errors import Unavailable

MIB = 2**20


def pod(*containers: dict[str, Any], before: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "metadata": {"name": "hub-sync-0", "labels": {"app.kubernetes.io/component": "sync"}},
        "spec": {"containers": list(containers), "initContainers": list(before)},
    }


def container(name: str, cpu: str = "100m", memory: str = "64Mi") -> dict[str, Any]:
    return {"name": name, "resources": {"requests": {"cpu": cpu, "memory": memory}}}


def used(name: str, cpu: float = 0.01, mib: int = 40) -> dict[tuple[str, str], dict[str, Any]]:
    found = {"cpu": {"usageNanoCores": int(cpu * 1e9)}, "memory": {"workingSetBytes": mib * MIB}}
    return {("hub-sync-0", name): found}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25m", 0.025),
        ("1", 1.0),
        ("1.5", 1.5),
        ("80Mi", 80 * MIB),
        ("1Gi", 2**30),
        ("2G", 2e9),
        ("64M", 64e6),
    ],
)
def test_quantities_are_read_in_their_base_unit(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "Mi", "10Ti", "1Mii", "ten"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unit|could not convert"):
        quantity(text)


def test_pod_asks_for_its_containers_together_and_shows_each() -> None:
    found = footprint(pod(container("sync"), container("proxy", "20m", "16Mi")), used("sync") | used("proxy"))
    assert (found.cpu, found.mib) == (pytest.approx(0.12), 80.0)
    assert found.containers == (
        Container("sync", 64.0, 0.01, 40.0),
        Container("sync/proxy", 16.0, 0.01, 40.0),
    )


def test_container_that_runs_before_counts_where_it_asks_for_more() -> None:
    found = footprint(pod(container("sync"), before=(container("check", "50m", "96Mi"),)), used("sync"))
    assert (found.cpu, found.mib) == (pytest.approx(0.1), 96.0)


def test_container_without_request_is_refused() -> None:
    with pytest.raises(ValueError, match="does not say what it asks for"):
        footprint(pod({"name": "sync", "resources": {"requests": {"cpu": "1"}}}), used("sync"))


def test_container_that_kubelet_does_not_know_yet_is_refused() -> None:
    with pytest.raises(ValueError, match="kubelet tells nothing of sync"):
        footprint(pod(container("sync")), used("other"))


def test_interruption_lasts_from_the_last_success_to_the_first_after_all_failures() -> None:
    samples = [(0.0, ""), (1.0, ""), (1.5, "AWAY"), (2.0, ""), (3.0, "AWAY"), (4.0, ""), (4.1, "")]
    assert interruption_s(samples) == 3.0
    assert interruption_s([*samples, (9.0, "TIMEOUT")]) == 3.0


def test_interruption_without_failure_is_the_longest_wait() -> None:
    assert interruption_s([(0.0, ""), (1.0, ""), (3.5, ""), (4.0, ""), (4.1, "")]) == 2.5


def test_a_long_wait_beside_a_short_failure_counts() -> None:
    assert interruption_s([(0.0, ""), (0.1, "AWAY"), (0.2, ""), (5.2, ""), (5.3, "")]) == 5.0


GOOD, BAD = [(float(number), "") for number in range(5)], [(float(number), "AWAY") for number in range(5, 10)]


@pytest.mark.parametrize("samples", [[], GOOD[:4], [(0.0, "AWAY"), *GOOD[1:]], [*GOOD, *BAD]])
def test_calls_that_did_not_come_back_are_no_number(samples: list[tuple[float, str]]) -> None:
    with pytest.raises(NotBack):
        interruption_s(samples)


def test_each_pod_of_the_hub_is_deleted() -> None:
    components = {name for name, _, _ in CALLS}
    services = {"identity", "sync", "permissions", "crypto", "router", "superlink"}
    assert components == services | {"gateway", "nats", "store"}
    assert all(workload.endswith(f"/hub-{name}") for name, workload, _ in CALLS)


async def test_loop_keeps_why_calls_failed_and_counts_those_in_a_row() -> None:
    answers = iter([None, Unavailable("away", reason="HUB_AWAY"), None, None])

    async def call() -> None:
        try:
            answer = next(answers)
        except StopIteration:
            raise ZeroDivisionError from None
        if answer is not None:
            raise answer

    loop = Loop(call, pause_s=0.0)
    with pytest.raises(ZeroDivisionError):
        await loop.task
    assert [why for _, why in loop.samples] == ["", "HUB_AWAY", "", ""]
    assert loop.in_a_row == 2
    loop.mark()
    assert [why for _, why in loop.samples] == [""]


def test_file_of_two_names_counts_once_and_links_do_not(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one").write_bytes(bytes(1000))
    os.link(tmp_path / "one", tmp_path / "sub" / "same")
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "sub" / "two").write_bytes(bytes(24))
    assert files_bytes(tmp_path) == 1024
