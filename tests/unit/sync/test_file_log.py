from __future__ import annotations

import asyncio
import base64

import pytest
from syftmesh_core.errors import InvalidInput, LimitExceeded, Unavailable, WrongState
from syftmesh_kit.filelog import ChangeKind, FeedReader, SiteIndex, changes_since

SITE = "alice@site.example"
BOB = "bob@x.example"
OPEN = b"rules: [{pattern: '**', access: {read: [bob@x.example]}}]\n"
SHUT = b"rules: []\n"


def snapshot(hub) -> dict:
    site = hub.log.site(SITE)
    return {
        "files": [(e.text, e.revision, e.sequence) for e in site.below(SITE)],
        "rules": [(f.path, f.revision, f.rules) for f in site.tree],
        "position": hub.log.position,
    }


async def seen(hub, who: str, since: int, *prefixes: str):
    changes, to = await changes_since(hub.log, FeedReader(who, prefixes), since, hub.clock.now_ms())
    return [(c.kind, c.entry.text.removeprefix(f"{SITE}/")) for c in changes], to.sequence


async def test_a_restart_rebuilds_the_same_state(hub, mesh):
    first, _ = await hub.write(f"{SITE}/a/x", b"1")
    await hub.write(f"{SITE}/a/x", b"2", replaces=first)
    gone, _ = await hub.write(f"{SITE}/b", b"3")
    await hub.commit(SITE, mesh.record(f"{SITE}/b", None, hub.device(SITE), replaces=gone))
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    rules, _ = await hub.write(f"{SITE}/old/syft.pub.yaml", SHUT)
    await hub.commit(SITE, mesh.record(f"{SITE}/old/syft.pub.yaml", None, hub.device(SITE), replaces=rules))
    before = snapshot(hub)
    assert [path for path, _, _ in before["files"]] == [f"{SITE}/a/x", f"{SITE}/syft.pub.yaml"]
    await hub.restart()
    assert snapshot(hub) == before


async def test_nothing_is_answered_before_the_log_is_read(hub):
    await hub.stop()
    hub.build()
    with pytest.raises(Unavailable) as loading:
        hub.query.stat(SITE, [f"{SITE}/a"])
    assert loading.value.reason == "LOG_LOADING"


async def test_a_message_that_is_no_record_is_skipped(hub, mesh):
    hub.bus._store("files.x.y", mesh.crypto_pb2.SignedDeviceList(), "")
    _, outcome = await hub.write(f"{SITE}/a", b"x")
    assert outcome.sequence == 2
    assert hub.log.position.sequence == 2


async def test_lost_rules_grant_nothing_and_shut_what_is_below(hub, mesh):
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    await hub.write(f"{SITE}/sub/syft.pub.yaml", OPEN.replace(b"rules", b"# deeper\nrules", 1))
    await hub.write(f"{SITE}/sub/a", b"x")
    assert hub.query.stat(BOB, [f"{SITE}/sub/a"])
    key = mesh.object_key(SITE, hub.log.site(SITE).live(f"{SITE}/syft.pub.yaml").object_id)
    del hub.store.objects[key]
    await hub.restart()
    assert not hub.query.stat(BOB, [f"{SITE}/sub/a"])
    assert hub.query.stat(SITE, [f"{SITE}/sub/a"])


async def test_damaged_rules_grant_nothing(hub, mesh):
    await hub.write(f"{SITE}/syft.pub.yaml", SHUT)
    await hub.write(f"{SITE}/a", b"x")
    key = mesh.object_key(SITE, hub.log.site(SITE).live(f"{SITE}/syft.pub.yaml").object_id)
    hub.store.objects[key] = OPEN
    await hub.restart()
    assert not hub.query.stat(BOB, [f"{SITE}/a"])


