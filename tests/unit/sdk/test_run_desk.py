"""Federated runs as their starter sees them: started, aggregated, followed, cancelled; and those of stock clients."""

# ruff: noqa: N802 - names are those of gRPC

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.federated.v1 import federated_pb2 as fl
from mesh.federated.v1 import federated_service_pb2 as pb
from syftmesh import run as run_module
from syftmesh import run_desk
from syftmesh.run import AsyncRun
from syftmesh.run_desk import AsyncFederated
from syftmesh.run_status import RunSnapshot, RunState, SiteState, run_snapshot
from syftmesh_core.errors import (
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)

ALICE, BOB, CAROL = "alice@hospital.example", "bob@clinic.example", "carol@lab.example"
RUN, OTHER = "17446744073709551615", "23"
SERVER = "http://127.0.0.1:8080"


def run(state: str = "PENDING", run_id: str = RUN, *, stock: bool = False, **more: Any) -> fl.Run:
    more.setdefault("aggregator", CAROL)
    return fl.Run(run_id=run_id, state=fl.RunState.Value(f"RUN_STATE_{state}"), stock=stock, **more)


def full() -> fl.Run:
    return run(
        "PARTIAL",
        dataset="breast-cancer",
        rounds=3,
        minimum_sites=1,
        aggregator=CAROL,
        app_name="lab/app 1.0.0",
        app_digest="a" * 64,
        sites=[ALICE, BOB],
        site_runs=[
            fl.SiteRun(site=ALICE, state=fl.SITE_STATE_APPROVED, connected=True),
            fl.SiteRun(site=BOB, state=fl.SITE_STATE_WITHDRAWN, reason="LEFT_BY_OWNER"),
        ],
        round_reports=[
            fl.RoundReport(
                round=1,
                phase="train",
                replies=[
                    fl.SiteReply(site=ALICE, ok=True, received_bytes=512),
                    fl.SiteReply(site=BOB, reason="NODE_UNAVAILABLE"),
                ],
                started_unix_ms=1,
                ended_unix_ms=2,
            )
        ],
        reason="SITES_LOST",
        message="bob left",
        artifacts=[fl.Artifact(name="model.npz", path=f"{CAROL}/x", sha256="b" * 64, size_bytes=9)],
        deadline_unix_ms=5,
    )


