"""Rights that end by the clock: told when their moment comes, also to a cursor from before it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from syftmesh_kit.filelog import ChangeKind, FeedReader, changes_since, next_turn
from syftmesh_kit.filelog.position import LogTimes

SITE = "alice@site.example"
BOB = "bob@x.example"
EVE = "eve@evil.example"
RULES = f"{SITE}/for/syft.pub.yaml"
LOST = (ChangeKind.ACCESS_LOST, "x")


def until(ms: int, who: str = BOB) -> bytes:
    moment = datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")
    return f"rules: [{{pattern: 'x', access: {{read: ['{who}']}}, expires: {moment}}}]\n".encode()


async def seen(hub, who: str, since: int, seen_ms: int = 0):
    changes, to = await changes_since(hub.log, FeedReader(who), since, hub.clock.now_ms(), seen_ms)
    return [(c.kind, c.entry.text.rpartition("/")[2]) for c in changes], to.sequence


async def test_a_stream_says_what_is_lost_at_the_moment_and_says_it_once(hub):
    end_ms = hub.clock.ms + 5_000
    await hub.write(RULES, until(end_ms))
    await hub.write(f"{SITE}/for/x", b"1")
    await hub.write(f"{SITE}/y", b"2")
    feed = hub.watch.feed(FeedReader(BOB), 0, 0)
    first = await anext(feed)
    assert [c.entry.text for c in first.changes] == [f"{SITE}/for/x"]
    assert (first.seen_ms, next_turn(hub.log, FeedReader(BOB), first.seen_ms)) == (hub.clock.ms, end_ms)
    hub.clock.ms = end_ms
    batch = await anext(feed)
    assert [(c.kind, c.entry.text) for c in batch.changes] == [(ChangeKind.ACCESS_LOST, f"{SITE}/for/x")]
    assert (batch.position, batch.seen_ms) == (first.position, end_ms)
    hub.watch._heartbeat_s = 0.0
    assert (await anext(feed)).changes == []
    again = await anext(hub.watch.feed(FeedReader(BOB), 1, batch.position.sequence, batch.seen_ms))
    assert again.changes == []


async def test_a_stream_sleeps_until_the_moment(hub):
    await hub.write(RULES, until(hub.clock.ms + 800))
    await hub.write(f"{SITE}/for/x", b"1")
    waits = []
    feed = hub.watch.feed(FeedReader(BOB), 0, 0)
    await anext(feed)

    async def wait_for(sequence: int, timeout_s: float) -> bool:
        waits.append(timeout_s)
        hub.clock.ms += round(timeout_s * 1000)
        return False

    hub.log.wait_for = wait_for
    assert [c.kind for c in (await anext(feed)).changes] == [ChangeKind.ACCESS_LOST]
    assert waits == [0.8]


async def test_many_moments_in_one_second_are_told_twice_a_second(hub):
    begin_ms = hub.clock.ms + 1000
    lines = [
        until(begin_ms + number)
        .decode()
        .removeprefix("rules: [")
        .removesuffix("]\n")
        .replace("'x'", f"x{number}")
        for number in range(600)
    ]
    await hub.write(RULES, "rules:\n{}".format("".join(f"  - {line}\n" for line in lines)).encode())
    for number in (0, 400, 599):
        await hub.write(f"{SITE}/for/x{number}", str(number).encode())
    feed = hub.watch.feed(FeedReader(BOB), 0, 0)
    await anext(feed)
    waits = []

    async def wait_for(sequence: int, timeout_s: float) -> bool:
        waits.append(timeout_s)
        hub.clock.ms += round(timeout_s * 1000)
        return False

    hub.log.wait_for = wait_for
    lost = [{c.entry.text.rpartition("/")[2] for c in (await anext(feed)).changes} for _ in range(2)]
    assert lost == [{"x0"}, {"x400"}]
    assert {c.entry.text.rpartition("/")[2] for c in (await anext(feed)).changes} == {"x599"}
    assert waits == [1.0, 0.5, 0.5]


async def test_a_moment_that_concerns_others_wakes_nobody(hub):
    await hub.write(RULES, until(hub.clock.ms + 1000))
    for reader in (FeedReader(SITE), FeedReader(BOB, (f"{EVE}/a",))):
        assert next_turn(hub.log, reader, hub.clock.ms) is None
    assert next_turn(hub.log, FeedReader(BOB, (f"{SITE}/for",)), hub.clock.ms) == hub.clock.ms + 1000


async def test_a_cursor_from_before_the_moment_is_told_what_was_lost(hub):
    await hub.write(RULES, until(hub.clock.ms + 5_000))
    await hub.write(f"{SITE}/for/x", b"1")
    _, at = await seen(hub, BOB, 0)
    hub.clock.ms += 10_000
    assert await seen(hub, BOB, at) == ([LOST], at)
    assert await seen(hub, BOB, at, hub.clock.ms - 6_000) == ([LOST], at)
    assert await seen(hub, BOB, at, hub.clock.ms - 4_000) == ([], at)
    await hub.write(f"{SITE}/y", b"2")
    assert (await seen(hub, BOB, at))[0] == [LOST]


async def test_a_cursor_is_not_believed_to_be_older_than_its_place(hub):
    await hub.write(f"{SITE}/early", b"1")
    hub.clock.ms += 10_000
    await hub.write(RULES, until(hub.clock.ms - 5_000))
    await hub.write(f"{SITE}/for/x", b"a name that Bob could never learn")
    at = hub.log.position.sequence
    assert await seen(hub, BOB, at, 1) == ([], at)


async def test_a_file_written_behind_the_end_of_the_right_is_not_named(hub):
    await hub.write(RULES, until(hub.clock.ms + 5_000))
    await hub.write(f"{SITE}/other", b"0")
    _, at = await seen(hub, BOB, 0)
    hub.clock.ms += 10_000
    await hub.write(f"{SITE}/for/x", b"1")
    assert (await seen(hub, BOB, at))[0] == []


async def test_a_later_expiry_keeps_the_right(hub):
    rules, _ = await hub.write(RULES, until(hub.clock.ms + 5_000))
    await hub.write(f"{SITE}/for/x", b"1")
    _, at = await seen(hub, BOB, 0)
    await hub.write(RULES, until(hub.clock.ms + 60_000), replaces=rules)
    hub.clock.ms += 10_000
    assert (await seen(hub, BOB, at))[0] == []
    assert next_turn(hub.log, FeedReader(BOB), hub.clock.ms) == hub.clock.ms + 50_000


async def test_deleted_rules_have_no_moments(hub, mesh):
    rules, _ = await hub.write(RULES, until(hub.clock.ms + 5_000))
    assert hub.log.turning_sites() == [hub.log.site(SITE)]
    await hub.commit(SITE, mesh.record(RULES, None, hub.device(SITE), replaces=rules))
    assert hub.log.turning_sites() == []
    assert next_turn(hub.log, FeedReader(BOB), hub.clock.ms) is None


async def test_a_restart_knows_the_moments(hub):
    await hub.write(RULES, until(hub.clock.ms + 5_000))
    await hub.write(f"{SITE}/for/x", b"1")
    _, at = await seen(hub, BOB, 0)
    await hub.restart()
    assert next_turn(hub.log, FeedReader(BOB), hub.clock.ms) == hub.clock.ms + 5_000
    hub.clock.ms += 10_000
    assert (await seen(hub, BOB, at))[0] == [LOST]


async def test_rules_with_dates_turn_at_midnight(hub):
    day = datetime.fromtimestamp(hub.clock.ms / 1000, UTC)
    midnight_ms = (hub.clock.ms // 86_400_000 + 1) * 86_400_000
    tomorrow = datetime.fromtimestamp(midnight_ms / 1000, UTC)
    await hub.write(
        RULES, b"rules: [{pattern: '{{.Year}}-{{.Month}}-{{.Date}}', access: {read: [bob@x.example]}}]\n"
    )
    await hub.write(f"{SITE}/for/{day:%Y-%m-%d}", b"1")
    await hub.write(f"{SITE}/for/{tomorrow:%Y-%m-%d}", b"2")
    found, at = await seen(hub, BOB, 0)
    assert found == [(ChangeKind.UPDATED, f"{day:%Y-%m-%d}")]
    assert next_turn(hub.log, FeedReader(BOB), hub.clock.ms) == midnight_ms
    hub.clock.ms = midnight_ms
    found, _ = await seen(hub, BOB, at)
    assert sorted(found, key=str) == [
        (ChangeKind.ACCESS_LOST, f"{day:%Y-%m-%d}"),
        (ChangeKind.UPDATED, f"{tomorrow:%Y-%m-%d}"),
    ]


async def test_large_losses_come_in_batches_that_can_be_resumed_behind(hub, mesh):
    end_ms = hub.clock.ms + 5_000
    await hub.write(RULES, until(end_ms).replace(b"'x'", b"'**'"))
    for number in range(700):
        data = str(number).encode()
        mesh.put_object(hub.store, SITE, data)
        path = f"{SITE}/for/{number:03}"
        signed = mesh.record(path, mesh.sealed(data), hub.device(SITE))
        record = mesh.sync_pb2.SignedRecord(
            record=signed.record, content=signed.content, signature=signed.signature
        )
        hub.bus._store(mesh.subject.files(SITE, f"{number:032x}"), mesh.sync_pb2.FileEntry(record=record), "")
    await hub.log.wait_for(702, 5)
    feed = hub.watch.feed(FeedReader(BOB), 0, 0)
    first = [await anext(feed), await anext(feed)]
    hub.clock.ms = end_ms
    lost = [await anext(feed), await anext(feed)]
    assert [len(b.changes) for b in (*first, *lost)] == [500, 201, 500, 201]
    assert [b.caught_up for b in lost] == [False, True]
    resumed = hub.watch.feed(FeedReader(BOB), 1, lost[0].position.sequence, lost[0].seen_ms)
    assert len((await anext(resumed)).changes) == 500
    done = hub.watch.feed(FeedReader(BOB), 1, lost[1].position.sequence, lost[1].seen_ms)
    assert (await anext(done)).changes == []


def test_times_of_the_log_are_lower_bounds_however_many_are_forgotten():
    times = LogTimes(max_marks=8)
    for sequence in range(1, 101):
        times.note(sequence, sequence * 600)
    assert times.earliest_ms(0) == 0
    for sequence in range(1, 101):
        assert 600 <= times.earliest_ms(sequence) <= sequence * 600
    assert len(times._sequences) <= 8


async def test_the_change_of_another_datasite_does_not_hide_a_moment(hub):
    await hub.write(RULES, until(hub.clock.ms + 5_000))
    await hub.write(f"{SITE}/for/x", b"1")
    feed = hub.watch.feed(FeedReader(BOB), 0, 0)
    await anext(feed)
    await hub.write(f"{EVE}/a", b"2")
    waiting = asyncio.create_task(anext(feed))
    for _ in range(10):
        await asyncio.sleep(0)
    hub.clock.ms += 5_000
    await hub.write(f"{EVE}/b", b"3")
    batch = await waiting
    assert [c.kind for c in batch.changes] == [ChangeKind.ACCESS_LOST]
