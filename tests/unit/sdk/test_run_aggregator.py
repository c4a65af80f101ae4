"""The desk's aggregator is the real one, and takes what the desk gives it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh.run import RunAggregator
from syftmesh.run_desk import AsyncFederated, RunMaker, make_aggregator
from syftmesh_client.trust import HubTrust
from syftmesh_flower.aggregate import Aggregator, RunPlan
from syftmesh_kit.testing import FakeClock

PEM = b"-----BEGIN CERTIFICATE-----"


def node(announced: str | None) -> Any:
    return SimpleNamespace(
        session=SimpleNamespace(federated=None),
        clock=FakeClock(),
        well_known=SimpleNamespace(flower_address=announced),
        trust=HubTrust(PEM),
    )


@pytest.mark.parametrize(
    ("server", "announced", "address", "insecure"),
    [
        ("https://mesh.example", None, "mesh.example:443", False),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8000", "127.0.0.1:8000", True),
    ],
)
def test_aggregator_reaches_flower_where_the_hub_says(
    tmp_path: Path, server: str, announced: str | None, address: str, insecure: object
) -> None:
    made = make_aggregator(node(announced), tmp_path, server)
    assert isinstance(made, Aggregator)
    assert (made.origin.address, made.origin.insecure) == (address, insecure)
    assert made.origin.tls_root == PEM


@pytest.mark.parametrize("name", ["create", "adopt", "aggregate", "results", "close"])
def test_aggregator_has_what_the_desk_calls(name: str) -> None:
    kind = RunMaker if name in ("create", "close") else RunAggregator
    wanted = inspect.signature(getattr(kind, name)).parameters
    assert list(inspect.signature(getattr(Aggregator, name)).parameters)[: len(wanted)] == list(wanted)


async def test_plan_is_the_aggregators_own(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    plans: list[Any] = []

    class Refused(Exception):
        pass

    async def create(plan: Any) -> Any:
        plans.append(plan)
        raise Refused

    desk = AsyncFederated(node(None), tmp_path, "http://h", lambda *_: SimpleNamespace(create=create))  # type: ignore[arg-type, return-value]
    with pytest.raises(Refused):
        await desk.run(tmp_path, ["a@x.example"], "d", 2, 1, {"rate": 0.5}, "why", 60.0)
    assert plans == [RunPlan(tmp_path, ("a@x.example",), "d", 2, 1, {"rate": 0.5}, "why", 60.0)]
