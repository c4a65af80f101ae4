"""What an aggregator does with sites that are away, and what it tells Flower's own log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_core.errors import NotFound
from syftmesh_flower import aggregate
from syftmesh_flower.aggregate import NO_PURPOSE, Aggregator, RunOrigin, RunPlan
from syftmesh_flower.bundle import read_bundle
from syftmesh_flower.server_run import outcome_line, pb_outcome, phase_line
from syftmesh_kit.testing import FakeClock

# Flower uses a name of pathspec that goes away.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

APP = Path(__file__).parents[3] / "examples" / "breast-cancer-fl"
NEAR, FAR, NOBODY = "near@a.example", "far@b.example", "nobody@c.example"
RUN = "23"


class Hub:
    """Keeps what it was told of a run."""

    def __init__(self) -> None:
        self.created = pb.Run()
        self.proposed: list[tuple[str, int, str]] = []

    async def CreateRun(self, request: rpc.CreateRunRequest) -> rpc.CreateRunResponse:  # noqa: N802
        self.created = pb.Run()
        self.created.CopyFrom(request.run)
        self.created.run_id = RUN
        self.created.app_digest = read_bundle(request.bundle).digest
        self.created.deadline_unix_ms = 10**13
        return rpc.CreateRunResponse(run=self.created)

    async def GetRun(self, _: rpc.GetRunRequest) -> rpc.GetRunResponse:  # noqa: N802
        return rpc.GetRunResponse(run=self.created)

    async def ReportRound(self, request: rpc.ReportRoundRequest) -> rpc.ReportRoundResponse:  # noqa: N802
        self.proposed += [(part.site, part.state, part.reason) for part in request.proposed]
        return rpc.ReportRoundResponse()


class Calls:
    """Sites that answer, never answer, or do not exist."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()

    async def send(self, url: str, *_: Any, **__: Any) -> str:
        if NOBODY in url:
            raise NotFound("no", reason="PRINCIPAL_UNKNOWN")
        return url

    async def wait(self, _call_id: str, _timeout_s: float, *, site: str) -> None:
        if site == FAR:
            self.waiting.add(site)
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting.discard(site)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def aggregator(hub: Hub, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aggregator:
    monkeypatch.setattr(aggregate, "_FIRST_ANSWER_S", 0.05)
    node: Any = SimpleNamespace(
        session=SimpleNamespace(federated=hub),
        clock=FakeClock(),
        random=lambda size: b"k" * size,
        calls=calls,
        principal="carol@lab.example",
        keystore=SimpleNamespace(own_root=b"r" * 32),
    )
    executor: Any = None
    return Aggregator(node, executor, tmp_path / "aggregator", RunOrigin("127.0.0.1:1"))


def plan(purpose: str = "") -> RunPlan:
    return RunPlan(APP, (NEAR, FAR, NOBODY), "breast-cancer", purpose=purpose)


async def test_a_site_that_is_away_holds_nobody_up_and_is_let_go_by_closing(
    aggregator: Aggregator, hub: Hub, calls: Calls
) -> None:
    before = asyncio.all_tasks()
    await aggregator.create(plan())
    assert sorted(hub.proposed) == [
        (NEAR, pb.SITE_STATE_AWAITING_APPROVAL, ""),
        (NOBODY, pb.SITE_STATE_FAILED, "PRINCIPAL_UNKNOWN"),
    ]
    assert calls.waiting == {FAR}
    await aggregator.close()
    assert calls.waiting == set()
    assert asyncio.all_tasks() == before
    assert FAR not in [site for site, _, _ in hub.proposed]
    await aggregator.close()


async def test_a_starter_who_is_interrupted_leaves_nothing_asking(
    aggregator: Aggregator, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregate, "_FIRST_ANSWER_S", 30)
    creating = asyncio.create_task(aggregator.create(plan()))
    while calls.waiting != {FAR}:
        assert not creating.done()
        await asyncio.sleep(0)
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    await aggregator.close()
    assert calls.waiting == set()


@pytest.mark.parametrize(("said", "told"), [("", NO_PURPOSE), ("  ", NO_PURPOSE), (" why ", "why")])
async def test_owners_read_that_no_purpose_was_given(
    aggregator: Aggregator, hub: Hub, said: str, told: str
) -> None:
    await aggregator.create(plan(said))
    assert hub.created.purpose == told
    await aggregator.close()


def test_a_phase_is_told_with_those_who_gave_nothing() -> None:
    replies = [pb.SiteReply(site=NEAR, ok=True), pb.SiteReply(site=FAR, ok=False, reason="NO_ANSWER")]
    report = pb.RoundReport(round=2, phase="train", replies=replies, started_unix_ms=1000, ended_unix_ms=3540)
    assert phase_line(report) == f"round 2 train: 1 of 2 sites, 2.5 s ({FAR}: NO_ANSWER)"
    del report.replies[1]
    assert phase_line(report) == "round 2 train: 1 of 1 sites, 2.5 s"


def test_an_end_is_told_with_its_reason() -> None:
    assert outcome_line(RUN, rpc.RunOutcome(ok=True)).endswith("syftmesh fl results 23 -o DIR")
    failed = pb_outcome("APP_RAISED", "The ServerApp raised an error; its log says which.")
    assert outcome_line(RUN, failed).startswith("the run failed: APP_RAISED: The ServerApp raised")