@dataclass
class Hub:
    """The hub's service: what it streams is put there by a test; keeps what it was asked."""

    runs: list[fl.Run] = field(default_factory=lambda: [run()])
    streams: list[list[fl.Run | MeshError]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    refusal: MeshError | None = None

    async def GetRun(self, request: pb.GetRunRequest) -> pb.GetRunResponse:
        found = [r for r in self.runs if r.run_id == request.run_id]
        if not found:
            raise NotFound("no", reason="RUN_UNKNOWN")
        return pb.GetRunResponse(run=found[-1])

    async def ListRuns(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        at = int(request.page_token or 0)
        token = str(at + 1) if at + 1 < len(self.runs) else ""
        return pb.ListRunsResponse(runs=self.runs[at : at + 1], next_page_token=token)

    async def CancelRun(self, request: pb.CancelRunRequest) -> pb.CancelRunResponse:
        self.asked.append(request)
        if self.refusal is not None:
            raise self.refusal
        return pb.CancelRunResponse(run=run("CANCELLED", reason="CANCELLED"))

    async def WatchRun(self, request: pb.WatchRunRequest) -> AsyncIterator[pb.WatchRunResponse]:
        self.asked.append(request)
        if not self.streams:
            await asyncio.Event().wait()
        for item in self.streams.pop(0):
            if isinstance(item, MeshError):
                raise item
            yield pb.WatchRunResponse(run=item)


@dataclass
class Aggregator:
    """Keeps what it was asked; `steps` are what `aggregate` tells, the last one is what it returns."""

    steps: list[fl.Run] = field(default_factory=lambda: [run("RUNNING"), run("SUCCEEDED")])
    asked: list[Any] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    halt: asyncio.Event | None = None

    async def create(self, plan: Any) -> fl.Run:
        self.asked.append(("create", plan))
        return run("AWAITING_APPROVAL", sites=plan.sites)

    async def close(self) -> None:
        self.asked.append(("close",))

    async def adopt(self, run_id: str) -> fl.Run:
        self.asked.append(("adopt", run_id))
        return run("AWAITING_APPROVAL", run_id)

    async def aggregate(self, run_id: str, on_change: Callable[[fl.Run], None] | None = None) -> fl.Run:
        self.asked.append(("aggregate", run_id))
        if run_id in self.errors:
            raise self.errors[run_id]
        try:
            for step in self.steps:
                if on_change is not None:
                    on_change(step)
                    on_change(step)
            if self.halt is not None:
                await self.halt.wait()
        except asyncio.CancelledError:
            self.asked.append(("cancelled", run_id))
            raise
        return self.steps[-1]

    async def results(self, run_id: str, target: Path) -> list[Path]:
        self.asked.append(("results", run_id))
        return [target / "model.npz"]


@dataclass(frozen=True)
class Plan:
    app: Path
    sites: tuple[str, ...]
    dataset: str
    rounds: int | None
    minimum_sites: int | None
    config: Any
    purpose: str
    deadline_s: float | None


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_PAUSE_S", 0)
    monkeypatch.setattr(run_desk, "_PAUSE_S", 0)
    monkeypatch.setitem(sys.modules, "syftmesh_flower.aggregate", SimpleNamespace(RunPlan=Plan))


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def aggregator() -> Aggregator:
    return Aggregator()


@pytest.fixture
def desk(hub: Hub, aggregator: Aggregator, tmp_path: Path) -> AsyncFederated:
    node: Any = SimpleNamespace(session=SimpleNamespace(federated=hub), principal=CAROL)
    made: list[Any] = []

    def make(*parts: Any) -> Any:
        assert not made, "one aggregator serves all"
        made.append(parts)
        assert parts == (node, tmp_path / "aggregator", SERVER)
        return aggregator

    return AsyncFederated(node, tmp_path, SERVER, make)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("")
    return folder


def test_snapshot_says_all_that_the_hub_says() -> None:
    found = run_snapshot(full())
    assert (found.id, found.state, found.final) == (RUN, RunState.PARTIAL, True)
    assert [(s.site, s.state, s.reason, s.connected) for s in found.sites] == [
        (ALICE, SiteState.APPROVED, "", True),
        (BOB, SiteState.WITHDRAWN, "LEFT_BY_OWNER", False),
    ]
    (report,) = found.rounds
    assert (report.round, report.phase, report.started_ms, report.ended_ms) == (1, "train", 1, 2)
    assert [(r.site, r.ok, r.reason, r.received_bytes) for r in report.replies] == [
        (ALICE, True, "", 512),
        (BOB, False, "NODE_UNAVAILABLE", 0),
    ]
    assert (found.reason, found.message, found.dataset) == ("SITES_LOST", "bob left", "breast-cancer")
    assert (found.artifacts[0].name, found.artifacts[0].size_bytes, found.deadline_ms) == ("model.npz", 9, 5)


@pytest.mark.parametrize("name", [n for n in fl.RunState.keys() if not n.endswith("UNSPECIFIED")])  # noqa: SIM118
def test_every_state_of_the_protocol_has_a_name(name: str) -> None:
    state = run_snapshot(fl.Run(state=fl.RunState.Value(name))).state
    assert name == f"RUN_STATE_{state.name}"


@pytest.mark.parametrize(
    "message",
    [fl.Run(), fl.Run(state=99), run(site_runs=[fl.SiteRun(site=ALICE)])],  # type: ignore[arg-type]
)
def test_unknown_state_is_refused(message: fl.Run) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        run_snapshot(message)
    assert caught.value.reason == "STATUS_INVALID"


async def test_run_creates_what_was_asked_for(
    desk: AsyncFederated, aggregator: Aggregator, app: Path
) -> None:
    made = await desk.run(
        app,
        [ALICE.upper(), BOB],
        "breast-cancer",
        rounds=5,
        minimum_sites=1,
        config={"rate": 0.5, "deep": True, "name": "x"},
        purpose="a classifier",
        deadline_s=7200,
    )
    config = {"rate": 0.5, "deep": True, "name": "x"}
    plan = Plan(app, (ALICE, BOB), "breast-cancer", 5, 1, config, "a classifier", 7200)
    assert aggregator.asked == [("create", plan)]
    assert (made.id, made.state, made.final) == (RUN, RunState.AWAITING_APPROVAL, False)


async def test_run_leaves_to_app_and_hub_what_is_not_said(
    desk: AsyncFederated, aggregator: Aggregator, app: Path
) -> None:
    await desk.run(str(app), ALICE, "d")
    assert aggregator.asked == [("create", Plan(app, (ALICE,), "d", None, None, {}, "", None))]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sites": []}, "sites"),
        ({"sites": [ALICE, ALICE.upper()]}, "sites"),
        ({"dataset": " "}, "dataset"),
        ({"dataset": f"{ALICE}/d"}, "dataset"),
        ({"rounds": 0}, "rounds"),
        ({"minimum_sites": 0}, "minimum_sites"),
        ({"minimum_sites": 3}, "minimum_sites"),
        ({"deadline_s": 0}, "deadline"),
        ({"deadline_s": float("nan")}, "deadline"),
        ({"config": {"rates": [1, 2]}}, "config"),
    ],
)
async def test_run_that_can_never_be_is_refused_before_anything_is_sent(
    desk: AsyncFederated, aggregator: Aggregator, app: Path, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await desk.run(**{"app": app, "sites": [ALICE, BOB], "dataset": "d", **change})
    assert (caught.value.reason, caught.value.metadata["field"]) == ("RUN_INVALID", field)
    assert aggregator.asked == []


async def test_run_of_no_app_is_refused(desk: AsyncFederated, aggregator: Aggregator, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        await desk.run(tmp_path / "nothing", [ALICE], "d")
    assert caught.value.reason == "LOCAL_FILE_MISSING"
    assert aggregator.asked == []


async def test_run_over_no_principal_is_refused(desk: AsyncFederated, app: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        await desk.run(app, ["nobody"], "d")
    assert caught.value.reason == "PRINCIPAL_INVALID"


async def test_ls_gives_all_pages(desk: AsyncFederated, hub: Hub) -> None:
    hub.runs = [run("RUNNING"), run("FAILED", OTHER), run("PENDING", "5")]
    assert [(r.id, r.state) for r in await desk.ls()] == [
        (RUN, RunState.RUNNING),
        (OTHER, RunState.FAILED),
        ("5", RunState.PENDING),
    ]


async def test_get_of_an_unknown_run_is_refused(desk: AsyncFederated) -> None:
    assert (await desk.get(RUN)).state is RunState.PENDING
    with pytest.raises(NotFound) as caught:
        await desk.get(OTHER)
    assert caught.value.reason == "RUN_UNKNOWN"


async def test_refresh_looks_again(desk: AsyncFederated, hub: Hub) -> None:
    found = await desk.get(RUN)
    hub.runs = [full()]
    assert (await found.refresh()).reason == "SITES_LOST"
    assert (found.state, len(found.sites), len(found.rounds), found.message) == (
        RunState.PARTIAL,
        2,
        1,
        "bob left",
    )


async def test_aggregate_tells_each_change_once_and_returns_the_final_run(desk: AsyncFederated) -> None:
    told: list[RunSnapshot] = []
    found = await (await desk.get(RUN)).aggregate(told.append)
    assert [snapshot.state for snapshot in told] == [RunState.RUNNING, RunState.SUCCEEDED]
    assert (found.state, found.final) == (RunState.SUCCEEDED, True)


async def test_aggregate_without_a_listener_returns_the_final_run(desk: AsyncFederated) -> None:
    assert (await (await desk.get(RUN)).aggregate()).state is RunState.SUCCEEDED


async def test_aggregate_of_a_taken_run_is_refused(desk: AsyncFederated, aggregator: Aggregator) -> None:
    aggregator.errors[RUN] = WrongState("taken", reason="TASK_TAKEN")
    with pytest.raises(WrongState):
        await (await desk.get(RUN)).aggregate(lambda _: None)


async def test_aggregate_of_the_run_of_somebody_else_is_refused(
    desk: AsyncFederated, hub: Hub, aggregator: Aggregator
) -> None:
    hub.runs = [run("RUNNING", aggregator=ALICE)]
    with pytest.raises(PermissionDenied, match=ALICE) as refusal:
        await (await desk.get(RUN)).aggregate()
    assert refusal.value.reason == "NOT_THE_AGGREGATOR"
    assert aggregator.asked == []


async def test_closing_the_desk_closes_the_aggregator_that_was_made(
    desk: AsyncFederated, aggregator: Aggregator, app: Path
) -> None:
    await desk.close()
    assert aggregator.asked == []
    await desk.run(app, [ALICE], "d")
    await desk.close()
    assert aggregator.asked[-1] == ("close",)


async def test_aggregate_that_is_cancelled_ends_the_server_app(
    desk: AsyncFederated, aggregator: Aggregator
) -> None:
    aggregator.halt = asyncio.Event()
    task = asyncio.create_task((await desk.get(RUN)).aggregate())
    while ("aggregate", RUN) not in aggregator.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert aggregator.asked[-1] == ("cancelled", RUN)


async def test_watch_gives_changes_until_the_end_over_streams_that_break(
    desk: AsyncFederated, hub: Hub
) -> None:
    running, done = run("RUNNING"), run("SUCCEEDED")
    hub.streams = [[run(), running, Unavailable("away")], [running], [running, done, run("FAILED")]]
    found = await desk.get(RUN)
    states = [snapshot.state async for snapshot in found.watch()]
    assert states == [RunState.PENDING, RunState.RUNNING, RunState.SUCCEEDED]
    assert found.state is RunState.SUCCEEDED
    assert [request.run_id for request in hub.asked] == [RUN] * 3


async def test_watch_of_an_unknown_run_ends_with_the_error(desk: AsyncFederated, hub: Hub) -> None:
    hub.streams = [[NotFound("no", reason="RUN_UNKNOWN")]]
    with pytest.raises(NotFound):
        await (await desk.get(RUN)).wait()


async def test_wait_returns_the_final_run(desk: AsyncFederated, hub: Hub) -> None:
    hub.streams = [[run("HELD"), full()]]
    assert (await (await desk.get(RUN)).wait(10)).state is RunState.PARTIAL


async def test_wait_that_takes_too_long_says_where_the_run_is(desk: AsyncFederated) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await (await desk.get(RUN)).wait(0.01)
    assert caught.value.reason == "RUN_NOT_FINAL"
    assert caught.value.metadata == {"run_id": RUN, "state": "pending"}


async def test_cancel_gives_the_reason_to_the_sites(desk: AsyncFederated, hub: Hub) -> None:
    found = await (await desk.get(RUN)).cancel("wrong data")
    assert hub.asked == [pb.CancelRunRequest(run_id=RUN, reason="wrong data")]
    assert found.state is RunState.CANCELLED


async def test_cancel_of_a_run_that_is_over_is_refused(desk: AsyncFederated, hub: Hub) -> None:
    hub.refusal = WrongState("over")
    found = await desk.get(RUN)
    with pytest.raises(WrongState):
        await found.cancel()
    assert found.state is RunState.PENDING


async def test_results_are_those_of_the_aggregator(
    desk: AsyncFederated, aggregator: Aggregator, tmp_path: Path
) -> None:
    files = await (await desk.get(RUN)).results(str(tmp_path / "out"))
    assert files == [tmp_path / "out" / "model.npz"]
    assert aggregator.asked == [("results", RUN)]


async def test_notebook_shows_the_words_of_strangers_as_text(desk: AsyncFederated, hub: Hub) -> None:
    hub.runs = [
        run("FAILED", message="<script>", site_runs=[fl.SiteRun(site="<b>", state=fl.SITE_STATE_ASKED)])
    ]
    shown = (await desk.get(RUN))._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;" in shown


async def served(desk: AsyncFederated, aggregator: Aggregator, expected: int) -> list[RunSnapshot]:
    """Serve until the aggregator was asked `expected` times, and return what was told."""
    stop, told = asyncio.Event(), []
    task = asyncio.create_task(desk.serve(stop, told.append))
    for _ in range(1000):
        if len(aggregator.asked) >= expected or task.done():
            break
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 5)
    return told


async def test_serve_adopts_and_aggregates_new_runs_of_stock_clients_only(
    desk: AsyncFederated, hub: Hub, aggregator: Aggregator
) -> None:
    mine, other = run(), run("PENDING", OTHER, stock=True)
    hub.streams = [[mine, other, other, run("SUCCEEDED", "5", stock=True)]]
    told = await served(desk, aggregator, 2)
    assert aggregator.asked == [("adopt", OTHER), ("aggregate", OTHER)]
    assert [snapshot.id for snapshot in told] == [OTHER, OTHER, "5"]
    assert hub.asked[0].run_id == ""


@pytest.mark.parametrize("state", ["AWAITING_APPROVAL", "HELD"])
async def test_serve_goes_on_with_a_run_that_an_earlier_one_has_adopted(
    desk: AsyncFederated, hub: Hub, aggregator: Aggregator, state: str
) -> None:
    hub.streams = [[run(state, OTHER, stock=True)]]
    await served(desk, aggregator, 1)
    assert aggregator.asked == [("aggregate", OTHER)]


@pytest.mark.parametrize("error", [WrongState("taken", reason="TASK_TAKEN"), RuntimeError("defect")])
async def test_serve_goes_on_after_a_run_that_cannot_be_aggregated(
    desk: AsyncFederated, hub: Hub, aggregator: Aggregator, error: Exception
) -> None:
    aggregator.errors[OTHER] = error
    hub.streams = [
        [run("PENDING", OTHER, stock=True), Unavailable("away")],
        [run("PENDING", "5", stock=True)],
    ]
    await served(desk, aggregator, 4)
    assert set(aggregator.asked) == {
        (what, run_id) for what in ("adopt", "aggregate") for run_id in (OTHER, "5")
    }


async def test_serve_that_is_stopped_ends_what_it_runs(
    desk: AsyncFederated, hub: Hub, aggregator: Aggregator
) -> None:
    aggregator.halt = asyncio.Event()
    hub.streams = [[run("PENDING", OTHER, stock=True)]]
    await served(desk, aggregator, 2)
    assert aggregator.asked[-1] == ("cancelled", OTHER)


async def test_serve_says_when_the_hub_refuses(desk: AsyncFederated, hub: Hub) -> None:
    hub.streams = [[Unauthenticated("no", reason="NOT_LOGGED_IN")]]
    with pytest.raises(Unauthenticated):
        await desk.serve(asyncio.Event())


def test_a_run_names_itself() -> None:
    shown = repr(AsyncRun(SimpleNamespace(), lambda: Aggregator(), run_snapshot(full())))  # type: ignore[arg-type]
    assert shown == f"<Run {RUN} over 2 sites: partial>"
