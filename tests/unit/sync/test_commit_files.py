from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest
from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied, Unavailable
from syftmesh_core.record import SignedRecord
from syftmesh_kit.filelog import entry_message, subject_of
from syftmesh_kit.message import Outgoing
from syftmesh_sync.domain.commit import Status
from syftmesh_sync.domain.upload import MAX_OBJECT_BYTES

SITE = "alice@site.example"
BOB = "bob@x.example"
EVE = "eve@evil.example"


def reason(outcome) -> tuple[Status, str]:
    return outcome.status, outcome.reason


async def test_a_file_of_the_owner_is_committed_and_visible_at_once(hub):
    _, outcome = await hub.write(f"{SITE}/a/data.csv", b"ciphertext")
    assert outcome.status is Status.OK
    assert outcome.sequence == 1
    assert [e.text for e in hub.query.stat(SITE, [f"{SITE}/a/data.csv"])] == [f"{SITE}/a/data.csv"]


async def test_the_same_commit_again_is_one_commit(hub):
    signed, first = await hub.write(f"{SITE}/a.csv", b"x")
    (again,) = await hub.commit(SITE, signed, operation=str(uuid.uuid4()))
    assert (again.status, again.sequence) == (Status.OK, first.sequence)
    assert sum(m.subject.startswith("files.") for m in hub.bus.messages) == 1


async def test_a_commit_whose_acknowledgement_was_lost_is_found_when_sent_again(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/a.csv", mesh.sealed(b"x"), hub.device(SITE))
    hub.bus.lose_next_ack = True
    with pytest.raises(Unavailable):
        await hub.commit(SITE, signed)
    (outcome,) = await hub.commit(SITE, signed)
    assert outcome.status is Status.OK
    assert sum(m.subject.startswith("files.") for m in hub.bus.messages) == 1


@pytest.mark.parametrize(
    "path",
    ["a//b", "a/../b", "a/b/", "a\\b", "a/\u200bb", "x/" * 300 + "y", "a/SYFT.pub.yaml", "a/syft.pub.yaml."],
)
async def test_a_malformed_path_is_invalid(hub, mesh, path):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/{path}", mesh.sealed(b"x"), hub.device(SITE))
    (outcome,) = await hub.commit(SITE, signed)
    assert reason(outcome) == (Status.INVALID, "PATH_INVALID")


async def test_a_path_that_is_not_canonical_is_invalid(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE), site="Alice@site.example")
    (outcome,) = await hub.commit(SITE, signed)
    assert reason(outcome) == (Status.INVALID, "PATH_INVALID")


async def test_a_record_of_somebody_else_is_refused(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE))
    (outcome,) = await hub.commit(EVE, signed, operation=str(uuid.uuid4()))
    assert reason(outcome) == (Status.DENIED, "AUTHOR_MISMATCH")


async def test_a_record_of_another_device_of_the_caller_is_refused(hub, mesh):
    other = hub.people[SITE].devices[1]
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), other)
    (outcome,) = await hub.commit(SITE, signed)
    assert reason(outcome) == (Status.DENIED, "AUTHOR_MISMATCH")


async def test_a_wrong_signature_is_invalid(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE))
    forged = replace(signed, signature=bytes([signed.signature[0] ^ 1]) + signed.signature[1:])
    (outcome,) = await hub.commit(SITE, forged)
    assert reason(outcome) == (Status.INVALID, "RECORD_INVALID")


async def test_the_content_header_cannot_be_swapped_under_a_signature(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE))
    other = mesh.record(f"{SITE}/a", mesh.sealed(b"y"), hub.device(SITE))
    (outcome,) = await hub.commit(SITE, replace(signed, content=other.content))
    assert reason(outcome) == (Status.INVALID, "RECORD_INVALID")


@pytest.mark.parametrize("junk", [b"", b"\0" * 40, b"SyftMesh/v1/record\0"])
async def test_bytes_that_are_no_record_are_invalid(hub, junk):
    (outcome,) = await hub.commit(SITE, SignedRecord(junk, b"", b"\0" * 64))
    assert reason(outcome) == (Status.INVALID, "RECORD_INVALID")


async def test_a_device_that_was_removed_signs_nothing_more(hub, mesh):
    person = hub.people[SITE]
    gone = person.devices[1]
    _, before = await hub.write(f"{SITE}/a", b"x", device=gone)
    person.remove(gone)
    mesh.publish_devices(hub.bus, person)
    _, after = await hub.write(f"{SITE}/b", b"y", device=gone)
    assert before.status is Status.OK
    assert reason(after) == (Status.DENIED, "DEVICE_UNKNOWN")