async def test_the_feed_gives_what_is_live_and_readable_then_what_changes(hub, mesh):
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    first, _ = await hub.write(f"{SITE}/a", b"1")
    await hub.write(f"{SITE}/shut/syft.pub.yaml", SHUT)
    await hub.write(f"{SITE}/shut/s", b"2")
    found, at = await seen(hub, BOB, 0)
    assert found == [(ChangeKind.UPDATED, "syft.pub.yaml"), (ChangeKind.UPDATED, "a")]
    await hub.commit(SITE, mesh.record(f"{SITE}/a", None, hub.device(SITE), replaces=first))
    await hub.write(f"{SITE}/shut/s2", b"3")
    found, at = await seen(hub, BOB, at)
    assert found == [(ChangeKind.DELETED, "a")]
    assert await seen(hub, BOB, at) == ([], at)
    everything, _ = await seen(hub, SITE, 0)
    assert [name for _, name in everything] == ["syft.pub.yaml", "shut/syft.pub.yaml", "shut/s", "shut/s2"]


async def test_losing_the_right_to_read_is_not_a_delete(hub):
    rules, _ = await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    await hub.write(f"{SITE}/a", b"1")
    _, at = await seen(hub, BOB, 0)
    await hub.write(f"{SITE}/syft.pub.yaml", SHUT, replaces=rules)
    await hub.write(f"{SITE}/secret", b"2")
    found, at = await seen(hub, BOB, at)
    assert sorted(found, key=str) == sorted(
        [(ChangeKind.ACCESS_LOST, "syft.pub.yaml"), (ChangeKind.ACCESS_LOST, "a")], key=str
    )
    assert await seen(hub, BOB, at) == ([], at)


async def test_a_change_behind_a_revocation_is_access_lost_and_shows_no_content(hub):
    rules, _ = await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    first, _ = await hub.write(f"{SITE}/a", b"1")
    _, at = await seen(hub, BOB, 0)
    await hub.write(f"{SITE}/syft.pub.yaml", SHUT, replaces=rules)
    await hub.write(f"{SITE}/a", b"2", replaces=first)
    found, _ = await seen(hub, BOB, at)
    assert (ChangeKind.ACCESS_LOST, "a") in found
    assert not any(kind is ChangeKind.UPDATED for kind, _ in found)


async def test_gaining_the_right_to_read_brings_the_files(hub):
    rules, _ = await hub.write(f"{SITE}/syft.pub.yaml", SHUT)
    await hub.write(f"{SITE}/a", b"1")
    _, at = await seen(hub, BOB, 0)
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN, replaces=rules)
    found, _ = await seen(hub, BOB, at)
    assert sorted(found, key=str) == sorted(
        [(ChangeKind.UPDATED, "syft.pub.yaml"), (ChangeKind.UPDATED, "a")], key=str
    )


async def test_a_cursor_older_than_the_known_rules_has_to_list(hub):
    rules, _ = await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    _, at = await seen(hub, BOB, 0)
    await hub.write(f"{SITE}/syft.pub.yaml", SHUT, replaces=rules)
    await hub.restart()
    with pytest.raises(WrongState) as expired:
        await seen(hub, BOB, at)
    assert expired.value.reason == "CURSOR_EXPIRED"
    assert (await seen(hub, SITE, at))[0] == [(ChangeKind.UPDATED, "syft.pub.yaml")]


async def test_prefixes_limit_the_feed_to_whole_segments(hub):
    for name in ("a/x", "ab/x", "a.txt", "b"):
        await hub.write(f"{SITE}/{name}", name.encode())
    found, at = await seen(hub, SITE, 0, f"{SITE}/a", f"{SITE}/b")
    assert [name for _, name in found] == ["a/x", "b"]
    await hub.write(f"{SITE}/ab/y", b"3")
    assert (await seen(hub, SITE, at, f"{SITE}/a"))[0] == []


