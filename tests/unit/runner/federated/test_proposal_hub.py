"""The hub is told until it is told, and what is over there is over here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from mesh.federated.v1 import federated_pb2, federated_service_pb2
from syftmesh_core.errors import Internal, InvalidInput, NotFound, Unavailable, WrongState
from syftmesh_core.federated import ProposalEvent
from syftmesh_runner.adapters.federation import FederationRuns, NoFederation
from syftmesh_runner.domain.federated_port import HubRun, SitePart

CAROL = "carol@lab.example"
RUN = "17446744073709551615"


async def test_the_hub_is_told_in_order_and_once(fl: Any) -> None:
    await fl.approved()
    assert await fl.parts.reporter.send_owed()
    assert fl.world.runs.reports == [(RUN, "awaiting_approval", ""), (RUN, "approved", "")]
    assert await fl.parts.reporter.send_owed()
    assert len(fl.world.runs.reports) == 2
    assert fl.kinds()[-2:] == ["federated.reported", "federated.reported"]


@pytest.mark.parametrize("error", [Unavailable("away"), Internal("broken")])
async def test_a_hub_that_is_away_is_told_later_also_after_a_restart(fl: Any, error: Exception) -> None:
    await fl.propose()
    fl.world.runs.refusal = error
    assert not await fl.parts.reporter.send_owed()
    await fl.deny()
    fl.world.restart()
    assert not await fl.parts.reporter.send_owed()
    fl.world.runs.refusal = None
    assert await fl.parts.reporter.send_owed()
    assert fl.world.runs.reports == [(RUN, "awaiting_approval", ""), (RUN, "denied", "DENIED_BY_OWNER")]


@pytest.mark.parametrize(
    "error", [NotFound("x", reason="RUN_UNKNOWN"), WrongState("x"), InvalidInput("x", reason="RUN_INVALID")]
)
async def test_the_hubs_last_word_ends_the_retry_and_is_audited(fl: Any, error: Any) -> None:
    await fl.propose()
    fl.world.runs.refusal = error
    assert await fl.parts.reporter.send_owed()
    assert not fl.proposals.owed()
    entry = list(fl.world.audit._store.entries())[-1]
    assert (entry.kind, entry.fields["reason"]) == ("federated.report_refused", error.reason)
    assert fl.state() == "awaiting_approval"


async def test_the_reporter_serves_what_comes(fl: Any) -> None:
    serving = asyncio.create_task(fl.parts.reporter.serve())
    try:
        await fl.propose()
        async with asyncio.timeout(5):
            while not fl.world.runs.reports:
                await asyncio.sleep(0)
    finally:
        serving.cancel()
    assert fl.world.runs.reports == [(RUN, "awaiting_approval", "")]


@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize(
    ("event", "state"), [(ProposalEvent.FINISH, "finished"), (ProposalEvent.CANCEL, "cancelled")]
)
async def test_what_is_over_at_the_hub_is_over_here(
    fl: Any,
    approved: bool,  # noqa: FBT001
    event: ProposalEvent,
    state: str,
) -> None:
    left: list[str] = []
    fl.runs.on_change(left.append)
    await (fl.approved() if approved else fl.propose())
    assert await fl.parts.follower.look()
    fl.world.runs.runs[RUN] = HubRun(CAROL, "over", event, "TOO_FEW_SITES")
    assert not await fl.parts.follower.look()
    proposal = await fl.get()
    assert (fl.state(), proposal.reason) == (state, "TOO_FEW_SITES")
    assert "over" in proposal.message
    assert left == ([RUN] if approved else [])
    assert not fl.proposals.owed(), "the hub is not told what it said"
    assert fl.proposals.run_key(RUN) == b""
    entry = list(fl.world.audit._store.entries())[-1]
    assert (entry.kind, entry.actor) == (f"federated.{state}", "hub")


async def test_a_run_that_the_hub_has_forgotten_is_cancelled(fl: Any) -> None:
    await fl.approved()
    fl.world.runs.runs.clear()
    assert not await fl.parts.follower.look()
    assert (fl.state(), (await fl.get()).reason) == ("cancelled", "RUN_UNKNOWN")


async def test_a_silent_hub_ends_nothing(fl: Any) -> None:
    await fl.approved()
    fl.world.runs.away = True
    assert await fl.parts.follower.look()
    assert fl.state() == "approved"


async def test_an_owner_who_leaves_while_the_hub_is_asked_has_left(fl: Any) -> None:
    await fl.approved()
    runs = fl.world.runs

    async def slow(run_id: str) -> HubRun:
        await fl.withdraw()
        return HubRun(CAROL, "succeeded", ProposalEvent.FINISH)

    runs.get = slow
    assert not await fl.parts.follower.look()
    assert fl.state() == "withdrawn"
    assert "federated.attempt_refused" not in fl.kinds()


async def test_the_follower_wakes_with_a_proposal_and_sees_its_end(fl: Any) -> None:
    await fl.prepare()
    serving = asyncio.create_task(fl.parts.follower.serve())
    try:
        await asyncio.sleep(0)
        message = fl.message()
        await fl.call("propose", message)
        fl.world.runs.runs[RUN] = HubRun(CAROL, "cancelled", ProposalEvent.CANCEL)
        fl.parts.follower.wake()
        async with asyncio.timeout(5):
            while fl.state() != "cancelled":
                await asyncio.sleep(0)
    finally:
        serving.cancel()


@dataclass
class Stub:
    run: federated_pb2.Run = field(default_factory=federated_pb2.Run)
    asked: list[Any] = field(default_factory=list)

    async def GetRun(self, request: Any, *, timeout: float) -> Any:  # noqa: N802, ASYNC109
        self.asked.append(request)
        return federated_service_pb2.GetRunResponse(run=self.run)

    async def GetRunBundle(self, request: Any, *, timeout: float) -> Any:  # noqa: N802, ASYNC109
        self.asked.append(request)
        return federated_service_pb2.GetRunBundleResponse(bundle=b"zip")

    async def ReportSite(self, request: Any, *, timeout: float) -> Any:  # noqa: N802, ASYNC109
        self.asked.append(request)
        return federated_service_pb2.ReportSiteResponse()


@pytest.mark.parametrize("name", federated_pb2.RunState.keys())
async def test_every_state_of_a_run_is_read(name: str) -> None:
    state = federated_pb2.RunState.Value(name)
    stub = Stub(federated_pb2.Run(aggregator=CAROL, state=state, reason="TOO_FEW_SITES"))
    run = await FederationRuns(stub).get(RUN)
    end = {
        "RUN_STATE_SUCCEEDED": ProposalEvent.FINISH,
        "RUN_STATE_PARTIAL": ProposalEvent.FINISH,
        "RUN_STATE_FAILED": ProposalEvent.FINISH,
        "RUN_STATE_CANCELLED": ProposalEvent.CANCEL,
    }.get(name)
    assert run == HubRun(CAROL, name.removeprefix("RUN_STATE_").lower(), end, "TOO_FEW_SITES")


async def test_what_the_hub_says_is_taken_for_no_more_than_it_is() -> None:
    stub = Stub(federated_pb2.Run(aggregator=CAROL, state=99, reason="<b>look</b>"))  # type: ignore[arg-type]
    assert await FederationRuns(stub).get(RUN) == HubRun(CAROL, "unknown", None, "")


@pytest.mark.parametrize("part", list(SitePart))
async def test_every_part_has_its_word_at_the_hub(part: SitePart) -> None:
    stub = Stub()
    await FederationRuns(stub).report(RUN, part, "DENIED_BY_OWNER")
    (asked,) = stub.asked
    assert (asked.run_id, asked.reason) == (RUN, "DENIED_BY_OWNER")
    assert federated_pb2.SiteState.Name(asked.state) == f"SITE_STATE_{part.name}"
    assert await FederationRuns(stub).bundle(RUN) == b"zip"


async def test_a_runner_without_a_hub_says_so() -> None:
    hub = NoFederation()
    for question in (hub.get(RUN), hub.bundle(RUN), hub.report(RUN, SitePart.DENIED, "")):
        with pytest.raises(Unavailable) as caught:
            await question
        assert caught.value.reason == "HUB_AWAY"