async def test_a_forged_device_list_in_the_key_log_is_not_believed(hub, mesh):
    mallory = mesh.Person.create(SITE, admins=3)
    mallory.root = mesh.AccountRoot(b"m" * 32)
    mallory.chain = [mesh.sign_first_list(SITE, mallory.publics()[2:], mallory.root)]
    mesh.publish_devices(hub.bus, mallory)
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), mallory.devices[2])
    (outcome,) = await hub.commit(SITE, signed, device=mallory.devices[2])
    assert reason(outcome) == (Status.DENIED, "DEVICE_UNKNOWN")


async def test_an_old_record_cannot_be_replayed(hub):
    first, _ = await hub.write(f"{SITE}/a", b"1")
    second, _ = await hub.write(f"{SITE}/a", b"2", replaces=first)
    (outcome,) = await hub.commit(SITE, first)
    assert reason(outcome) == (Status.CONFLICT, "STALE_PREVIOUS")
    assert outcome.current.signed == second


async def test_a_stale_previous_digest_is_a_conflict_that_shows_what_is_there(hub, mesh):
    first, _ = await hub.write(f"{SITE}/a", b"1")
    await hub.put(SITE, SITE, b"2")
    stale = mesh.record(
        f"{SITE}/a", mesh.sealed(b"2"), hub.device(SITE), replaces=first, previous_digest=b"\1" * 32
    )
    (outcome,) = await hub.commit(SITE, stale)
    assert reason(outcome) == (Status.CONFLICT, "STALE_PREVIOUS")
    assert outcome.current.revision == 1


async def test_of_two_committers_exactly_one_wins(hub, mesh):
    first, _ = await hub.write(f"{SITE}/a", b"1")
    records = []
    for data in (b"left", b"right"):
        await hub.put(SITE, SITE, data)
        records.append(mesh.record(f"{SITE}/a", mesh.sealed(data), hub.device(SITE), replaces=first))
    results = await asyncio.gather(*(hub.commit(SITE, signed) for signed in records))
    assert sorted(r[0].status.value for r in results) == ["conflict", "ok"]


async def test_a_commit_that_loses_against_another_replica_is_a_conflict(hub, mesh):
    path = f"{SITE}/a"
    await hub.put(SITE, SITE, b"mine")
    theirs = mesh.record(path, mesh.sealed(b"theirs"), hub.device(SITE))
    hub.bus.race = [Outgoing(subject_of(mesh_path(path)), entry_message(path, theirs, None))]
    (outcome,) = await hub.commit(SITE, mesh.record(path, mesh.sealed(b"mine"), hub.device(SITE)))
    assert reason(outcome) == (Status.CONFLICT, "STALE_PREVIOUS")
    assert outcome.current.signed == theirs


async def test_a_batch_of_which_one_lost_a_race_keeps_the_others(hub, mesh):
    paths = [f"{SITE}/{name}" for name in "abc"]
    records = []
    for path in paths:
        await hub.put(SITE, SITE, path.encode())
        records.append(mesh.record(path, mesh.sealed(path.encode()), hub.device(SITE)))
    theirs = mesh.record(paths[1], mesh.sealed(b"t"), hub.device(SITE))
    hub.bus.race = [Outgoing(subject_of(mesh_path(paths[1])), entry_message(paths[1], theirs, None))]
    outcomes = await hub.commit(SITE, *records)
    assert [o.status for o in outcomes] == [Status.OK, Status.CONFLICT, Status.OK]


async def test_many_files_are_one_atomic_batch(hub, mesh):
    records = []
    for number in range(20):
        data = f"{number}".encode()
        await hub.put(SITE, SITE, data)
        records.append(mesh.record(f"{SITE}/f{number:02}", mesh.sealed(data), hub.device(SITE)))
    outcomes = await hub.commit(SITE, *records)
    assert [o.sequence for o in outcomes] == list(range(1, 21))
    assert hub.bus.batches == 1


async def test_an_object_that_was_not_put_is_missing(hub, mesh):
    (outcome,) = await hub.commit(SITE, mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE)))
    assert reason(outcome) == (Status.INVALID, "OBJECT_MISSING")


async def test_an_object_of_another_size_is_missing(hub, mesh):
    await hub.put(SITE, SITE, b"four")
    content = replace(mesh.sealed(b"four"), stored_size_bytes=5)
    (outcome,) = await hub.commit(SITE, mesh.record(f"{SITE}/a", content, hub.device(SITE)))
    assert reason(outcome) == (Status.INVALID, "OBJECT_MISSING")