async def test_the_stream_sends_a_snapshot_then_each_change_and_lives_between(hub):
    await hub.write(f"{SITE}/a", b"1")
    hub.watch._heartbeat_s = 0.05
    feed = hub.watch.feed(FeedReader(SITE), 0, 0)
    first = await anext(feed)
    assert ([c.entry.text for c in first.changes], first.caught_up) == ([f"{SITE}/a"], True)
    waiting = asyncio.create_task(anext(feed))
    await asyncio.sleep(0)
    hub.clock.ms += 60
    beat = await waiting
    assert beat.changes == []
    await hub.write(f"{SITE}/b", b"2")
    nxt = await anext(feed)
    assert [c.entry.text for c in nxt.changes] == [f"{SITE}/b"]
    resumed = await anext(hub.watch.feed(FeedReader(SITE), 1, first.position.sequence))
    assert [c.entry.text for c in resumed.changes] == [f"{SITE}/b"]


async def test_a_change_that_the_reader_may_not_see_wakes_nobody(hub):
    await hub.write(f"{SITE}/a", b"1")
    feed = hub.watch.feed(FeedReader(BOB), 0, 0)
    assert (await anext(feed)).changes == []
    waiting = asyncio.create_task(anext(feed))
    await hub.write(f"{SITE}/b", b"2")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_large_snapshots_come_in_batches_that_can_be_resumed_behind(hub, mesh):
    records = []
    for number in range(1100):
        data = str(number).encode()
        mesh.put_object(hub.store, SITE, data)
        records.append(mesh.record(f"{SITE}/{number:04}", mesh.sealed(data), hub.device(SITE)))
        hub.bus._store(
            mesh.subject.files(SITE, f"{number:032x}"),
            message_of(records[-1]),
            "",
        )
    await hub.log.wait_for(1100, 5)
    feed = hub.watch.feed(FeedReader(SITE), 0, 0)
    batches = [await anext(feed) for _ in range(3)]
    assert [len(b.changes) for b in batches] == [500, 500, 100]
    assert [b.caught_up for b in batches] == [False, False, True]
    resumed = await anext(hub.watch.feed(FeedReader(SITE), 1, batches[0].position.sequence))
    assert resumed.changes[0].entry.text == f"{SITE}/0500"


@pytest.mark.parametrize("cursor", [(2, 1), (1, 99), (0, 1)])
async def test_a_cursor_of_another_epoch_or_of_the_future_has_expired(hub, cursor):
    await hub.write(f"{SITE}/a", b"1")
    with pytest.raises(WrongState) as expired:
        await anext(hub.watch.feed(FeedReader(SITE), *cursor))
    assert expired.value.reason == "CURSOR_EXPIRED"


async def test_listing_pages_in_path_order_through_what_may_be_read(hub):
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    await hub.write(f"{SITE}/d/shut/syft.pub.yaml", SHUT)
    for name in ("d/a", "d/a.b", "d/b", "d/shut/s", "d/z", "dd"):
        await hub.write(f"{SITE}/{name}", name.encode())
    token, names, pages = "", [], 0
    while True:
        page = await hub.query.page(BOB, f"{SITE}/d/", 2, token)
        names += [e.text.removeprefix(f"{SITE}/") for e in page.entries]
        pages += 1
        token = page.next_token
        if not token:
            break
    assert names == ["d/a", "d/a.b", "d/b", "d/z"]
    assert pages == 2


async def test_a_page_token_names_no_file_that_the_caller_may_not_read(hub):
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    await hub.write(f"{SITE}/d/shut/syft.pub.yaml", SHUT)
    for number in range(300):
        await hub.write(f"{SITE}/d/shut/secret-{number:03}", b"")
    await hub.write(f"{SITE}/d/a", b"1")
    last = await hub.query.page(BOB, f"{SITE}/d", 1, "")
    assert ([e.text for e in last.entries], last.next_token) == ([f"{SITE}/d/a"], "")
    await hub.write(f"{SITE}/d/z", b"2")
    first = await hub.query.page(BOB, f"{SITE}/d", 1, "")
    assert base64.urlsafe_b64decode(first.next_token).decode() == f"{SITE}/d/a"
    following = await hub.query.page(BOB, f"{SITE}/d", 1, first.next_token)
    assert ([e.text for e in following.entries], following.next_token) == ([f"{SITE}/d/z"], "")
    stranger = await hub.query.page("eve@evil.example", f"{SITE}/d/shut", 1, "")
    assert (stranger.entries, stranger.next_token) == ([], "")


