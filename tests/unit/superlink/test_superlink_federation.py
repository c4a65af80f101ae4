"""The use cases and the keeper, over a store and a Flower in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from syftmesh_core.errors import (
    Conflict,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
    WrongState,
)
from syftmesh_superlink.domain.draft import Draft
from syftmesh_superlink.domain.federation import MAX_OPEN_RUNS
from syftmesh_superlink.domain.ports import FlowerStatus
from syftmesh_superlink.domain.progress import AggregatorReport
from syftmesh_superlink.domain.run import Phase, RoundReport, Run, RunState, SiteReply, SiteState
from syftmesh_superlink.domain.verdict import Outcome

APPROVED = SiteState.APPROVED


async def refused(call: Any, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


async def created(world: Any, make: Any, *sites: str, minimum: int = 0) -> Run:
    run: Run = await world.federation.create(make.ANNA, Draft(sites, "tiny", 2, minimum), make.fab())
    return run


async def test_a_run_is_flowers_and_its_federation_empty_at_first(world: Any, make: Any) -> None:
    draft = Draft((make.BOB,), "tiny", 2, run_config_json='{"rate":1}')
    run = await world.federation.create(make.ANNA, draft, make.fab())
    assert world.flower.started == [(make.ANNA, run.federation, {"rate": 1.0})]
    assert world.members.files[run.federation] == (make.ANNA, ())
    assert await world.federation.bundle(make.BOB, run.run_id) == make.fab()
    assert world.store.runs[run.run_id].run == run


async def test_nothing_is_left_at_flower_when_a_run_cannot_be_kept(world: Any, make: Any) -> None:
    world.store.away = True
    assert await refused(created(world, make, make.BOB), Unavailable) == "BUS_UNREACHABLE"
    assert world.flower.stopped == ["101"]
    assert world.federation.runs_of(make.ANNA) == []


async def test_nothing_is_kept_when_flower_is_away(world: Any, make: Any) -> None:
    world.flower.away = True
    assert await refused(created(world, make, make.BOB), Unavailable) == "SUPERLINK_AWAY"
    assert not world.store.runs


async def test_one_has_so_many_runs_under_way(world: Any, make: Any) -> None:
    runs = [await created(world, make, make.BOB) for _ in range(MAX_OPEN_RUNS)]
    assert await refused(created(world, make, make.BOB), LimitExceeded) == "TOO_MANY_RUNS"
    await world.federation.cancel_run(make.ANNA, runs[0].run_id, "")
    await created(world, make, make.BOB)


async def test_before_the_runs_are_read_nothing_is_said_of_them(make: Any, world: Any) -> None:
    world.build()
    with pytest.raises(Unavailable) as caught:
        world.federation.get(make.ANNA, "7")
    assert caught.value.reason == "STARTING"
    assert await refused(created(world, make, make.BOB), Unavailable) == "STARTING"


async def test_members_are_the_nodes_of_approved_sites(world: Any, make: Any) -> None:
    world.nodes.known = {make.BOB: 11, make.CARL: 22}
    run = await created(world, make, make.BOB, make.CARL, minimum=1)
    await world.federation.report_site(make.BOB, run.run_id, APPROVED, "")
    assert world.members.files[run.federation] == (make.ANNA, (11,))
    await world.federation.report_site(make.CARL, run.run_id, APPROVED, "")
    assert world.members.files[run.federation] == (make.ANNA, (11, 22))
    world.nodes.known[make.BOB] = 33
    assert await world.register.node_changed(make.BOB) == [run.run_id]
    assert world.members.files[run.federation] == (make.ANNA, (22, 33))
    await world.federation.report_site(make.BOB, run.run_id, SiteState.WITHDRAWN, "")
    assert world.members.files[run.federation] == (make.ANNA, (22,))
    await world.federation.cancel_run(make.ANNA, run.run_id, "")
    assert world.members.files[run.federation] == (make.ANNA, ()), "its owner still reads its logs"
    assert await world.register.node_changed(make.CARL) == []


async def test_a_site_is_active_until_a_moment_after_the_end(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB)
    assert world.federation.active_at(make.BOB) == []
    await world.federation.report_site(make.BOB, run.run_id, APPROVED, "")
    assert [found.run_id for found in world.federation.active_at(make.BOB)] == [run.run_id]
    await world.federation.cancel_run(make.ANNA, run.run_id, "")
    world.clock.advance(59)
    assert world.federation.active_at(make.BOB)
    world.clock.advance(2)
    assert world.federation.active_at(make.BOB) == []
    assert world.federation.active_at(make.EVE) == []


async def test_a_task_is_known_by_its_token_also_after_a_restart(world: Any, make: Any) -> None:
    run = await world.running(make.BOB)
    assert world.federation.of_task(make.ANNA, "token-1").run_id == run.run_id
    assert world.federation.of_task(make.BOB, "token-1") is None
    assert world.federation.of_task(make.ANNA, "token-2") is None
    assert world.federation.of_task(make.ANNA, "") is None
    assert "token-1" not in repr(world.store.runs)
    world.build()
    await world.register.load()
    assert world.federation.of_task(make.ANNA, "token-1").run_id == run.run_id
    world.flower.status[run.run_id] = FlowerStatus.PENDING  # nobody used the first one
    await world.federation.acquire(make.ANNA, run.run_id)
    assert world.federation.of_task(make.ANNA, "token-1") is None
    assert world.federation.of_task(make.ANNA, "token-2").run_id == run.run_id


async def test_only_the_aggregator_acquires_reports_and_cancels(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB)
    for principal, kind, reason in (
        (make.BOB, PermissionDenied, "NOT_THE_AGGREGATOR"),
        (make.EVE, NotFound, "RUN_UNKNOWN"),
    ):
        for call in (
            world.federation.acquire(principal, run.run_id),
            world.federation.report(principal, run.run_id, AggregatorReport()),
            world.federation.cancel_run(principal, run.run_id, ""),
        ):
            assert await refused(call, kind) == reason
    assert await refused(world.federation.acquire(make.ANNA, run.run_id), WrongState) == "APPROVAL_MISSING"
    assert (
        await refused(world.federation.cancel_run(make.ANNA, run.run_id, "x" * 501), InvalidInput)
        == "RUN_INVALID"
    )


async def test_a_task_taken_is_not_given_again(world: Any, make: Any) -> None:
    run = await world.running(make.BOB)
    assert await refused(world.federation.acquire(make.ANNA, run.run_id), WrongState) == "TASK_TAKEN"


async def test_a_change_whose_answer_was_lost_is_there_once(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB)
    world.store.lose = 1
    changed = await world.federation.report_site(make.BOB, run.run_id, APPROVED, "")
    assert changed.approved == (make.BOB,)
    assert world.store.runs[run.run_id].revision == 2
    world.store.lose = 3
    told = world.federation.report(
        make.ANNA,
        run.run_id,
        AggregatorReport(round=RoundReport(1, Phase.TRAIN, (SiteReply(make.BOB, True),))),
    )
    await told
    assert len(world.federation.get(make.ANNA, run.run_id).reports) == 1


async def test_who_always_loses_is_told(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB)
    counted = iter(range(100))
    world.store.lose = 100
    change = world.register.change(run.run_id, lambda found: make.replace(found, purpose=str(next(counted))))
    assert await refused(change, Conflict) == "KV_CONFLICT"
    assert await refused(world.register.change("404", lambda found: found), NotFound) == "RUN_UNKNOWN"


async def test_a_cancelled_run_ends_at_flower_also_when_that_was_away(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB)
    world.flower.away = True
    run = await world.federation.cancel_run(make.ANNA, run.run_id, "enough")
    assert (run.state, run.closed) == (RunState.CANCELLED, False)
    assert world.keeper.has_work()
    world.flower.away = False
    await world.look(1)
    assert world.flower.stopped == [run.run_id]
    assert not world.keeper.has_work()


async def test_a_run_is_held_and_goes_on_and_is_lost(world: Any, make: Any) -> None:
    run = await world.running(make.BOB)
    await world.look()
    assert world.federation.get(make.ANNA, run.run_id).state is RunState.RUNNING
    world.clock.advance(21)
    world.presence.site_heard(make.BOB)
    await world.look()
    assert world.federation.get(make.ANNA, run.run_id).reason == "AGGREGATOR_AWAY"
    world.heard(run)
    await world.look()
    assert world.federation.get(make.ANNA, run.run_id).state is RunState.RUNNING
    world.clock.advance(31)
    world.presence.aggregator_heard(run.run_id)
    await world.look()
    assert world.federation.get(make.ANNA, run.run_id).reason == "TOO_FEW_CONNECTED"
    await world.look(91)
    found = world.federation.get(make.ANNA, run.run_id)
    assert (found.state, found.reason, found.closed) == (RunState.FAILED, "AGGREGATOR_LOST", True)
    assert world.flower.stopped == [run.run_id]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (FlowerStatus.FAILED, "SERVER_APP_FAILED"),
        (FlowerStatus.STOPPED, "SERVER_APP_FAILED"),
        (FlowerStatus.LOST, "AGGREGATOR_LOST"),
        (FlowerStatus.COMPLETED, "NO_RESULTS"),
        (None, "RUN_LOST"),
    ],
)
async def test_what_flower_says_ends_a_run_unless_the_aggregator_says_more(
    world: Any, make: Any, status: FlowerStatus | None, reason: str
) -> None:
    silent, spoken = await world.running(make.BOB), await world.running(make.BOB)
    for run in (silent, spoken):
        if status is None:
            del world.flower.status[run.run_id]
        else:
            world.flower.status[run.run_id] = status
    await world.look()
    told = AggregatorReport(outcome=Outcome(False, "APP_ERROR", "boom"))
    await world.federation.report(make.ANNA, spoken.run_id, told)
    world.heard(silent)
    await world.look(11)
    assert world.federation.get(make.ANNA, silent.run_id).reason == reason
    assert world.federation.get(make.ANNA, spoken.run_id).reason == "APP_ERROR"


async def test_a_reported_end_leaves_the_task_time_for_its_own(world: Any, make: Any) -> None:
    run = await world.running(make.BOB)
    report = RoundReport(1, Phase.TRAIN, (SiteReply(make.BOB, True),))
    told = AggregatorReport(round=report, outcome=Outcome(True))
    run = await world.federation.report(make.ANNA, run.run_id, told)
    assert run.state is RunState.SUCCEEDED
    await world.look(5)
    assert world.flower.stopped == []
    await world.look(30)
    assert world.flower.stopped == [run.run_id]


async def test_a_flower_that_is_being_restarted_ends_nothing(world: Any, make: Any) -> None:
    run = await world.running(make.BOB)
    world.flower.away = True
    await world.look(5)
    assert world.federation.get(make.ANNA, run.run_id).state is RunState.RUNNING


async def test_after_a_restart_everybody_has_a_moment_to_be_heard(world: Any, make: Any) -> None:
    run = await world.running(make.BOB)
    world.clock.advance(3600)
    world.presence = type(world.presence)(world.clock)
    world.build()
    await world.register.load()
    assert world.keeper.has_work()
    await world.look()
    found = world.federation.get(make.ANNA, run.run_id)
    assert (found.state, found.reason) == (RunState.HELD, "TOO_FEW_CONNECTED")
    world.presence.site_heard(make.BOB)
    await world.look(1)
    assert world.federation.get(make.ANNA, run.run_id).state is RunState.RUNNING


async def test_a_run_not_decided_ends_with_its_deadline(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB)
    await world.look(7 * 24 * 3600 - 1)
    assert not world.federation.get(make.ANNA, run.run_id).is_final
    await world.look(1)
    assert world.federation.get(make.ANNA, run.run_id).reason == "DEADLINE_EXCEEDED"


async def test_watching_tells_the_newest_and_ends_with_the_run(world: Any, make: Any) -> None:
    run = await created(world, make, make.BOB, make.CARL)
    watching = world.federation.watch(make.BOB, run.run_id)
    assert (await anext(watching)).state is RunState.PENDING
    await world.federation.report_site(make.BOB, run.run_id, SiteState.AWAITING_APPROVAL, "")
    await world.federation.report_site(make.BOB, run.run_id, APPROVED, "")
    assert (await anext(watching)).approved == (make.BOB,), "what came between is told with it"
    await world.federation.cancel_run(make.ANNA, run.run_id, "")
    assert [found.state async for found in watching] == [RunState.CANCELLED]
    with pytest.raises(NotFound):
        await anext(world.federation.watch(make.EVE, run.run_id))


async def test_watching_all_gives_what_one_aggregates_only(world: Any, make: Any) -> None:
    first = await created(world, make, make.BOB)
    watching = world.federation.watch(make.ANNA, "")
    assert (await anext(watching)).run_id == first.run_id
    bobs = world.federation.watch(make.BOB, "")
    waiting = asyncio.ensure_future(anext(bobs))
    second = await created(world, make, make.BOB)
    assert (await anext(watching)).run_id == second.run_id
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await watching.aclose()


async def test_who_is_connected_is_told_though_it_is_not_stored(world: Any, make: Any) -> None:
    run = await world.running(make.BOB, make.CARL, minimum=1)
    await world.look()
    told: list[Run] = []
    world.register.listen(told.append)
    revision = world.store.runs[run.run_id].revision
    await world.look()
    assert told == []
    world.clock.advance(31)
    world.presence.site_heard(make.BOB)
    world.presence.aggregator_heard(run.run_id)
    await world.look()
    assert [found.run_id for found in told] == [run.run_id]
    assert world.store.runs[run.run_id].revision == revision
