"""The sync service on a real nats-server and a real S3 server, with the client's file client in front."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from file_mesh import ALICE, BOB, CLOCK, Hub, People, Servers, desk, hub, servers, session
from mesh.sync.v1 import sync_pb2
from mesh.sync.v1 import sync_service_pb2 as rpc
from syftmesh_client.file_seal import plain_content
from syftmesh_client.file_view import ChangeKind, Cursor
from syftmesh_core.errors import Conflict, MeshError, NotFound, Unauthenticated, Unavailable, Unimplemented
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.record import FileRecord, content_digest, sign_record
from syftmesh_kit import subject
from syftmesh_kit.journal import read_journal

pytestmark = pytest.mark.integration

PUBLIC = b'rules: [{pattern: "**", access: {read: ["*"]}}]\n'
FOR_BOB = b"rules: [{pattern: '**', access: {read: [bob@x.example]}}]\n"
PRIVATE = b"rules: []\n"


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path)


async def test_files_go_from_owner_to_reader_through_hub_and_store(tmp_path: Path, people: People) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given))
        alice = await stack.enter_async_context(desk(people, running.address, ALICE))
        runner = await stack.enter_async_context(desk(people, running.address, ALICE, "runner"))
        bob = await stack.enter_async_context(desk(people, running.address, BOB))
        await alice.files.write_many(
            {
                f"{ALICE}/syft.pub.yaml": PRIVATE,
                f"{ALICE}/public/syft.pub.yaml": PUBLIC,
                f"{ALICE}/for/syft.pub.yaml": FOR_BOB,
            }
        )
        data = os.urandom(3_000_000)
        await runner.files.write(f"{ALICE}/for/model.bin", data)
        await alice.files.write(f"{ALICE}/public/page.html", b"<p>hello")
        assert (await bob.files.read(f"{ALICE}/for/model.bin")).data == data
        assert (await bob.files.read(f"{ALICE}/public/page.html")).data == b"<p>hello"
        assert [v.path.rpartition("/")[2] for v in await bob.files.list(ALICE)] == [
            "model.bin",
            "syft.pub.yaml",
            "page.html",
            "syft.pub.yaml",
        ]
        with pytest.raises(NotFound):
            await bob.files.read(f"{ALICE}/syft.pub.yaml")
        stored = [info.key async for info in running.store.list("packs/")]
        bodies = [await running.store.get(key) for key in stored]
        assert not any(data[:64] in body for body in bodies)
        await runner.files.delete(f"{ALICE}/for/model.bin")
        with pytest.raises(NotFound):
            await bob.files.read(f"{ALICE}/for/model.bin")


async def test_a_change_and_a_revocation_reach_an_open_stream(tmp_path: Path, people: People) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given, heartbeat_s=0.3))
        alice = await stack.enter_async_context(desk(people, running.address, ALICE))
        bob = await stack.enter_async_context(desk(people, running.address, BOB))
        await alice.files.write(f"{ALICE}/for/syft.pub.yaml", FOR_BOB)
        async with asyncio.timeout(30), aclosing(bob.files.watch([ALICE])) as feed:
            assert (await anext(feed)).kind is ChangeKind.UPDATED
            assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP
            assert (await anext(feed)).kind is ChangeKind.CAUGHT_UP  # the heartbeat
            await alice.files.write(f"{ALICE}/for/x", b"1")
            change = await _next(feed, ChangeKind.UPDATED)
            assert (change.path, change.entry.author) == (f"{ALICE}/for/x", ALICE)
            download = await bob.session.sync.OpenDownload(rpc.OpenDownloadRequest(paths=[f"{ALICE}/for/x"]))
            assert 0 < download.targets[0].expires_unix_ms - CLOCK.now_ms() <= 60_000
            await alice.files.write(f"{ALICE}/for/syft.pub.yaml", PRIVATE)
            with pytest.raises(NotFound):  # at once, before the stream has said so
                await bob.files.read(f"{ALICE}/for/x")
            async with asyncio.timeout(5):
                lost = {(await _next(feed, ChangeKind.ACCESS_LOST)).path for _ in range(2)}
            assert lost == {f"{ALICE}/for/x", f"{ALICE}/for/syft.pub.yaml"}


async def _next(feed: AsyncIterator[Any], kind: ChangeKind) -> Any:
    async for change in feed:
        if change.kind is kind:
            return change
    raise AssertionError("the feed ended")


async def test_an_upload_url_takes_the_announced_bytes_once(tmp_path: Path, people: People) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given, journal=False))
        alice = await stack.enter_async_context(desk(people, running.address, ALICE))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        spec = sync_pb2.ObjectSpec(sha256=hashlib.sha256(b"data").digest(), size_bytes=4)
        request = rpc.OpenUploadRequest(operation_id=str(uuid.uuid4()), site=ALICE, objects=[spec])
        target = (await alice.session.sync.OpenUpload(request)).targets[0]
        headers = dict(target.headers)
        loose = {k: v for k, v in headers.items() if k != "if-none-match"}
        longer = {**headers, "content-length": "6"}
        answers = [
            await http.put(target.url, content=b"evil", headers=headers),
            await http.put(target.url, content=b"longer", headers=longer),
            await http.put(target.url, content=b"data", headers=loose),
            await http.put(target.url, content=b"data", headers=headers),
            await http.put(target.url, content=b"data", headers=headers),
        ]
        assert [a.status_code for a in answers] == [400, 403, 403, 200, 412]
        again = (await alice.session.sync.OpenUpload(request)).targets[0]
        assert (again.present, again.url) == (True, "")


async def test_who_shows_no_token_and_what_is_not_built_are_refused(tmp_path: Path, people: People) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given, journal=False))
        nobody = await stack.enter_async_context(session(running.address, "", ""))
        alice = await stack.enter_async_context(desk(people, running.address, ALICE))
        with pytest.raises(Unauthenticated):
            await nobody.sync.StatFiles(rpc.StatFilesRequest(paths=[f"{ALICE}/a"]))
        with pytest.raises(Unauthenticated):
            async for _ in nobody.sync.WatchChanges(rpc.WatchChangesRequest()):
                pass
        with pytest.raises(Unimplemented):
            await alice.session.sync.Usage(rpc.UsageRequest(site=ALICE))


async def test_of_two_committers_at_two_replicas_exactly_one_wins(tmp_path: Path, people: People) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        left = await stack.enter_async_context(hub(given))
        right = await stack.enter_async_context(hub(given))
        alice = await stack.enter_async_context(desk(people, left.address, ALICE))
        runner = await stack.enter_async_context(desk(people, right.address, ALICE, "runner"))
        await alice.files.write(f"{ALICE}/a", b"0")
        for revision in range(1, 11):
            await right.module.log.wait_for(left.module.log.position.sequence, 5)
            results = await asyncio.gather(
                alice.files.write(f"{ALICE}/a", b"left", expected_revision=revision),
                runner.files.write(f"{ALICE}/a", b"right", expected_revision=revision),
                return_exceptions=True,
            )
            won = [r for r in results if isinstance(r, FileRecord)]
            lost = [r for r in results if isinstance(r, Conflict)]
            assert (len(won), len(lost)) == (1, 1), results
            assert won[0].revision == revision + 1
            await left.module.log.wait_for(right.module.log.position.sequence, 5)
            await right.module.log.wait_for(left.module.log.position.sequence, 5)
        # Without an expectation both are written, one behind the other.
        both = await asyncio.gather(
            alice.files.write(f"{ALICE}/a", b"left"), runner.files.write(f"{ALICE}/a", b"right")
        )
        assert sorted(r.revision for r in both) == [12, 13]


def _signed(device: DeviceSecret, name: str, data: bytes) -> tuple[Any, sync_pb2.SignedRecord]:
    content = plain_content(data)
    record = FileRecord(
        site=ALICE,
        path=f"public/{name}",
        revision=1,
        previous_digest=None,
        content_digest=content_digest(content.header),
        epoch=0,
        deleted=False,
        rules_checkpoint=None,
        author=ALICE,
        device_id=device.device_id,
        created_ms=CLOCK.now_ms(),
    )
    signed = sign_record(record, content.header, device)
    message = sync_pb2.SignedRecord(record=signed.record, content=signed.content, signature=signed.signature)
    return content, message


async def test_five_hundred_files_commit_at_once_and_a_restart_rebuilds_the_same(
    tmp_path: Path, people: People
) -> None:
    async with servers(tmp_path) as given:
        async with hub(given) as running, desk(people, running.address, ALICE) as alice:
            await alice.files.write(f"{ALICE}/public/syft.pub.yaml", PUBLIC)
            content, first = _signed(alice.keystore.device, "0000", b"same")
            operation = str(uuid.uuid4())
            await alice.files._hub.upload(operation, ALICE, [content])
            records = [first] + [_signed(alice.keystore.device, f"{n:04}", b"same")[1] for n in range(1, 500)]
            request = rpc.CommitFilesRequest(operation_id=operation, records=records)
            answer = await alice.session.sync.CommitFiles(request)
            assert {r.status for r in answer.results} == {sync_pb2.COMMIT_STATUS_OK}
            again = await alice.session.sync.CommitFiles(request)
            assert [r.sequence for r in again.results] == [r.sequence for r in answer.results]
            before = _state(running)
            assert len(before["files"]) == 501
            assert await _records(running) == 501
            await _until(lambda: _journaled(running, 501), 15)
        async with hub(given) as restarted:
            assert _state(restarted) == before


def _state(running: Hub) -> dict[str, Any]:
    site = running.module.log.site(ALICE)
    return {
        "files": [(e.text, e.sequence, e.digest) for e in site.below(ALICE)],
        "rules": [(f.path, f.revision, f.rules) for f in site.tree],
        "position": running.module.log.position,
    }


async def _records(running: Hub) -> int:
    """Return how many records the stream holds; it holds policy fences beside them."""
    count = 0
    async with aclosing(running.bus.ordered_consumer(subject.FILES)) as messages:
        async for message in messages:
            count += message.type_name == sync_pb2.FileEntry.DESCRIPTOR.full_name
            if not message.pending:
                return count
    raise AssertionError("the stream ended")


async def _journaled(running: Hub, count: int) -> bool:
    return len([m async for m in read_journal(running.store, subject.FILES, 1)]) >= count


async def _is_back(given: Servers, killed: int) -> bool:
    return given.nats.pid not in (0, killed)


async def _until(holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    for _ in range(int(timeout_s / 0.1)):
        if await holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"did not come about within {timeout_s} s")


async def test_killing_the_bus_amid_commits_loses_nothing_acknowledged(
    tmp_path: Path, people: People
) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given))
        alice = await stack.enter_async_context(desk(people, running.address, ALICE))
        await alice.files.write(f"{ALICE}/public/syft.pub.yaml", PUBLIC)
        content, _ = _signed(alice.keystore.device, "x", b"same")
        operation = str(uuid.uuid4())
        await alice.files._hub.upload(operation, ALICE, [content])
        acknowledged: dict[str, int] = {}
        stop = asyncio.Event()

        async def writer(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                name = f"{number}-{count:04}"
                message = _signed(alice.keystore.device, name, b"same")[1]
                request = rpc.CommitFilesRequest(operation_id=operation, records=[message])
                while True:
                    try:
                        result = (await alice.session.sync.CommitFiles(request, timeout=20)).results[0]
                    except Unavailable:
                        await asyncio.sleep(0.05)
                        continue
                    assert result.status == sync_pb2.COMMIT_STATUS_OK, result
                    acknowledged[result.path] = result.sequence
                    break

        async def killer() -> None:
            for _ in range(3):
                await asyncio.sleep(0.7)
                killed = given.nats.pid
                os.kill(killed, signal.SIGKILL)
                await _until(partial(_is_back, given, killed), 20)
            await asyncio.sleep(0.7)
            stop.set()

        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(writer(number))
            group.create_task(killer())
        assert len(acknowledged) > 10
        known = {e.text: e.sequence for e in running.module.log.site(ALICE).below(f"{ALICE}/public")}
        assert {path: known.get(path) for path in acknowledged} == acknowledged
        async with hub(given, journal=False) as fresh:
            rebuilt = {e.text: e.sequence for e in fresh.module.log.site(ALICE).below(f"{ALICE}/public")}
            assert {path: rebuilt.get(path) for path in acknowledged} == acknowledged
            assert rebuilt == known
        # One record per path: a commit that was sent again is one commit.
        assert await _records(running) == len(known)


async def test_a_cursor_of_another_epoch_has_to_list(tmp_path: Path, people: People) -> None:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given, journal=False))
        alice = await stack.enter_async_context(desk(people, running.address, ALICE))
        feed = alice.files.watch([ALICE], Cursor(9, 1))
        with pytest.raises(MeshError) as expired:
            await anext(feed)
        assert expired.value.reason == "CURSOR_EXPIRED"
