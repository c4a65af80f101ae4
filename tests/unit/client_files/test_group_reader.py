"""Files for groups: sealed to the members that the owner's admin device has signed, and to nobody else."""

from __future__ import annotations

import pytest
from mesh.sync.v1 import sync_pb2
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound, PermissionDenied
from syftmesh_core.sealed import peek

SITE, BOB, EVE = "alice@site.example", "bob@x.example", "eve@evil.example"
GROUPS = f"{SITE}/syft.groups.yaml"
TEAM_READS = b"rules: [{pattern: '**', access: {read: ['group:team']}}]\n"
TEAM_WRITES = b"rules: [{pattern: '**', access: {write: ['group:team']}}]\n"
BOB_IN = b"groups: {team: ['group:lead'], lead: [bob@x.example]}\n"
NOBODY_IN = b"groups: {team: []}\n"


async def failed(awaitable, kind) -> str:
    with pytest.raises(kind) as error:
        await awaitable
    return error.value.reason


def readers(desk, path: str) -> set[str]:
    from syftmesh_core.text import safe_token

    entry = desk.hub.log.site(SITE).live(path)
    blob = desk.hub.store.objects[f"packs/{safe_token(SITE)}/{entry.object_id}"]
    return {principal for principal, _ in peek(blob).readers}


def plant(hub, mesh, signed) -> None:
    record = sync_pb2.SignedRecord(record=signed.record, content=signed.content, signature=signed.signature)
    hub.bus._store(mesh.subject.files(SITE, "0" * 32), sync_pb2.FileEntry(record=record), "")


async def test_a_file_for_a_group_is_sealed_to_its_members_of_now(desks):
    alice, bob = desks["alice"], desks["bob"]
    await alice.files.write_many(
        {f"{SITE}/for/x": b"for the team", f"{SITE}/for/syft.pub.yaml": TEAM_READS, GROUPS: BOB_IN}
    )
    assert readers(alice, f"{SITE}/for/x") == {SITE, BOB}
    assert (await bob.files.read(f"{SITE}/for/x")).data == b"for the team"
    await alice.files.write(GROUPS, NOBODY_IN)
    assert await failed(bob.files.read(f"{SITE}/for/x"), NotFound) == "FILE_MISSING"
    await alice.files.reseal(f"{SITE}/for/x")
    assert readers(alice, f"{SITE}/for/x") == {SITE}


async def test_a_member_who_writes_seals_to_the_other_members(desks):
    alice, bob, eve = desks["alice"], desks["bob"], desks["eve"]
    await alice.files.write(f"{SITE}/team/syft.pub.yaml", TEAM_WRITES)
    await alice.files.write(GROUPS, b"groups: {team: [bob@x.example, eve@evil.example]}\n")
    await bob.files.write(f"{SITE}/team/x", b"from Bob")
    assert readers(alice, f"{SITE}/team/x") == {SITE, BOB, EVE}
    assert (await eve.files.read(f"{SITE}/team/x")).author == BOB
    assert (await bob.files.read(GROUPS)).author == SITE


async def test_groups_are_plain_at_the_hub_and_read_by_nobody_who_need_not(desks, hub):
    await desks["alice"].files.write(GROUPS, BOB_IN)
    assert BOB_IN in hub.store.objects.values()
    assert await failed(desks["bob"].files.read(GROUPS), NotFound) == "FILE_MISSING"


async def test_malformed_groups_are_refused_before_anything_is_sent(desks):
    alice = desks["alice"]
    assert await failed(alice.files.write(GROUPS, b"groups: {A: []}\n"), InvalidInput) == "RULES_INVALID"
    assert alice.stub.calls == []


async def test_only_an_admin_device_writes_groups(desks):
    assert (
        await failed(desks["runner"].files.write(GROUPS, BOB_IN), PermissionDenied) == "ADMIN_DEVICE_REQUIRED"
    )


async def test_groups_that_no_admin_device_signed_are_not_used(desks, hub, mesh):
    await desks["alice"].files.write(f"{SITE}/for/syft.pub.yaml", TEAM_READS)
    data = b"groups: {team: [eve@evil.example]}\n"
    mesh.put_object(hub.store, SITE, data)
    plant(hub, mesh, mesh.record(GROUPS, mesh.plain(data), hub.people[SITE].devices[1]))
    await hub.log.wait_for(3, 5)
    assert (
        await failed(desks["alice"].files.write(f"{SITE}/for/x", b"1"), IntegrityFailure) == "RULES_UNTRUSTED"
    )
    assert await failed(desks["alice"].files.read(GROUPS), IntegrityFailure) == "AUTHOR_NOT_ALLOWED"


async def test_groups_that_a_hub_makes_up_are_not_used(desks, hub, mesh):
    await desks["alice"].files.write(f"{SITE}/for/syft.pub.yaml", TEAM_READS)
    data = b"groups: {team: [eve@evil.example]}\n"
    mesh.put_object(hub.store, SITE, data)
    plant(hub, mesh, mesh.record(GROUPS, mesh.plain(data), hub.device(EVE)))
    await hub.log.wait_for(3, 5)
    assert (
        await failed(desks["alice"].files.write(f"{SITE}/for/x", b"1"), IntegrityFailure) == "RULES_UNTRUSTED"
    )