async def test_a_file_above_the_limit_is_refused(hub, mesh):
    content = replace(mesh.sealed(b"x"), stored_size_bytes=MAX_OBJECT_BYTES + 1)
    (outcome,) = await hub.commit(SITE, mesh.record(f"{SITE}/a", content, hub.device(SITE)))
    assert reason(outcome) == (Status.DENIED, "FILE_TOO_LARGE")


async def test_plain_content_where_not_everyone_may_read_is_refused(hub):
    await hub.write(f"{SITE}/syft.pub.yaml", b"rules: [{pattern: '**', access: {read: [USER]}}]\n")
    _, outcome = await hub.write(f"{SITE}/a.csv", b"secret", kind="plain")
    assert reason(outcome) == (Status.INVALID, "PLAIN_NOT_ALLOWED")


async def test_plain_content_where_everyone_may_read_is_committed(hub, mesh):
    await hub.write(f"{SITE}/public/syft.pub.yaml", mesh.PUBLIC)
    _, outcome = await hub.write(f"{SITE}/public/a.csv", b"open", kind="plain")
    assert outcome.status is Status.OK


async def test_one_batch_may_bring_the_rules_and_the_files_they_open(hub, mesh):
    for data in (mesh.PUBLIC, b"open"):
        await hub.put(SITE, SITE, data)
    outcomes = await hub.commit(
        SITE,
        mesh.record(f"{SITE}/public/syft.pub.yaml", mesh.plain(mesh.PUBLIC), hub.device(SITE)),
        mesh.record(f"{SITE}/public/a.csv", mesh.plain(b"open"), hub.device(SITE)),
    )
    assert [o.status for o in outcomes] == [Status.OK, Status.OK]


async def test_a_refused_rule_file_says_the_line_and_leaves_the_old_rules(hub, mesh):
    path = f"{SITE}/public/syft.pub.yaml"
    first, _ = await hub.write(path, mesh.PUBLIC)
    bad = b"rules:\n  - pattern: '**'\n    access: {read: everyone}\n"
    _, outcome = await hub.write(path, bad, replaces=first)
    assert reason(outcome) == (Status.INVALID, "RULES_INVALID")
    assert "line 3" in outcome.message
    _, open_file = await hub.write(f"{SITE}/public/a.csv", b"open", kind="plain")
    assert open_file.status is Status.OK


async def test_a_sealed_rule_file_is_refused(hub):
    _, outcome = await hub.write(f"{SITE}/syft.pub.yaml", b"rules: []\n", kind="sealed")
    assert reason(outcome) == (Status.INVALID, "RULES_INVALID")


async def test_rules_need_an_admin_device(hub, mesh):
    runner = hub.people[SITE].devices[1]
    _, outcome = await hub.write(f"{SITE}/syft.pub.yaml", mesh.PUBLIC, device=runner)
    assert reason(outcome) == (Status.DENIED, "ADMIN_DEVICE_REQUIRED")
    _, other = await hub.write(f"{SITE}/app_data/rds/results/a", b"x", device=runner)
    assert other.status is Status.OK


async def test_an_app_directory_of_calls_takes_rule_files_only(hub, mesh):
    _, rules = await hub.write(f"{SITE}/app_data/rds/rpc/syft.pub.yaml", mesh.PRIVATE)
    _, file = await hub.write(f"{SITE}/app_data/rds/rpc/submit/job", b"x")
    assert rules.status is Status.OK
    assert reason(file) == (Status.INVALID, "RPC_DIRECTORY")


async def test_a_file_cannot_lie_above_or_below_another(hub):
    await hub.write(f"{SITE}/a/b", b"1")
    _, above = await hub.write(f"{SITE}/a", b"2")
    _, below = await hub.write(f"{SITE}/a/b/c", b"3")
    assert reason(above) == reason(below) == (Status.CONFLICT, "PATH_COLLISION")


async def test_files_above_each_other_in_one_batch_collide(hub, mesh):
    for data in (b"1", b"2"):
        await hub.put(SITE, SITE, data)
    outcomes = await hub.commit(
        SITE,
        mesh.record(f"{SITE}/a/b", mesh.sealed(b"1"), hub.device(SITE)),
        mesh.record(f"{SITE}/a", mesh.sealed(b"2"), hub.device(SITE)),
    )
    assert [o.status for o in outcomes] == [Status.OK, Status.CONFLICT]


