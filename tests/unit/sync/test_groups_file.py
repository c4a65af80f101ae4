"""The owner's groups: who may write and read their file, and what a change of it gives and takes."""

from __future__ import annotations

import pytest
from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.group import parse_groups
from syftmesh_kit.filelog import ChangeKind, FeedReader, changes_since
from syftmesh_sync.domain.commit import Status

SITE = "alice@site.example"
BOB = "bob@x.example"
EVE = "eve@evil.example"
GROUPS = f"{SITE}/syft.groups.yaml"
RULES = f"{SITE}/for/syft.pub.yaml"
READERS = b"rules: [{pattern: '**', access: {read: ['group:team']}}]\n"
WRITERS = b"rules: [{pattern: '**', access: {write: ['group:team']}}]\n"
BOB_IN = b"groups: {team: [bob@x.example]}\n"
BOB_OUT = b"groups: {team: [eve@evil.example]}\n"


def reason(outcome) -> tuple[Status, str]:
    return outcome.status, outcome.reason


def reads(hub, who: str, path: str) -> bool:
    return bool(hub.query.stat(who, [path]))


async def seen(hub, who: str, since: int):
    changes, to = await changes_since(hub.log, FeedReader(who), since, hub.clock.now_ms())
    return {(c.kind, c.entry.text.removeprefix(f"{SITE}/")) for c in changes}, to.sequence


async def test_a_member_reads_what_the_rules_give_to_the_group_until_taken_out(hub):
    await hub.write(RULES, READERS)
    groups, _ = await hub.write(GROUPS, BOB_IN)
    await hub.write(f"{SITE}/for/x", b"1")
    assert (reads(hub, BOB, f"{SITE}/for/x"), reads(hub, EVE, f"{SITE}/for/x")) == (True, False)
    await hub.write(GROUPS, BOB_OUT, replaces=groups)
    assert (reads(hub, BOB, f"{SITE}/for/x"), reads(hub, EVE, f"{SITE}/for/x")) == (False, True)


async def test_a_deleted_groups_file_leaves_no_group(hub, mesh):
    await hub.write(RULES, READERS)
    groups, _ = await hub.write(GROUPS, BOB_IN)
    await hub.write(f"{SITE}/for/x", b"1")
    await hub.commit(SITE, mesh.record(GROUPS, None, hub.device(SITE), replaces=groups))
    assert not reads(hub, BOB, f"{SITE}/for/x")
    assert not hub.log.site(SITE).tree.groups


async def test_a_restart_knows_groups_and_fence(hub):
    await hub.write(RULES, READERS)
    await hub.write(GROUPS, BOB_IN)
    before = hub.log.site(SITE)
    await hub.restart()
    after = hub.log.site(SITE)
    assert dict(after.tree.groups) == {"team": frozenset({BOB})}
    assert (after.rules_changed_at, after.fence) == (before.rules_changed_at, before.fence)


async def test_groups_have_a_past_as_rules_have(hub):
    await hub.write(RULES, READERS)
    groups, first = await hub.write(GROUPS, BOB_IN)
    _, second = await hub.write(GROUPS, BOB_OUT, replaces=groups)
    site = hub.log.site(SITE)
    assert site.rules_at(first.sequence).groups["team"] == {BOB}
    assert site.rules_at(second.sequence).groups["team"] == {EVE}
    assert [(c.sequence, c.directory) for c in site.rules_changed_since(first.sequence)] == [
        (second.sequence, ())
    ]


async def test_a_change_of_groups_is_told_to_whom_it_gives_and_takes(hub):
    await hub.write(RULES, READERS)
    groups, _ = await hub.write(GROUPS, BOB_IN)
    await hub.write(f"{SITE}/for/x", b"1")
    _, bob_at = await seen(hub, BOB, 0)
    _, eve_at = await seen(hub, EVE, 0)
    await hub.write(GROUPS, BOB_OUT, replaces=groups)
    lost, bob_at = await seen(hub, BOB, bob_at)
    assert lost == {(ChangeKind.ACCESS_LOST, "for/x"), (ChangeKind.ACCESS_LOST, "for/syft.pub.yaml")}
    gained, _ = await seen(hub, EVE, eve_at)
    assert gained == {(ChangeKind.UPDATED, "for/x"), (ChangeKind.UPDATED, "for/syft.pub.yaml")}
    assert await seen(hub, BOB, bob_at) == (set(), bob_at)


async def test_a_lost_groups_file_shuts_the_datasite_to_others(hub, mesh):
    await hub.write(
        f"{SITE}/syft.pub.yaml", b"rules: [{pattern: '**', access: {read: ['*']}, deny: ['group:no']}]\n"
    )
    groups, _ = await hub.write(GROUPS, b"groups: {no: [eve@evil.example]}\n")
    await hub.write(f"{SITE}/x", b"1", kind="plain")
    assert (reads(hub, BOB, f"{SITE}/x"), reads(hub, EVE, f"{SITE}/x")) == (True, False)
    stored = hub.store.objects.pop(mesh.object_key(SITE, hub.log.site(SITE).live(GROUPS).object_id))
    await hub.restart()
    assert not any(reads(hub, who, f"{SITE}/x") for who in (BOB, EVE, ""))
    assert reads(hub, SITE, f"{SITE}/x")
    await hub.write(GROUPS, stored + b"# again\n", replaces=groups)
    assert (reads(hub, BOB, f"{SITE}/x"), reads(hub, EVE, f"{SITE}/x")) == (True, False)


