"""A write is in the log only behind the policy that it was decided by, whichever replica wrote either."""

from __future__ import annotations

import asyncio

import pytest
from syftmesh_core.errors import Unavailable
from syftmesh_kit.filelog import LogPosition, entry_message, fence_subject, subject_of
from syftmesh_kit.message import Outgoing
from syftmesh_sync.domain.commit import Status

SITE = "alice@site.example"
BOB = "bob@x.example"
RULES = f"{SITE}/in/syft.pub.yaml"
WRITERS = b"rules: [{pattern: '**', access: {write: [bob@x.example]}}]\n"
NOBODY = b"rules: []\n"


def policy_change(hub, mesh, path: str, data: bytes, replaces) -> list[Outgoing]:
    """Return the messages that another replica appends when the owner changes `path` to `data`."""
    mesh.put_object(hub.store, SITE, data)
    signed = mesh.record(path, mesh.plain(data), hub.device(SITE), replaces=replaces)
    from syftmesh_core.path import parse_path

    record = Outgoing(subject_of(parse_path(path)), entry_message(path, signed, None))
    fence = Outgoing(fence_subject(SITE), mesh.sync_pb2.PolicyFence(site=SITE))
    return [record, fence]


async def test_a_right_revoked_between_check_and_append_is_refused(hub, mesh):
    rules, _ = await hub.write(RULES, WRITERS)
    hub.bus.race = policy_change(hub, mesh, RULES, NOBODY, rules)
    _, outcome = await hub.write(f"{SITE}/in/x", b"1", who=BOB)
    assert (outcome.status, outcome.reason) == (Status.DENIED, "PERMISSION_DENIED")
    assert hub.log.site(SITE).find(f"{SITE}/in/x") is None


async def test_a_member_taken_out_between_check_and_append_is_refused(hub, mesh):
    await hub.write(RULES, b"rules: [{pattern: '**', access: {write: ['group:team']}}]\n")
    path = f"{SITE}/syft.groups.yaml"
    groups, _ = await hub.write(path, b"groups: {team: [bob@x.example]}\n")
    hub.bus.race = policy_change(hub, mesh, path, b"groups: {team: []}\n", groups)
    _, outcome = await hub.write(f"{SITE}/in/x", b"1", who=BOB)
    assert (outcome.status, outcome.reason) == (Status.DENIED, "PERMISSION_DENIED")


async def test_a_right_that_the_new_policy_still_gives_is_decided_again_and_written(hub, mesh):
    rules, _ = await hub.write(RULES, WRITERS)
    hub.bus.race = policy_change(hub, mesh, RULES, WRITERS + b"# changed\n", rules)
    _, outcome = await hub.write(f"{SITE}/in/x", b"1", who=BOB)
    assert outcome.status is Status.OK
    site = hub.log.site(SITE)
    assert site.find(f"{SITE}/in/x").checked_at == LogPosition(1, site.rules_changed_at)


async def test_content_that_was_open_when_it_was_checked_is_not_stored_plain_where_it_is_shut(hub, mesh):
    rules, _ = await hub.write(f"{SITE}/p/syft.pub.yaml", mesh.PUBLIC)
    hub.bus.race = policy_change(hub, mesh, f"{SITE}/p/syft.pub.yaml", NOBODY, rules)
    _, outcome = await hub.write(f"{SITE}/p/x", b"1", kind="plain")
    assert (outcome.status, outcome.reason) == (Status.INVALID, "PLAIN_NOT_ALLOWED")


async def test_sealed_files_of_the_owner_depend_on_no_policy(hub, mesh):
    rules, _ = await hub.write(RULES, WRITERS)
    batches = hub.bus.batches
    hub.bus.race = policy_change(hub, mesh, RULES, NOBODY, rules)
    _, outcome = await hub.write(f"{SITE}/in/x", b"1")
    assert outcome.status is Status.OK
    assert hub.bus.batches == batches


async def test_policy_that_changes_all_the_time_is_told_as_busy(hub, mesh, monkeypatch):
    await hub.write(RULES, WRITERS)

    async def always_moving(batch, *, operation_id=""):
        raise mesh.Conflict("", reason="WRONG_LAST_SEQUENCE")

    async def no_pause(seconds: float) -> None:
        await real_sleep(0)

    real_sleep = asyncio.sleep
    monkeypatch.setattr(hub.bus, "publish_batch", always_moving)
    monkeypatch.setattr("syftmesh_sync.domain.commit.asyncio.sleep", no_pause)
    with pytest.raises(Unavailable) as busy:
        await hub.write(f"{SITE}/in/x", b"1", who=BOB)
    assert busy.value.reason == "BUSY"