async def test_a_tombstone_frees_the_path_and_the_revision_goes_on(hub, mesh):
    first, _ = await hub.write(f"{SITE}/a", b"1")
    gone = mesh.record(f"{SITE}/a", None, hub.device(SITE), replaces=first)
    (deleted,) = await hub.commit(SITE, gone, only_tombstones=True)
    assert deleted.status is Status.OK
    assert hub.query.stat(SITE, [f"{SITE}/a"]) == []
    _, below = await hub.write(f"{SITE}/a/b", b"2")
    assert below.status is Status.OK
    twice = mesh.record(f"{SITE}/a", None, hub.device(SITE), replaces=gone)
    (again,) = await hub.commit(SITE, twice, only_tombstones=True)
    assert reason(again) == (Status.CONFLICT, "NOT_LIVE")


async def test_a_deleted_path_does_not_begin_again_at_revision_one(hub, mesh):
    first, _ = await hub.write(f"{SITE}/a", b"1")
    await hub.commit(SITE, mesh.record(f"{SITE}/a", None, hub.device(SITE), replaces=first))
    (replayed,) = await hub.commit(SITE, first)
    assert reason(replayed) == (Status.CONFLICT, "STALE_PREVIOUS")


async def test_a_file_is_no_tombstone(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE))
    (outcome,) = await hub.commit(SITE, signed, only_tombstones=True)
    assert reason(outcome) == (Status.INVALID, "RECORD_INVALID")


async def test_who_has_no_right_is_denied_and_learns_nothing(hub, mesh):
    signed, _ = await hub.write(f"{SITE}/a", b"x")
    await hub.write(f"{SITE}/drop/syft.pub.yaml", b"rules: [{pattern: '**', access: {create: [USER]}}]\n")
    await hub.put(EVE, SITE, b"evil")
    over = mesh.record(f"{SITE}/a", mesh.sealed(b"evil"), hub.device(EVE), replaces=signed)
    fresh = mesh.record(f"{SITE}/none", mesh.sealed(b"evil"), hub.device(EVE))
    outcomes = await hub.commit(EVE, over, fresh)
    assert [reason(o) for o in outcomes] == [(Status.DENIED, "PERMISSION_DENIED")] * 2
    assert [o.current for o in outcomes] == [None, None]


async def test_create_adds_and_does_not_change(hub, mesh):
    await hub.write(f"{SITE}/drop/syft.pub.yaml", b"rules: [{pattern: '**', access: {create: [USER]}}]\n")
    signed, added = await hub.write(f"{SITE}/drop/x", b"1", who=BOB)
    _, changed = await hub.write(f"{SITE}/drop/x", b"2", who=BOB, replaces=signed)
    (deleted,) = await hub.commit(BOB, mesh.record(f"{SITE}/drop/x", None, hub.device(BOB), replaces=signed))
    assert added.status is Status.OK
    assert reason(changed) == reason(deleted) == (Status.DENIED, "PERMISSION_DENIED")


async def test_rules_of_a_datasite_are_not_written_by_who_may_write_files(hub, mesh):
    await hub.write(f"{SITE}/w/syft.pub.yaml", b"rules: [{pattern: '**', access: {write: [USER]}}]\n")
    _, outcome = await hub.write(f"{SITE}/w/sub/syft.pub.yaml", mesh.PUBLIC, who=BOB)
    assert reason(outcome) == (Status.DENIED, "PERMISSION_DENIED")
    _, ignore = await hub.write(f"{SITE}/w/.syftignore", b"x", who=BOB)
    assert reason(ignore) == (Status.DENIED, "PERMISSION_DENIED")


async def test_limits_of_the_deciding_rule_hold_for_others_and_not_for_the_owner(hub, mesh):
    await hub.write(
        f"{SITE}/in/syft.pub.yaml",
        b"rules: [{pattern: '**', access: {write: [USER]}, limits: {maxFiles: 2, maxFileSize: 5}}]\n",
    )
    _, large = await hub.write(f"{SITE}/in/large", b"123456", who=BOB)
    assert reason(large) == (Status.DENIED, "LIMIT_EXCEEDED")
    records = []
    for number in range(3):
        await hub.put(BOB, SITE, str(number).encode())
        content = mesh.sealed(str(number).encode())
        records.append(mesh.record(f"{SITE}/in/{number}", content, hub.device(BOB)))
    outcomes = await hub.commit(BOB, *records)
    assert [o.status for o in outcomes] == [Status.OK, Status.OK, Status.DENIED]
    _, owner = await hub.write(f"{SITE}/in/own", b"123456789")
    assert owner.status is Status.OK