async def test_refused_groups_say_the_line_and_leave_the_old_ones_also_after_a_restart(hub):
    await hub.write(RULES, READERS)
    groups, _ = await hub.write(GROUPS, BOB_IN)
    await hub.write(f"{SITE}/for/x", b"1")
    _, outcome = await hub.write(GROUPS, b"groups:\n  a: ['group:b']\n  b: ['group:a']\n", replaces=groups)
    assert reason(outcome) == (Status.INVALID, "RULES_INVALID")
    assert "line 3" in outcome.message
    assert "a > b > a" in outcome.message or "b > a > b" in outcome.message
    assert reads(hub, BOB, f"{SITE}/for/x")
    await hub.restart()
    assert reads(hub, BOB, f"{SITE}/for/x")


async def test_groups_are_plain_and_small(hub):
    _, sealed = await hub.write(GROUPS, BOB_IN, kind="sealed")
    _, large = await hub.write(GROUPS, BOB_IN + b"#" * 65_536)
    assert reason(sealed) == reason(large) == (Status.INVALID, "RULES_INVALID")


async def test_groups_need_an_admin_device_of_the_owner(hub, mesh):
    await hub.write(f"{SITE}/syft.pub.yaml", b"rules: [{pattern: '**', access: {admin: [bob@x.example]}}]\n")
    _, runner = await hub.write(GROUPS, BOB_IN, device=hub.people[SITE].devices[1])
    assert reason(runner) == (Status.DENIED, "ADMIN_DEVICE_REQUIRED")
    _, bob = await hub.write(GROUPS, BOB_IN, who=BOB)
    assert reason(bob) == (Status.DENIED, "PERMISSION_DENIED")
    groups, _ = await hub.write(GROUPS, BOB_IN)
    gone = mesh.record(GROUPS, None, hub.people[SITE].devices[1], replaces=groups)
    (deleted,) = await hub.commit(SITE, gone, device=hub.people[SITE].devices[1])
    assert reason(deleted) == (Status.DENIED, "ADMIN_DEVICE_REQUIRED")


async def test_one_batch_may_bring_groups_and_what_their_members_write(hub, mesh):
    await hub.write(f"{SITE}/public/syft.pub.yaml", b"rules: [{pattern: '**', access: {read: ['*']}}]\n")
    for data in (BOB_IN, b"open"):
        await hub.put(SITE, SITE, data)
    outcomes = await hub.commit(
        SITE,
        mesh.record(f"{SITE}/public/a", mesh.plain(b"open"), hub.device(SITE)),
        mesh.record(GROUPS, mesh.plain(BOB_IN), hub.device(SITE)),
    )
    assert [o.status for o in outcomes] == [Status.OK, Status.OK]
    _, written = await hub.write(f"{SITE}/for/by-bob", b"1", who=SITE)
    assert written.status is Status.OK


@pytest.mark.parametrize(
    ("rule", "may"),
    [
        ("{pattern: 'in/**', access: {create: [bob@x.example]}}", True),
        ("{pattern: 'in/**', access: {write: ['group:team']}}", True),
        ("{pattern: 'in/**', access: {write: [USER]}}", True),
        ("{pattern: 'in/**', access: {write: [USER]}, deny: [bob@x.example]}", False),
        ("{pattern: 'in/**', access: {write: [USER]}, expires: 2020-01-01T00:00:00Z}", False),
        ("{pattern: 'in/**', access: {read: [bob@x.example]}}", False),
        ("{pattern: 'syft.groups.yaml', access: {read: [bob@x.example]}}", True),
    ],
)
async def test_groups_are_read_by_rule_or_by_whoever_may_write_somewhere(hub, rule, may):
    await hub.write(GROUPS, BOB_IN)
    await hub.write(f"{SITE}/syft.pub.yaml", f"rules: [{rule}]\n".encode())
    assert reads(hub, BOB, GROUPS) is may
    assert not reads(hub, "", GROUPS)
    assert bool(hub.query.downloads(BOB, [GROUPS])[0].grant) is may


async def test_rules_below_a_terminal_file_let_nobody_see_the_groups(hub):
    await hub.write(GROUPS, BOB_IN)
    root, _ = await hub.write(f"{SITE}/syft.pub.yaml", b"rules: []\n")
    await hub.write(f"{SITE}/in/syft.pub.yaml", WRITERS)
    assert reads(hub, BOB, GROUPS)
    await hub.write(f"{SITE}/syft.pub.yaml", b"terminal: true\nrules: []\n", replaces=root)
    assert not reads(hub, BOB, GROUPS)


async def test_the_end_of_the_last_right_to_write_takes_the_groups_away(hub):
    await hub.write(GROUPS, BOB_IN)
    rules, _ = await hub.write(f"{SITE}/deep/in/syft.pub.yaml", WRITERS)
    found, at = await seen(hub, BOB, 0)
    assert (ChangeKind.UPDATED, "syft.groups.yaml") in found
    await hub.write(f"{SITE}/deep/in/syft.pub.yaml", READERS, replaces=rules)
    found, _ = await seen(hub, BOB, at)
    assert (ChangeKind.ACCESS_LOST, "syft.groups.yaml") in found


async def test_a_file_that_looks_like_the_groups_is_made_by_nobody(hub):
    _, outcome = await hub.write(f"{SITE}/Syft.Groups.yaml", BOB_IN, kind="plain")
    assert reason(outcome) == (Status.INVALID, "PATH_INVALID")
    _, below = await hub.write(f"{SITE}/sub/syft.groups.yaml", BOB_IN, kind="sealed")
    assert below.status is Status.OK
    assert not hub.log.site(SITE).tree.groups


def test_the_groups_of_these_tests_parse():
    assert parse_groups(BOB_IN).resolved["team"] == {BOB}
    with pytest.raises(InvalidInput):
        parse_groups(READERS)