async def test_each_record_says_the_policy_it_was_checked_at_also_after_a_restart(hub):
    _, before = await hub.write(f"{SITE}/first", b"0")
    rules, changed = await hub.write(RULES, WRITERS)
    await hub.write(f"{SITE}/in/x", b"1", who=BOB)
    _, again = await hub.write(RULES, NOBODY, replaces=rules)
    await hub.write(f"{SITE}/later", b"2")
    await hub.restart()
    site = hub.log.site(SITE)
    checked = {name: site.find(f"{SITE}/{name}").checked_at.sequence for name in ("first", "in/x", "later")}
    assert checked == {"first": 0, "in/x": changed.sequence, "later": again.sequence}
    assert before.sequence < changed.sequence


async def test_records_of_older_versions_say_nothing(hub, mesh):
    mesh.put_object(hub.store, SITE, b"old")
    signed = mesh.record(f"{SITE}/old", mesh.sealed(b"old"), hub.device(SITE))
    from syftmesh_core.path import parse_path

    hub.bus._store(subject_of(parse_path(f"{SITE}/old")), entry_message(f"{SITE}/old", signed, None), "")
    await hub.log.wait_for(1, 5)
    assert hub.log.site(SITE).find(f"{SITE}/old").checked_at is None


async def test_rules_from_before_there_were_fences_are_fenced_at_the_next_change(hub, mesh):
    mesh.put_object(hub.store, SITE, WRITERS)
    signed = mesh.record(RULES, mesh.plain(WRITERS), hub.device(SITE))
    from syftmesh_core.path import parse_path

    hub.bus._store(subject_of(parse_path(RULES)), entry_message(RULES, signed, None), "")
    await hub.log.wait_for(1, 5)
    assert hub.log.site(SITE).fence == 0
    _, outcome = await hub.write(f"{SITE}/in/x", b"1", who=BOB)
    assert outcome.status is Status.OK
    hub.bus.race = policy_change(hub, mesh, RULES, NOBODY, signed)
    _, refused = await hub.write(f"{SITE}/in/y", b"2", who=BOB)
    assert (refused.status, refused.reason) == (Status.DENIED, "PERMISSION_DENIED")


async def test_five_hundred_files_of_another_are_written_in_batches_that_the_bus_takes(hub, mesh):
    await hub.write(RULES, WRITERS)
    await hub.put(BOB, SITE, b"same")
    records = [mesh.record(f"{SITE}/in/{n:03}", mesh.sealed(b"same"), hub.device(BOB)) for n in range(500)]
    sizes = []
    publish = hub.bus.publish_batch

    async def measured(batch, *, operation_id=""):
        sizes.append(len(batch))
        return await publish(batch, operation_id=operation_id)

    hub.bus.publish_batch = measured
    outcomes = await hub.commit(BOB, *records)
    assert {o.status for o in outcomes} == {Status.OK}
    assert sizes == [500, 2]
    assert len({o.sequence for o in outcomes}) == 500


async def test_a_lost_acknowledgement_of_a_policy_change_is_found_when_sent_again(hub, mesh):
    await hub.put(SITE, SITE, WRITERS)
    signed = mesh.record(RULES, mesh.plain(WRITERS), hub.device(SITE))
    hub.bus.lose_next_ack = True
    with pytest.raises(Unavailable):
        await hub.commit(SITE, signed)
    (outcome,) = await hub.commit(SITE, signed)
    assert outcome.status is Status.OK
    assert sum(m.subject.startswith("files.") for m in hub.bus.messages) == 2


async def test_a_reader_is_answered_only_with_the_newest_policy_and_the_owner_always(hub, mesh):
    from syftmesh_sync.adapters.freshness import Freshness

    rules, _ = await hub.write(RULES, WRITERS)
    asked = []

    class Bus:
        async def last_message(self, name, *, stream=""):
            asked.append((name, stream))
            return await hub.bus.last_message(name)

    waited, here = [], hub.log.position.sequence

    async def wait_for(sequence: int, timeout_s: float) -> bool:
        waited.append(sequence)
        return sequence <= here

    fresh = Freshness(Bus(), hub.log)
    hub.log.wait_for = wait_for
    await fresh.require(SITE, [SITE])
    assert asked == []
    await fresh.require(BOB, [SITE, SITE, BOB])
    assert (asked, waited) == ([(fence_subject(SITE), "FILES")], [hub.log.site(SITE).fence])
    for out in policy_change(hub, mesh, RULES, NOBODY, rules):  # appended elsewhere, and not seen here yet
        hub.bus._store(out.subject, out.payload, "other")
    with pytest.raises(Unavailable) as behind:
        await fresh.require(BOB, [SITE])
    assert behind.value.reason == "LOG_BEHIND"
    await fresh.require(SITE, [SITE])