async def test_a_digest_proves_no_possession(hub, mesh):
    secret = b"ciphertext of alice"
    await hub.write(f"{SITE}/private/a", secret)
    await hub.write(f"{SITE}/drop/syft.pub.yaml", b"rules: [{pattern: '**', access: {write: [USER]}}]\n")
    from syftmesh_sync.domain.upload import ObjectSpec

    content = mesh.sealed(secret)
    operation = str(uuid.uuid4())
    spec = ObjectSpec(bytes.fromhex(content.object_id), len(secret))
    (target,) = await hub.upload.run(hub.caller(EVE), operation, SITE, [spec])
    assert target.grant is not None
    stolen = mesh.record(f"{SITE}/drop/mine", content, hub.device(EVE))
    (outcome,) = await hub.commit(EVE, stolen, operation=operation)
    assert reason(outcome) == (Status.INVALID, "OBJECT_MISSING")
    assert hub.store.do("PUT", target.grant.url, secret)[0] == 200
    (outcome,) = await hub.commit(EVE, stolen, operation=operation)
    assert outcome.status is Status.OK


async def test_content_that_the_caller_may_read_needs_no_upload(hub, mesh):
    await hub.write(f"{SITE}/a", b"x")
    copy = mesh.record(f"{SITE}/b", mesh.sealed(b"x"), hub.device(SITE))
    (outcome,) = await hub.commit(SITE, copy, operation=str(uuid.uuid4()))
    assert outcome.status is Status.OK


async def test_an_operation_belongs_to_the_device_that_began_it(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    other = hub.people[SITE].devices[1]
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), other)
    with pytest.raises(PermissionDenied):
        await hub.commit(SITE, signed, device=other)
    with pytest.raises(PermissionDenied):
        await hub.put(EVE, EVE, b"y")


async def test_malformed_requests_are_refused_whole(hub, mesh):
    with pytest.raises(InvalidInput) as malformed:
        await hub.commit(SITE, operation="not-a-uuid")
    assert malformed.value.reason == "OPERATION_INVALID"
    signed = mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE))
    with pytest.raises(LimitExceeded) as many:
        await hub.commit(SITE, *[signed] * 501)
    assert many.value.reason == "TOO_MANY_FILES"


async def test_a_store_that_is_away_fails_the_commit_as_unavailable(hub, mesh):
    await hub.put(SITE, SITE, b"x")
    hub.store.away = True
    with pytest.raises(Unavailable) as away:
        await hub.commit(SITE, mesh.record(f"{SITE}/a", mesh.sealed(b"x"), hub.device(SITE)))
    assert away.value.reason == "OBJECT_STORE_AWAY"


async def test_settings_are_the_owners(hub, mesh):
    await hub.write(f"{SITE}/syft.pub.yaml", b"rules: [{pattern: '**', access: {admin: [USER]}}]\n")
    _, outcome = await hub.write(f"{SITE}/settings.yaml", b"x", who=BOB)
    assert reason(outcome) == (Status.DENIED, "PERMISSION_DENIED")


def mesh_path(text: str):
    from syftmesh_core.path import parse_path

    return parse_path(text)


async def test_commits_at_once_pass_a_limit_no_more_than_one_after_the_other(hub, mesh):
    rules = b"rules: [{pattern: '**', access: {write: [USER]}, limits: {maxFiles: 1}}]\n"
    await hub.write(f"{SITE}/in/syft.pub.yaml", rules)
    records = []
    for name in "ab":
        await hub.put(BOB, SITE, name.encode())
        records.append(mesh.record(f"{SITE}/in/{name}", mesh.sealed(name.encode()), hub.device(BOB)))
    results = await asyncio.gather(*(hub.commit(BOB, signed) for signed in records))
    assert sorted(r[0].status.value for r in results) == ["denied", "ok"]


async def test_a_conflict_shows_nothing_to_who_may_not_read(hub, mesh):
    await hub.write(f"{SITE}/drop/syft.pub.yaml", b"rules: [{pattern: '**', access: {create: [USER]}}]\n")
    first, _ = await hub.write(f"{SITE}/drop/x", b"1")
    await hub.commit(SITE, mesh.record(f"{SITE}/drop/x", None, hub.device(SITE), replaces=first))
    _, outcome = await hub.write(f"{SITE}/drop/x", b"2", who=BOB)
    assert reason(outcome) == (Status.CONFLICT, "STALE_PREVIOUS")
    assert outcome.current is None
