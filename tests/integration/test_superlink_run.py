"""One federated run over the real SuperLink: created, approved, trained, and told honestly."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_core.errors import InvalidInput, MeshError, NotFound, PermissionDenied, WrongState
from syftmesh_kit.native import NatsAddress

sys.path.insert(0, str(Path(__file__).parent))
from superlink_world import (
    ANNA,
    BOB,
    CARL,
    EVE,
    Aggregator,
    Hub,
    Node,
    acquire,
    approved_run,
    create,
    hub,
    nats_server,
    report,
    tiny_fab,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsAddress]:
    """A bus of one's own: it outlives the service."""
    async with nats_server(tmp_path) as address:
        yield address


@pytest.fixture
async def found(nats: NatsAddress, tmp_path: Path) -> AsyncIterator[Hub]:
    """The service."""
    async with hub(nats, tmp_path / "state") as running:
        yield running


async def refused(call: Any, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


async def get(stub: Any, run_id: str) -> pb.Run:
    return (await stub.GetRun(rpc.GetRunRequest(run_id=run_id))).run


async def until(stub: Any, run_id: str, *states: int, timeout_s: float = 30.0) -> pb.Run:
    async with asyncio.timeout(timeout_s):
        while (run := await get(stub, run_id)).state not in states:
            await asyncio.sleep(0.1)
    return run


def train_report(*sites: str, ok: bool = True) -> pb.RoundReport:
    replies = [pb.SiteReply(site=site, ok=ok, received_bytes=10) for site in sites]
    return pb.RoundReport(round=1, phase="train", replies=replies, started_unix_ms=1, ended_unix_ms=2)


async def test_two_sites_train_over_the_front_and_the_run_succeeds(
    found: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = await approved_run(found, BOB, CARL)
    nodes = [Node(found, BOB), Node(found, CARL)]
    ids = [await asyncio.to_thread(node.register) for node in nodes]
    task = await acquire(found, run_id)
    aggregator = Aggregator(found, run_id, task)
    await asyncio.to_thread(aggregator.begin)
    assert {node.node_id for node in await asyncio.to_thread(aggregator.grid.get_nodes)} == set(ids)
    pulling = [asyncio.create_task(asyncio.to_thread(node.pull)) for node in nodes]
    await asyncio.sleep(1.0)
    begun = time.monotonic()
    messages = await asyncio.to_thread(aggregator.push, *ids)
    pulled = await asyncio.gather(*pulling)
    assert time.monotonic() - begun < 2.0, "a SuperNode that waits gets its message at once"
    answering = asyncio.create_task(asyncio.to_thread(aggregator.pull, messages))
    await asyncio.sleep(0.5)
    begun = time.monotonic()
    await asyncio.to_thread(nodes[0].reply, pulled[0][0])
    first = await answering
    assert time.monotonic() - begun < 1.5, "the aggregator that waits gets its reply at once"
    await asyncio.to_thread(nodes[1].reply, pulled[1][0])
    rest = await asyncio.to_thread(
        aggregator.pull, list(set(messages) - {first[0].metadata.reply_to_message_id})
    )
    assert all(message.has_content() for message in [*first, *rest])
    async with found.stub(ANNA) as anna:
        run = await get(anna, run_id)
        assert run.state == pb.RUN_STATE_RUNNING
        assert [site.connected for site in run.site_runs] == [True, True]
        await anna.ReportRound(rpc.ReportRoundRequest(run_id=run_id, report=train_report(BOB, CARL)))
        await asyncio.to_thread(aggregator.finish)
        outcome = rpc.RunOutcome(ok=True)
        run = (await anna.ReportRound(rpc.ReportRoundRequest(run_id=run_id, outcome=outcome))).run
    assert (run.state, run.reason) == (pb.RUN_STATE_SUCCEEDED, "")
    for node in nodes:  # a moment of grace is left to say goodbye
        await asyncio.to_thread(node.unregister)
    logs = (tmp_path / "state" / "flower.log").read_text() + "".join(capfd.readouterr())
    assert "rpc.handled" in logs
    assert task not in logs
    assert "eyJ" not in logs, "an access token begins so"
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_a_run_goes_on_when_flower_is_killed_in_the_middle(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    node = Node(found, BOB)
    node_id = await asyncio.to_thread(node.register)
    aggregator = Aggregator(found, run_id, await acquire(found, run_id))
    await asyncio.to_thread(aggregator.begin)
    messages = await asyncio.to_thread(aggregator.push, node_id)
    before = found.module.flower_pid
    os.kill(before, signal.SIGKILL)
    answering = asyncio.create_task(
        asyncio.to_thread(aggregator.pull, messages)
    )  # Flower's client tries again
    async with asyncio.timeout(20):
        while found.module.flower_pid in (0, before):
            await asyncio.sleep(0.1)
    async with asyncio.timeout(30):
        while (pulled := await _pull_or_none(node)) is None:
            await asyncio.sleep(0.2)
        await asyncio.to_thread(node.reply, pulled[0])
        replies = await answering
        while not replies:
            replies = await asyncio.to_thread(aggregator.pull, messages)
    assert replies[0].has_content()


async def _pull_or_none(node: Node) -> Any:
    try:
        return await asyncio.to_thread(node.pull)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != 503:
            raise
        return None


async def test_a_run_goes_on_when_the_service_is_restarted(nats: NatsAddress, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with hub(nats, folder) as first:
        run_id = await approved_run(first, BOB)
        node = Node(first, BOB)
        node_id = await asyncio.to_thread(node.register)
        token = await acquire(first, run_id)
        aggregator = Aggregator(first, run_id, token)
        await asyncio.to_thread(aggregator.begin)
        messages = await asyncio.to_thread(aggregator.push, node_id)
        kept = first.clients[:]
        first.clients.clear()
    async with hub(nats, folder) as second:
        second.clients.extend(kept)
        node.client._base_url = f"http://{second.http}"
        again = Aggregator(second, run_id, token)
        async with second.stub(ANNA) as anna:
            assert (await get(anna, run_id)).state in (pb.RUN_STATE_RUNNING, pb.RUN_STATE_HELD)
        async with asyncio.timeout(30):
            while (pulled := await _pull_or_none(node)) is None:
                await asyncio.sleep(0.2)
        await asyncio.to_thread(node.reply, pulled[0])
        replies = await asyncio.to_thread(again.pull, messages)
        assert replies[0].has_content()


async def test_who_registers_anew_fails_what_was_sent_to_the_process_before(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    old = Node(found, BOB)
    node_id = await asyncio.to_thread(old.register)
    aggregator = Aggregator(found, run_id, await acquire(found, run_id))
    await asyncio.to_thread(aggregator.begin)
    messages = await asyncio.to_thread(aggregator.push, node_id)
    answering = asyncio.create_task(asyncio.to_thread(aggregator.pull, messages))
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    new = Node(found, BOB)
    fresh = await asyncio.to_thread(new.register)
    replies = await answering
    assert replies[0].has_error()
    assert time.monotonic() - begun < 5.0
    assert {n.node_id for n in await asyncio.to_thread(aggregator.grid.get_nodes)} == {fresh}


async def test_a_withdrawn_site_is_out_at_once(found: Hub) -> None:
    run_id = await approved_run(found, BOB, CARL, minimum=1)
    nodes = [Node(found, BOB), Node(found, CARL)]
    ids = [await asyncio.to_thread(node.register) for node in nodes]
    aggregator = Aggregator(found, run_id, await acquire(found, run_id))
    await asyncio.to_thread(aggregator.begin)
    messages = await asyncio.to_thread(aggregator.push, ids[0])
    answering = asyncio.create_task(asyncio.to_thread(aggregator.pull, messages))
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    async with found.stub(BOB) as bob:
        await report(bob, run_id, pb.SITE_STATE_WITHDRAWN, "OWNER_LEFT")
    replies = await answering
    assert replies[0].has_error()
    assert time.monotonic() - begun < 2.0
    assert {n.node_id for n in await asyncio.to_thread(aggregator.grid.get_nodes)} == {ids[1]}
    async with found.stub(ANNA) as anna:
        await anna.ReportRound(rpc.ReportRoundRequest(run_id=run_id, report=train_report(CARL)))
        run = (
            await anna.ReportRound(rpc.ReportRoundRequest(run_id=run_id, outcome=rpc.RunOutcome(ok=True)))
        ).run
    assert (run.state, run.reason) == (pb.RUN_STATE_PARTIAL, "SITES_DROPPED_OUT")
    assert BOB in run.message
    assert "OWNER_LEFT" in run.message


async def test_cancelling_ends_the_task_at_flower_and_the_sites_membership(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    node = Node(found, BOB)
    node_id = await asyncio.to_thread(node.register)
    aggregator = Aggregator(found, run_id, await acquire(found, run_id))
    await asyncio.to_thread(aggregator.begin)
    await asyncio.to_thread(aggregator.push, node_id)
    pulled = await asyncio.to_thread(node.pull)
    async with found.stub(ANNA) as anna, found.stub(BOB) as bob:
        assert await refused(bob.CancelRun(rpc.CancelRunRequest(run_id=run_id)), PermissionDenied) == (
            "NOT_THE_AGGREGATOR"
        )
        run = (await anna.CancelRun(rpc.CancelRunRequest(run_id=run_id, reason="enough"))).run
        assert (run.state, run.reason) == (pb.RUN_STATE_CANCELLED, "CANCELLED")
        assert "enough" in run.message
        assert await refused(anna.CancelRun(rpc.CancelRunRequest(run_id=run_id)), WrongState) == "WRONG_STATE"
    answer = await found.post("/v1/runtime/get-nodes", None, ANNA, flwr_task_token="x" * 16)
    assert answer.status_code == 403
    with pytest.raises(httpx.HTTPStatusError) as late:  # the run is over at Flower: nothing is taken any more
        await asyncio.to_thread(node.reply, pulled[0])
    assert late.value.response.status_code == 403


async def test_a_task_that_ends_without_a_word_fails_the_run(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    aggregator = Aggregator(found, run_id, await acquire(found, run_id))
    await asyncio.to_thread(aggregator.begin)
    await asyncio.to_thread(aggregator.finish, "failed")
    async with found.stub(ANNA) as anna:
        run = await until(anna, run_id, pb.RUN_STATE_FAILED)
        assert run.reason == "SERVER_APP_FAILED"


async def test_a_task_is_given_to_the_aggregator_once(found: Hub) -> None:
    async with found.stub(ANNA) as anna, found.stub(BOB) as bob, found.stub(EVE) as eve:
        run_id = (await create(anna, BOB)).run_id
        request = rpc.AcquireServerTaskRequest(run_id=run_id)
        assert await refused(anna.AcquireServerTask(request), WrongState) == "APPROVAL_MISSING"
        await report(bob, run_id, pb.SITE_STATE_APPROVED)
        assert await refused(bob.AcquireServerTask(request), PermissionDenied) == "NOT_THE_AGGREGATOR"
        assert await refused(eve.AcquireServerTask(request), NotFound) == "RUN_UNKNOWN"
        assert (await anna.AcquireServerTask(request)).task_token
        assert await refused(anna.AcquireServerTask(request), WrongState) == "TASK_TAKEN"


async def test_runs_are_seen_by_those_who_have_a_part(found: Hub) -> None:
    async with found.stub(ANNA) as anna, found.stub(BOB) as bob, found.stub(EVE) as eve:
        fab = tiny_fab()
        first = (await create(anna, BOB, fab=fab)).run_id
        second = (await create(anna, CARL, fab=fab)).run_id
        page = await anna.ListRuns(rpc.ListRunsRequest(page_size=1))
        assert [run.run_id for run in page.runs] == [second]
        page = await anna.ListRuns(rpc.ListRunsRequest(page_size=1, page_token=page.next_page_token))
        assert ([run.run_id for run in page.runs], page.next_page_token) == ([first], "")
        assert [run.run_id for run in (await bob.ListRuns(rpc.ListRunsRequest())).runs] == [first]
        assert not (await eve.ListRuns(rpc.ListRunsRequest())).runs
        bundle = await bob.GetRunBundle(rpc.GetRunBundleRequest(run_id=first))
        assert bundle.bundle == fab
        for call in (
            eve.GetRun(rpc.GetRunRequest(run_id=first)),
            bob.GetRun(rpc.GetRunRequest(run_id=second)),
            eve.GetRunBundle(rpc.GetRunBundleRequest(run_id=first)),
            eve.GetArtifacts(rpc.GetArtifactsRequest(run_id=first)),
            eve.CancelRun(rpc.CancelRunRequest(run_id=first)),
            eve.ReportRound(rpc.ReportRoundRequest(run_id=first)),
            report(eve, first, pb.SITE_STATE_APPROVED),
            report(anna, first, pb.SITE_STATE_APPROVED),
        ):
            assert await refused(call, NotFound) == "RUN_UNKNOWN"


async def test_watching_gives_each_change_until_the_end(found: Hub) -> None:
    async with found.stub(ANNA) as anna, found.stub(BOB) as bob:
        run_id = (await create(anna, BOB)).run_id
        states: list[int] = []

        async def watch() -> None:
            async for item in bob.WatchRun(rpc.WatchRunRequest(run_id=run_id)):
                states.append(item.run.state)

        watching = asyncio.create_task(watch())
        everything = anna.WatchRun(rpc.WatchRunRequest())
        iterator = aiter(everything)
        assert (await anext(iterator)).run.run_id == run_id
        async with asyncio.timeout(5):
            while not states:
                await asyncio.sleep(0.01)
            await report(bob, run_id, pb.SITE_STATE_DENIED, "OWNER_DENIED")
            await watching
            assert (await anext(iterator)).run.state == pb.RUN_STATE_FAILED
    assert states[0] == pb.RUN_STATE_PENDING
    assert states[-1] == pb.RUN_STATE_FAILED


async def test_what_flower_does_not_take_is_refused(found: Hub) -> None:
    async with found.stub(ANNA) as anna:
        bad = tiny_fab().replace(b"tiny/server.py", b"tiny/served.py")
        assert bad != tiny_fab()
        assert await refused(create(anna, BOB, fab=bad), InvalidInput) == "BUNDLE_INVALID"
        assert await refused(create(anna, BOB, fab=b"no zip"), InvalidInput) == "BUNDLE_INVALID"
        assert await refused(create(anna, BOB, config='{"nope":1}'), InvalidInput) == "RUN_INVALID"