async def test_groups_that_a_hub_withholds_from_their_owner_are_missed(desks):
    alice = desks["alice"]
    await alice.files.write(GROUPS, BOB_IN)
    await alice.files.write(f"{SITE}/for/syft.pub.yaml", TEAM_READS)

    def withheld(answer):
        for target in answer.targets:
            if target.path == GROUPS:
                target.ClearField("entry")
        return answer

    alice.stub.tamper["OpenDownload"] = withheld
    assert await failed(alice.files.write(f"{SITE}/for/x", b"1"), IntegrityFailure) == "RULES_WITHHELD"


async def test_old_groups_that_a_hub_gives_again_are_not_used(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/for/syft.pub.yaml", TEAM_READS)
    await alice.files.write(GROUPS, BOB_IN)
    old = []

    def keep(answer):
        old.extend(t for t in answer.targets if t.path == GROUPS)
        return answer

    alice.stub.tamper["OpenDownload"] = keep
    await alice.files.write(f"{SITE}/for/x", b"1")
    await alice.files.write(GROUPS, NOBODY_IN)

    def replay(answer):
        for target in answer.targets:
            if target.path == GROUPS:
                target.CopyFrom(old[0])
        return answer

    alice.stub.tamper["OpenDownload"] = replay
    assert await failed(alice.files.write(f"{SITE}/for/x", b"2"), IntegrityFailure) == "FILE_ROLLBACK"


async def test_groups_are_fetched_once_per_revision(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/for/syft.pub.yaml", TEAM_READS)
    await alice.files.write(GROUPS, BOB_IN)
    await alice.files.write(f"{SITE}/for/x", b"1")
    before = len([r for r in alice.requests if r.method == "GET"])
    await alice.files.write(f"{SITE}/for/x", b"2")
    assert len([r for r in alice.requests if r.method == "GET"]) == before


async def test_an_author_by_a_group_is_believed_by_who_may_read_the_groups(desks):
    alice, bob, eve = desks["alice"], desks["bob"], desks["eve"]
    rules = b"rules: [{pattern: '**', access: {read: [eve@evil.example], write: ['group:team']}}]\n"
    await alice.files.write(f"{SITE}/team/syft.pub.yaml", rules)
    await alice.files.write(GROUPS, BOB_IN)
    await bob.files.write(f"{SITE}/team/x", b"from Bob")
    assert await failed(eve.files.read(f"{SITE}/team/x"), IntegrityFailure) == "AUTHOR_NOT_ALLOWED"
    await alice.files.write(
        f"{SITE}/syft.pub.yaml",
        b"rules: [{pattern: syft.groups.yaml, access: {read: [eve@evil.example]}}]\n",
    )
    assert (await eve.files.read(f"{SITE}/team/x")).data == b"from Bob"


async def test_a_site_lets_members_call_as_long_as_they_are_members(desks, hub):
    from mesh.rpc.v1.content_pb2 import RequestContent
    from syftmesh_client.call_right import SignedRights
    from syftmesh_client.incoming import IncomingCall

    alice = desks["alice"]
    rights = SignedRights(alice.files.rules, hub.clock)
    call = IncomingCall("id", BOB, b"", "dev", SITE, "chat", "say", RequestContent(), 0)
    await alice.files.write(f"{SITE}/app_data/chat/rpc/syft.pub.yaml", TEAM_WRITES)
    assert await failed(rights(call), PermissionDenied) == "PERMISSION_DENIED"
    await alice.files.write(GROUPS, BOB_IN)
    await rights(call)
    await alice.files.write(GROUPS, NOBODY_IN)
    assert await failed(rights(call), PermissionDenied) == "PERMISSION_DENIED"


async def test_a_watch_goes_on_behind_the_moment_that_it_was_told(desks, hub):
    from contextlib import aclosing

    from syftmesh_client.file_view import ChangeKind

    moment = "2027-01-15T08:00:10Z"
    assert hub.clock.ms == 1_800_000_000_000  # 2027-01-15T08:00:00Z
    rules = f"rules: [{{pattern: '**', access: {{read: [bob@x.example]}}, expires: {moment}}}]\n"
    await desks["alice"].files.write(f"{SITE}/for/syft.pub.yaml", rules.encode())
    async with aclosing(desks["bob"].files.watch([SITE])) as feed:
        assert (await anext(feed)).kind is ChangeKind.UPDATED
        cursor = (await anext(feed)).cursor
    assert cursor.seen_ms == hub.clock.ms
    hub.clock.ms += 10_000
    async with aclosing(desks["bob"].files.watch([SITE], cursor)) as feed:
        assert (await anext(feed)).kind is ChangeKind.ACCESS_LOST
        cursor = (await anext(feed)).cursor
    async with aclosing(desks["bob"].files.watch([SITE], cursor)) as feed:
        assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP
