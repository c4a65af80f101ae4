from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

import httpx
import pytest
from mesh.sync.v1 import sync_pb2
from syftmesh_client.file_view import ChangeKind
from syftmesh_client.files import FileClient
from syftmesh_client.revision import RevisionMemory
from syftmesh_client.traffic import TrafficKind
from syftmesh_core.errors import (
    Conflict,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from syftmesh_core.sealed import peek

SITE, BOB, EVE = "alice@site.example", "bob@x.example", "eve@evil.example"
FOR_BOB = b"rules: [{pattern: '**', access: {read: [bob@x.example]}}]\n"


async def failed(awaitable, kind) -> str:
    with pytest.raises(kind) as error:
        await awaitable
    return error.value.reason


def stored(desk, path: str) -> bytes:
    entry = desk.hub.log.site(SITE).live(path)
    return desk.hub.store.objects[f"packs/{_token(SITE)}/{entry.object_id}"]


def _token(text: str) -> str:
    from syftmesh_core.text import safe_token

    return safe_token(text)


async def test_a_reader_named_by_the_rules_reads_what_the_hub_cannot(desks):
    await desks["alice"].files.write(f"{SITE}/for/syft.pub.yaml", FOR_BOB)
    record = await desks["alice"].files.write(f"{SITE}/for/secret.txt", b"the secret words")
    found = await desks["bob"].files.read(f"{SITE}/for/secret.txt")
    assert (found.data, found.author, found.record.revision) == (b"the secret words", SITE, record.revision)
    blob = stored(desks["alice"], f"{SITE}/for/secret.txt")
    assert b"secret words" not in blob
    assert {principal for principal, _ in peek(blob).readers} == {SITE, BOB}


async def test_the_devices_of_one_owner_read_each_others_files(desks):
    await desks["runner"].files.write(f"{SITE}/app_data/rds/results/x/status.json", b"{}")
    assert (await desks["alice"].files.read(f"{SITE}/app_data/rds/results/x/status.json")).data == b"{}"


async def test_who_may_not_read_sees_nothing(desks):
    await desks["alice"].files.write(f"{SITE}/own.txt", b"x")
    assert await failed(desks["eve"].files.read(f"{SITE}/own.txt"), NotFound) == "FILE_MISSING"
    assert await desks["eve"].files.stat(f"{SITE}/own.txt") is None
    assert await desks["eve"].files.list(SITE) == []


async def test_what_everyone_may_read_goes_up_plain(desks, mesh):
    await desks["alice"].files.write(f"{SITE}/public/syft.pub.yaml", mesh.PUBLIC)
    await desks["alice"].files.write(f"{SITE}/public/page.html", b"<p>hello")
    assert stored(desks["alice"], f"{SITE}/public/page.html") == b"<p>hello"
    found = await desks["eve"].files.read(f"{SITE}/public/page.html")
    assert (found.data, found.content.sealed) == (b"<p>hello", False)


async def test_rules_written_with_the_files_bind_them(desks, mesh):
    files = {f"{SITE}/p/a": b"open", f"{SITE}/p/syft.pub.yaml": mesh.PUBLIC, f"{SITE}/q": b"shut"}
    records = await desks["alice"].files.write_many(files)
    assert [f"{r.site}/{r.path}" for r in records] == list(files)
    assert stored(desks["alice"], f"{SITE}/p/a") == b"open"
    assert stored(desks["alice"], f"{SITE}/q") != b"shut"


async def test_empty_and_large_files_come_back_as_they_were(desks):
    big = bytes(range(256)) * 4096 * 16
    for name, data in (("empty", b""), ("big", big)):
        await desks["alice"].files.write(f"{SITE}/{name}", data)
        assert (await desks["alice"].files.read(f"{SITE}/{name}")).data == data
    reason = await failed(desks["alice"].files.write(f"{SITE}/huge", big + b"1"), LimitExceeded)
    assert reason == "FILE_TOO_LARGE"


async def test_readers_that_are_no_closed_set_are_refused_before_anything_is_sent(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/u/syft.pub.yaml", b"rules: [{pattern: '**', access: {read: [USER]}}]\n")
    sent = len(alice.requests)
    assert await failed(alice.files.write(f"{SITE}/u/x", b"x"), Unimplemented) == "OPEN_READERS"
    assert len([r for r in alice.requests[sent:] if r.method == "PUT"]) == 0


async def test_a_reader_without_devices_is_served_by_resealing(desks, hub, mesh):
    dave = "dave@x.example"
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/d/syft.pub.yaml", FOR_BOB.replace(b"bob@", b"dave@"))
    first = await alice.files.write(f"{SITE}/d/x", b"for dave")
    hub.people[dave] = mesh.Person.create(dave)
    second = await alice.files.reseal(f"{SITE}/d/x")
    assert second.revision == first.revision + 1
    assert dave in {principal for principal, _ in peek(stored(alice, f"{SITE}/d/x")).readers}
    assert (await alice.files.read(f"{SITE}/d/x")).data == b"for dave"


async def test_a_write_replaces_what_is_there_and_an_expectation_holds_it_back(desks):
    alice, runner = desks["alice"].files, desks["runner"].files
    await alice.write(f"{SITE}/a", b"1", expected_revision=0)
    await runner.write(f"{SITE}/a", b"2")
    assert await failed(alice.write(f"{SITE}/a", b"3", expected_revision=1), Conflict) == "STALE_PREVIOUS"
    assert await failed(alice.write(f"{SITE}/a", b"3", expected_revision=0), Conflict) == "STALE_PREVIOUS"
    assert (await alice.write(f"{SITE}/a", b"3", expected_revision=2)).revision == 3


async def test_a_lost_race_is_run_again_without_an_expectation_only(desks):
    alice, runner = desks["alice"], desks["runner"]
    await alice.files.write(f"{SITE}/a", b"1")
    racing = {"left": 1}

    async def race() -> None:
        if racing["left"]:
            racing["left"] -= 1
            await runner.files.write(f"{SITE}/a", b"raced")

    commit = alice.stub._servicer.CommitFiles

    async def late(request, context):
        await race()
        from syftmesh_kit.caller import bind_caller

        bind_caller(alice.stub._caller)
        return await commit(request, context)

    alice.stub._servicer.CommitFiles = late
    record = await alice.files.write(f"{SITE}/a", b"2")
    assert record.revision == 3
    assert (await alice.files.read(f"{SITE}/a")).data == b"2"
    racing["left"] = 1
    assert (
        await failed(alice.files.write(f"{SITE}/a", b"4", expected_revision=3), Conflict) == "STALE_PREVIOUS"
    )


async def test_a_deleted_path_can_be_written_again(desks):
    alice = desks["alice"].files
    await alice.write(f"{SITE}/a", b"1")
    tombstone = await alice.delete(f"{SITE}/a")
    assert (tombstone.deleted, tombstone.revision) == (True, 2)
    assert await failed(alice.delete(f"{SITE}/a"), NotFound) == "FILE_MISSING"
    assert (await alice.write(f"{SITE}/a", b"2", expected_revision=0)).revision == 3
    assert (await alice.read(f"{SITE}/a")).data == b"2"


async def test_rights_are_the_hubs_to_refuse_and_come_as_typed_errors(desks):
    await desks["alice"].files.write(f"{SITE}/for/syft.pub.yaml", FOR_BOB)
    assert (
        await failed(desks["bob"].files.write(f"{SITE}/for/x", b"x"), PermissionDenied) == "PERMISSION_DENIED"
    )
    reason = await failed(desks["runner"].files.write(f"{SITE}/syft.pub.yaml", FOR_BOB), PermissionDenied)
    assert reason == "ADMIN_DEVICE_REQUIRED"
    assert (
        await failed(desks["alice"].files.write(f"{SITE}/app_data/x/rpc/y", b"x"), InvalidInput)
        == "RPC_DIRECTORY"
    )


async def test_a_malformed_rule_file_is_refused_at_once_with_its_line(desks):
    with pytest.raises(InvalidInput) as refused:
        await desks["alice"].files.write(f"{SITE}/syft.pub.yaml", b"rules:\n  - pattern: 1\n")
    assert (refused.value.reason, refused.value.metadata["line"]) == ("RULES_INVALID", "2")
    assert "CommitFiles" not in desks["alice"].stub.calls


async def test_listing_says_what_records_say(desks, mesh):
    await desks["alice"].files.write(f"{SITE}/p/syft.pub.yaml", mesh.PUBLIC)
    await desks["alice"].files.write(f"{SITE}/p/a", b"12345")
    await desks["alice"].files.write(f"{SITE}/b", b"1")
    views = await desks["alice"].files.list(f"{SITE}/")
    assert [v.path for v in views] == [f"{SITE}/b", f"{SITE}/p/a", f"{SITE}/p/syft.pub.yaml"]
    assert [v.size_bytes for v in views][:2] == [None, 5]
    assert [v.sealed for v in views][:2] == [True, False]
    assert all(v.unverified == "" and v.author == SITE for v in views)


async def test_others_may_write_where_the_rules_say_and_readers_accept_it(desks):
    await desks["alice"].files.write(
        f"{SITE}/in/syft.pub.yaml", b"rules: [{pattern: '**', access: {write: [bob@x.example]}}]\n"
    )
    await desks["bob"].files.write(f"{SITE}/in/x", b"from bob")
    found = await desks["alice"].files.read(f"{SITE}/in/x")
    assert (found.data, found.author) == (b"from bob", BOB)


# What a hostile hub or store could try.


async def test_a_file_of_an_author_without_right_is_refused(desks, hub, mesh):
    await desks["alice"].files.write(f"{SITE}/for/syft.pub.yaml", FOR_BOB)
    planted = mesh.record(f"{SITE}/for/x", mesh.plain(b"evil"), hub.device(EVE))
    mesh.put_object(hub.store, SITE, b"evil")
    record = sync_pb2.SignedRecord(
        record=planted.record, content=planted.content, signature=planted.signature
    )
    hub.bus._store(mesh.subject.files(SITE, "0" * 32), sync_pb2.FileEntry(record=record), "")
    await hub.log.wait_for(3, 5)
    assert await failed(desks["bob"].files.read(f"{SITE}/for/x"), IntegrityFailure) == "AUTHOR_NOT_ALLOWED"


async def test_a_record_of_another_path_is_refused(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    await alice.files.write(f"{SITE}/b", b"2")
    entry = (await alice.files._hub.download_target(_path(f"{SITE}/b"))).entry

    def swap(answer):
        answer.targets[0].entry.CopyFrom(entry)
        answer.targets[0].entry.path = f"{SITE}/a"
        return answer

    alice.stub.tamper["OpenDownload"] = swap
    assert await failed(alice.files.read(f"{SITE}/a"), IntegrityFailure) == "RECORD_INVALID"


def _path(text: str):
    from syftmesh_core.path import parse_path

    return parse_path(text)


async def test_a_changed_record_is_refused(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")

    def flip(answer):
        signature = bytearray(answer.targets[0].entry.record.signature)
        signature[3] ^= 1
        answer.targets[0].entry.record.signature = bytes(signature)
        return answer

    alice.stub.tamper["OpenDownload"] = flip
    assert await failed(alice.files.read(f"{SITE}/a"), IntegrityFailure) == "RECORD_INVALID"


async def test_an_old_revision_is_refused_also_after_a_restart(desks, tmp_path):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    old = await alice.files._hub.download_target(_path(f"{SITE}/a"))
    await alice.files.write(f"{SITE}/a", b"2")
    fresh = FileClient(
        type("S", (), {"sync": alice.stub})(),
        alice.directory,
        alice.keystore,
        alice.hub.clock,
        __import__("secrets").token_bytes,
        alice.http,
        memory=RevisionMemory(tmp_path / "alice"),
    )

    def roll_back(answer):
        answer.targets[0].CopyFrom(old)
        return answer

    alice.stub.tamper["OpenDownload"] = roll_back
    assert await failed(fresh.read(f"{SITE}/a"), IntegrityFailure) == "FILE_ROLLBACK"
    fresh._verifier._memory.close()


async def test_two_versions_of_one_revision_are_noticed(desks, hub, mesh):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    other = mesh.record(f"{SITE}/a", mesh.sealed(b"other"), hub.device(SITE))

    def fork(answer):
        record = answer.targets[0].entry.record
        record.record, record.content, record.signature = other.record, other.content, other.signature
        return answer

    alice.stub.tamper["OpenDownload"] = fork
    assert await failed(alice.files.read(f"{SITE}/a"), IntegrityFailure) == "FILE_FORKED"


async def test_content_that_was_sealed_for_another_revision_is_refused(desks, hub, mesh):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    first = hub.log.site(SITE).live(f"{SITE}/a")
    again = mesh.record(f"{SITE}/a", first.content, hub.device(SITE), replaces=first.signed)
    (outcome,) = await hub.commit(SITE, again, operation="00000000-0000-0000-0000-000000000009")
    assert outcome.status.value == "ok"
    assert await failed(alice.files.read(f"{SITE}/a"), IntegrityFailure) == "SEAL_INVALID"


async def test_a_removed_device_is_believed_no_more_and_its_files_can_be_replaced(desks, hub):
    await desks["runner"].files.write(f"{SITE}/a", b"1")
    desks["alice"].directory.removed.add(desks["runner"].keystore.device.device_id)
    reason = await failed(desks["alice"].files.read(f"{SITE}/a"), IntegrityFailure)
    assert reason == "RECORD_SIGNER_UNKNOWN"
    (view,) = await desks["alice"].files.list(SITE)
    assert view.unverified == "RECORD_SIGNER_UNKNOWN"
    assert (await desks["alice"].files.write(f"{SITE}/a", b"2")).revision == 2
    assert (await desks["alice"].files.read(f"{SITE}/a")).data == b"2"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\0" + b[1:], lambda b: b""]
)
async def test_other_bytes_from_the_store_are_refused(desks, damage):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    honest = alice.answer
    alice.answer = lambda r: httpx.Response(200, content=damage(honest(r).content))
    assert await failed(alice.files.read(f"{SITE}/a"), IntegrityFailure) == "OBJECT_DAMAGED"


async def test_a_store_that_fails_for_a_moment_is_asked_again(desks):
    alice = desks["alice"]
    honest, failures = alice.answer, [503, 500]

    def sometimes(request):
        return httpx.Response(failures.pop()) if failures else honest(request)

    alice.answer = sometimes
    await alice.files.write(f"{SITE}/a", b"1")
    failures += [503]

    def broken(request):
        if failures:
            failures.pop()
            raise httpx.ReadError("", request=request)
        return honest(request)

    alice.answer = broken
    assert (await alice.files.read(f"{SITE}/a")).data == b"1"
    alice.answer = lambda r: httpx.Response(503)
    assert await failed(alice.files.read(f"{SITE}/a"), Unavailable) == "OBJECT_STORE_AWAY"


async def test_urls_that_ended_are_asked_for_anew(desks):
    alice = desks["alice"]
    honest, ended = alice.answer, [1]

    def late(request):
        return httpx.Response(403) if ended and ended.pop() else honest(request)

    alice.answer = late
    await alice.files.write(f"{SITE}/a", b"1")
    ended.append(1)
    assert (await alice.files.read(f"{SITE}/a")).data == b"1"
    assert alice.stub.calls.count("OpenUpload") == 2


async def test_a_hub_that_withholds_rules_cannot_bring_a_file_into_the_open(desks, mesh):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/p/syft.pub.yaml", mesh.PUBLIC)
    await alice.files.write(f"{SITE}/p/shut/syft.pub.yaml", b"rules: []\n")

    def withhold(answer):
        for target in answer.targets:
            if target.path.endswith("shut/syft.pub.yaml"):
                target.ClearField("entry")
        return answer

    alice.stub.tamper["OpenDownload"] = withhold
    reason = await failed(alice.files.write(f"{SITE}/p/shut/x", b"secret"), IntegrityFailure)
    assert reason == "RULES_WITHHELD"
    assert b"secret" not in b"".join(alice.hub.store.objects.values())


async def test_rules_that_no_admin_device_signed_are_not_used(desks, hub, mesh):
    runner = hub.people[SITE].devices[1]
    forged = mesh.record(f"{SITE}/p/syft.pub.yaml", mesh.plain(mesh.PUBLIC), runner)
    mesh.put_object(hub.store, SITE, mesh.PUBLIC)
    record = sync_pb2.SignedRecord(record=forged.record, content=forged.content, signature=forged.signature)
    hub.bus._store(mesh.subject.files(SITE, "0" * 32), sync_pb2.FileEntry(record=record), "")
    await hub.log.wait_for(1, 5)
    reason = await failed(desks["alice"].files.write(f"{SITE}/p/x", b"secret"), IntegrityFailure)
    assert reason == "RULES_UNTRUSTED"
    assert len(hub.store.objects) == 1


async def test_a_url_that_is_no_web_address_is_not_followed(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")

    def file_url(answer):
        answer.targets[0].url = "file:///etc/passwd"
        return answer

    alice.stub.tamper["OpenDownload"] = file_url
    assert await failed(alice.files.read(f"{SITE}/a"), IntegrityFailure) == "URL_REFUSED"


async def test_only_headers_of_an_upload_are_passed_on(desks):
    alice = desks["alice"]

    def inject(answer):
        answer.targets[0].headers["Authorization"] = "Bearer x"
        answer.targets[0].headers["Host"] = "evil.example"
        return answer

    alice.stub.tamper["OpenUpload"] = inject
    await alice.files.write(f"{SITE}/a", b"1")
    sent = alice.requests[-1].headers
    assert "authorization" not in sent
    assert sent["host"] == "store.example"
    assert sent["if-none-match"] == "*"


async def test_an_answer_of_another_form_is_refused(desks):
    alice = desks["alice"]

    def drop(answer):
        del answer.results[:]
        return answer

    alice.stub.tamper["CommitFiles"] = drop
    assert await failed(alice.files.write(f"{SITE}/a", b"1"), IntegrityFailure) == "ANSWER_INVALID"


async def test_watching_tells_of_files_changes_and_deletions(desks):
    alice = desks["alice"].files
    await alice.write(f"{SITE}/a", b"1")
    async with aclosing(alice.watch([SITE])) as feed:
        first, caught = await anext(feed), await anext(feed)
        assert (first.kind, first.path, first.entry.revision) == (ChangeKind.UPDATED, f"{SITE}/a", 1)
        assert caught.kind is ChangeKind.CAUGHT_UP
        await desks["runner"].files.delete(f"{SITE}/a")
        gone = await anext(feed)
        assert (gone.kind, gone.path) == (ChangeKind.DELETED, f"{SITE}/a")
        caught = await anext(feed)
    async with aclosing(alice.watch([SITE], caught.cursor)) as feed:
        assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP


async def test_a_deletion_without_a_tombstone_is_not_told(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")

    def lie(answer):
        for change in answer.changes:
            change.kind = sync_pb2.CHANGE_KIND_DELETED
        return answer

    alice.stub.tamper["WatchChanges"] = lie
    async with aclosing(alice.files.watch([SITE])) as feed:
        assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP


async def test_watching_goes_on_behind_the_cursor_when_the_hub_was_away(desks, monkeypatch):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    real, cursors = alice.stub._servicer.WatchChanges, []

    async def breaking(request, context):
        cursors.append(request.cursor.sequence)
        async for answer in real(request, context):
            yield answer
            if len(cursors) == 1:
                raise Unavailable("", reason="HUB_AWAY")

    alice.stub._servicer.WatchChanges = breaking
    pauses = []
    real_sleep = asyncio.sleep

    async def sleep(seconds):
        pauses.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr("syftmesh_client.files.asyncio.sleep", sleep)
    async with aclosing(alice.files.watch([SITE])) as feed:
        assert (await anext(feed)).kind is ChangeKind.UPDATED
        assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP
        assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP
    assert cursors == [0, 1]
    assert pauses == [0.1]


async def test_bytes_are_counted_by_kind(desks):
    alice = desks["alice"]
    await alice.files.write(f"{SITE}/a", b"1")
    size = len(stored(alice, f"{SITE}/a"))
    assert alice.files.traffic.sent[TrafficKind.OBJECT] == size
    assert alice.files.traffic.sent[TrafficKind.MESSAGE] > 0
    await alice.files.read(f"{SITE}/a")
    assert alice.files.traffic.received[TrafficKind.OBJECT] == size
    assert alice.files.traffic.sent_bytes == sum(alice.files.traffic.sent.values())


async def test_uploads_run_four_at_a_time(desks, hub):
    alice = desks["alice"]
    running, most = 0, 0

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            body = await request.aread()
            for _ in range(5):
                await asyncio.sleep(0)
            running -= 1
            status, answer = hub.store.do(request.method, str(request.url), body)
            return httpx.Response(status, content=answer)

    alice.files._transfer._http = httpx.AsyncClient(transport=Slow(), trust_env=False)
    await alice.files.write_many({f"{SITE}/{n}": str(n).encode() for n in range(20)})
    assert most == 4
    await alice.files._transfer._http.aclose()


async def test_a_long_path_can_be_sealed(desks):
    path = SITE + "/" + "/".join(["d" * 120] * 7) + "/x"
    await desks["alice"].files.write(path, b"deep")
    assert (await desks["alice"].files.read(path)).data == b"deep"


async def test_a_malformed_path_is_refused_before_the_hub_is_asked(desks):
    for path in ("", "x", f"{SITE}/../y", f"{SITE}/a/"):
        with pytest.raises(InvalidInput):
            await desks["alice"].files.read(path)
    with pytest.raises(InvalidInput):
        await desks["alice"].files.write(f"{SITE}/Syft.Pub.Yaml", b"")
    assert desks["alice"].stub.calls == []


async def test_a_digest_of_the_object_is_what_the_record_names(desks):
    await desks["alice"].files.write(f"{SITE}/a", b"1")
    entry = desks["hub"] if "hub" in desks else desks["alice"].hub.log.site(SITE).live(f"{SITE}/a")
    assert hashlib.sha256(stored(desks["alice"], f"{SITE}/a")).hexdigest() == entry.object_id