@pytest.mark.parametrize("token", ["%%%", "aGVsbG8=", "eA"])
async def test_a_foreign_page_token_is_refused(hub, token):
    with pytest.raises(InvalidInput) as refused:
        await hub.query.page(SITE, SITE, 10, token)
    assert refused.value.reason == "PAGE_INVALID"


async def test_downloads_are_given_for_what_may_be_read(hub):
    await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    await hub.write(f"{SITE}/a", b"bytes")
    first, absent = hub.query.downloads(BOB, [f"{SITE}/a", f"{SITE}/none"])
    assert hub.store.do("GET", first.grant.url) == (200, b"bytes")
    assert absent.entry is None
    eve, nothing = hub.query.downloads("eve@evil.example", [f"{SITE}/a", f"{SITE}/none"])
    assert (eve.entry, nothing.entry) == (None, None)
    with pytest.raises(LimitExceeded):
        hub.query.downloads(BOB, [f"{SITE}/a"] * 65)


async def test_a_right_ends_with_the_clock(hub):
    await hub.write(
        f"{SITE}/syft.pub.yaml",
        b"rules: [{pattern: '**', access: {read: [bob@x.example]}, expires: 2027-01-15T08:00:01Z}]\n",
    )
    await hub.write(f"{SITE}/a", b"x")
    assert hub.query.stat(BOB, [f"{SITE}/a"])
    hub.clock.ms += 2_000
    assert not hub.query.stat(BOB, [f"{SITE}/a"])


async def test_while_rules_cannot_be_read_nothing_is_decided_by_old_ones(hub, mesh):
    rules, _ = await hub.write(f"{SITE}/syft.pub.yaml", OPEN)
    await hub.write(f"{SITE}/a", b"x")
    mesh.put_object(hub.store, SITE, SHUT)
    hub.store.away = True
    closing = mesh.record(f"{SITE}/syft.pub.yaml", mesh.plain(SHUT), hub.device(SITE), replaces=rules)
    hub.bus._store(mesh.subject.files(SITE, "0" * 32), message_of(closing), "")
    for _ in range(5):
        await asyncio.sleep(0)
    hub.log._stalled_since -= 3
    with pytest.raises(Unavailable) as behind:
        hub.query.stat(BOB, [f"{SITE}/a"])
    assert behind.value.reason == "LOG_BEHIND"


def message_of(signed):
    from mesh.sync.v1 import sync_pb2

    record = sync_pb2.SignedRecord(record=signed.record, content=signed.content, signature=signed.signature)
    return sync_pb2.FileEntry(record=record)


async def test_counts_for_limits_follow_every_change(hub, mesh):
    site = hub.log.site(SITE)
    assert isinstance(site, SiteIndex)
    await hub.write(
        f"{SITE}/in/syft.pub.yaml",
        b"rules: [{pattern: '**', access: {write: [USER]}, limits: {maxFiles: 9}}]\n",
    )
    from syftmesh_core.permission.engine import deciding_rule_key

    site = hub.log.site(SITE)
    first, _ = await hub.write(f"{SITE}/in/a", b"1")
    entry = site.live(f"{SITE}/in/a")
    key = deciding_rule_key(site.tree, entry.path, BOB, hub.clock.now_ms())
    assert site.count(key, hub.clock.now_ms()) == 1
    await hub.write(f"{SITE}/in/b", b"2")
    assert site.count(key, hub.clock.now_ms()) == 2
    assert site.count(key, hub.clock.now_ms(), excluding=f"{SITE}/in/a") == 1
    await hub.commit(SITE, mesh.record(f"{SITE}/in/a", None, hub.device(SITE), replaces=first))
    assert site.count(key, hub.clock.now_ms()) == 1
