"""Rules and groups over three replicas that are behind, each in its own way: what was taken is taken everywhere."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2
from mesh.permissions.v1 import permissions_service_pb2 as permissions_rpc
from mesh.sync.v1 import sync_pb2
from mesh.sync.v1 import sync_service_pb2 as rpc
from syftmesh_client.revision import RevisionMemory
from syftmesh_core.errors import IntegrityFailure, NotFound, Unavailable
from syftmesh_core.path import parse_path
from syftmesh_core.record import (
    ContentHeader,
    FileRecord,
    SignedRecord,
    content_digest,
    parse_record,
    sign_record,
)
from syftmesh_core.sealed import peek
from syftmesh_kit import subject
from syftmesh_kit.filelog import fence_subject, object_key, subject_of

sys.path.insert(0, str(Path(__file__).parent))
from file_mesh import ALICE, BOB, CLOCK, Desk, Hub, People, desk, hub, servers

pytestmark = pytest.mark.integration

WRITERS = b"rules: [{pattern: '**', access: {write: [bob@x.example]}}]\n"
NOBODY = b"rules: []\n"
GROUPS = f"{ALICE}/syft.groups.yaml"


class Lag:
    """How far one replica is behind: a random while at each message, or shut until it is opened."""

    def __init__(self, seed: int, longest_s: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - an order to be tried, no secret
        self._longest_s = longest_s

    def __call__(self) -> float:
        return self._random.choice((0.0, 0.0, 0.0, 0.3, 1.0)) * self._random.random() * self._longest_s


@dataclass
class Mesh:
    """Three replicas; the owner and a guest of theirs at each."""

    replicas: list[Hub]
    alice: list[Desk]
    bob: list[Desk]


@asynccontextmanager
async def mesh(tmp_path: Path, *, longest_s: float) -> AsyncIterator[Mesh]:
    people = People(tmp_path)
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        lags: list[Callable[[], float]] = [Lag(seed, longest_s) for seed in range(3)]
        replicas = [await stack.enter_async_context(hub(given, lag_s=lag, journal=False)) for lag in lags]
        # One profile of the owner, whichever replica answers it: what it has written it knows.
        memory = RevisionMemory()
        stack.callback(memory.close)
        alice = [
            await stack.enter_async_context(desk(people, r.address, ALICE, memory=memory)) for r in replicas
        ]
        bob = [await stack.enter_async_context(desk(people, r.address, BOB)) for r in replicas]
        yield Mesh(replicas, alice, bob)


async def write(at: Desk, path: str, data: bytes) -> FileRecord:
    """Write as the owner; a replica that still gives an older revision than the profile knows is asked again."""
    for _ in range(200):
        try:
            return await at.files.write(path, data)
        except IntegrityFailure as error:
            if error.reason not in ("FILE_ROLLBACK", "RULES_WITHHELD"):
                raise
            await asyncio.sleep(0.02)
    raise AssertionError("the replica did not catch up")


def signed(at: Desk, path: str, content: ContentHeader) -> sync_pb2.SignedRecord:
    device = at.keystore.device
    site, _, below = path.partition("/")
    record = FileRecord(
        site=site,
        path=below,
        revision=1,
        previous_digest=None,
        content_digest=content_digest(content),
        epoch=0,
        deleted=False,
        rules_checkpoint=None,
        author=device.principal,
        device_id=device.device_id,
        created_ms=CLOCK.now_ms(),
    )
    found = sign_record(record, content, device)
    return sync_pb2.SignedRecord(record=found.record, content=found.content, signature=found.signature)


def revision_of(entry: sync_pb2.FileEntry) -> tuple[str, int]:
    message = entry.record
    record, _ = parse_record(SignedRecord(message.record, message.content, message.signature))
    return entry.path, record.revision


def sealed(data: bytes) -> ContentHeader:
    return ContentHeader(sealed=True, object_id=hashlib.sha256(data).hexdigest(), stored_size_bytes=len(data))


@dataclass
class Writer:
    """Bob at one replica: bytes put once, committed under ever new names without asking what is there."""

    at: Desk
    operation: str = field(default_factory=lambda: str(uuid.uuid4()))
    data: bytes = field(default_factory=lambda: uuid.uuid4().bytes)

    async def put(self) -> None:
        spec = sync_pb2.ObjectSpec(sha256=hashlib.sha256(self.data).digest(), size_bytes=len(self.data))
        request = rpc.OpenUploadRequest(operation_id=self.operation, site=ALICE, objects=[spec])
        target = (await self.at.session.sync.OpenUpload(request)).targets[0]
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.put(target.url, content=self.data, headers=dict(target.headers))).is_success

    async def commit(self, path: str) -> sync_pb2.CommitResult:
        request = rpc.CommitFilesRequest(
            operation_id=self.operation, records=[signed(self.at, path, sealed(self.data))]
        )
        return (await self.at.session.sync.CommitFiles(request)).results[0]


@dataclass
class Log:
    """The log as it was written, message by message: the truth that replicas have to agree with."""

    records: list[tuple[int, FileRecord, int]] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)

    async def follow(self, replica: Hub) -> None:
        async with aclosing(replica.bus.ordered_consumer(subject.FILES)) as messages:
            async for message in messages:
                if message.type_name == sync_pb2.FileEntry.DESCRIPTOR.full_name:
                    entry = message.decode(sync_pb2.FileEntry)
                    parts = (entry.record.record, entry.record.content, entry.record.signature)
                    record, _ = parse_record(SignedRecord(*parts))
                    self.records.append((message.sequence, record, entry.checked_at.sequence))
                elif message.subject == fence_subject(ALICE):
                    self.fences.append(message.sequence)


@pytest.mark.parametrize("kind", ["rules", "groups"])
async def test_no_write_enters_the_log_behind_the_revocation_of_its_right(tmp_path: Path, kind: str) -> None:
    rules = f"{ALICE}/in/syft.pub.yaml"
    granting, taking, policy = WRITERS, NOBODY, rules
    async with mesh(tmp_path, longest_s=0.04) as found, asyncio.TaskGroup() as tasks:
        if kind == "groups":
            await write(found.alice[0], rules, WRITERS.replace(b"bob@x.example", b"'group:team'"))
            granting, taking, policy = (
                b"groups: {team: [bob@x.example]}\n",
                b"groups: {team: []}\n",
                GROUPS,
            )
        log = Log()
        following = tasks.create_task(log.follow(found.replicas[0]))
        first = await write(found.alice[0], policy, granting)
        for replica in found.replicas:
            await replica.module.log.wait_for(3, 5)
        writers = [Writer(bob) for bob in found.bob]
        for writer in writers:
            await writer.put()
        stop = asyncio.Event()
        results: list[sync_pb2.CommitResult] = []

        async def keep_writing(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                results.append(await writers[number].commit(f"{ALICE}/in/{number}-{count}"))

        writing = [tasks.create_task(keep_writing(number)) for number in range(3)]
        for round_number in range(8):
            at = found.alice[round_number % 3]
            data = (taking if round_number % 2 == 0 else granting) + f"# {round_number}\n".encode()
            await write(at, policy, data)
            await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*writing)
        last = max(result.sequence for result in results)
        while not log.records or log.records[-1][0] < last:
            await asyncio.sleep(0.02)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    statuses = {result.status for result in results}
    assert statuses == {sync_pb2.COMMIT_STATUS_OK, sync_pb2.COMMIT_STATUS_DENIED}, statuses
    name = policy.removeprefix(f"{ALICE}/")
    current, allowed = 0, False
    for sequence, record, checked_at in log.records:
        if record.path == name:
            # The first revision grants, and each later one is the other way round.
            current, allowed = sequence, (record.revision - first.revision) % 2 == 0
        elif record.author == BOB:
            assert allowed, f"{record.path} at {sequence} was let in behind the revocation at {current}"
            assert checked_at == current, f"{record.path} at {sequence} says {checked_at}, not {current}"
    written = {r.sequence for r in results if r.status == sync_pb2.COMMIT_STATUS_OK}
    assert written == {sequence for sequence, record, _ in log.records if record.author == BOB}
    assert len(log.fences) == 9 + (kind == "groups")


async def test_a_replica_that_has_not_seen_the_revocation_refuses_the_write(tmp_path: Path) -> None:
    people, shut = People(tmp_path), [0.0]
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        current = await stack.enter_async_context(hub(given, journal=False))
        behind = await stack.enter_async_context(hub(given, journal=False, lag_s=lambda: shut[0]))
        alice = await stack.enter_async_context(desk(people, current.address, ALICE))
        bob = await stack.enter_async_context(desk(people, behind.address, BOB))
        await alice.files.write(f"{ALICE}/in/syft.pub.yaml", WRITERS)
        await behind.module.log.wait_for(current.module.log.position.sequence, 5)
        writer = Writer(bob)
        await writer.put()
        assert (await writer.commit(f"{ALICE}/in/before")).status == sync_pb2.COMMIT_STATUS_OK
        shut[0] = 1.0
        await alice.files.write(f"{ALICE}/in/syft.pub.yaml", NOBODY)
        assert behind.module.log.position < current.module.log.position
        refused = await writer.commit(f"{ALICE}/in/after")
        assert (refused.status, refused.reason) == (sync_pb2.COMMIT_STATUS_DENIED, "PERMISSION_DENIED")
        assert await current.bus.last_message(subject_of(parse_path(f"{ALICE}/in/after"))) is None


async def test_an_acknowledged_revocation_binds_at_once_at_a_replica_that_is_behind(tmp_path: Path) -> None:
    people, shut = People(tmp_path), [0.0]
    rules, groups = f"{ALICE}/for/syft.pub.yaml", GROUPS
    team = b"rules: [{pattern: '**', access: {read: ['group:team']}}]\n"
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        current = await stack.enter_async_context(hub(given, journal=False))
        behind = await stack.enter_async_context(hub(given, journal=False, lag_s=lambda: shut[0]))
        alice = await stack.enter_async_context(desk(people, current.address, ALICE))
        bob = await stack.enter_async_context(desk(people, behind.address, BOB))
        for path, granting, taking in (
            (rules, WRITERS, NOBODY),
            (groups, b"groups: {team: [bob@x.example]}\n", b"groups: {team: []}\n"),
        ):
            shut[0] = 0.0
            await alice.files.write(path, granting)
            if path == groups:
                await alice.files.write(rules, team)
            await alice.files.write(f"{ALICE}/for/x", b"1")
            await behind.module.log.wait_for(current.module.log.position.sequence, 5)
            assert (await bob.files.read(f"{ALICE}/for/x")).data == b"1"
            shut[0] = 0.3
            await alice.files.write(path, taking)
            assert behind.module.log.position < current.module.log.position
            stat, page, download = await asyncio.gather(
                bob.session.sync.StatFiles(rpc.StatFilesRequest(paths=[f"{ALICE}/for/x"])),
                bob.session.sync.ListFiles(rpc.ListFilesRequest(prefix=f"{ALICE}/for")),
                bob.session.sync.OpenDownload(rpc.OpenDownloadRequest(paths=[f"{ALICE}/for/x"])),
            )
            assert (list(stat.entries), list(page.entries)) == ([], [])
            assert not download.targets[0].url
            await behind.module.log.wait_for(current.module.log.position.sequence, 5)


@dataclass
class Enemy:
    """Bob asks every replica for everything, all the time, with whatever token he has; what he is given is kept."""

    at: list[Desk]
    seed: int
    tokens: list[common_pb2.ConsistencyToken] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    seen: list[tuple[str, int]] = field(default_factory=list)
    allowed: list[tuple[str, int]] = field(default_factory=list)
    asked: int = 0

    async def run(self, number: int) -> None:
        rng = random.Random(self.seed * 100 + number)  # noqa: S311 - an order to be tried, no secret
        while True:
            paths = self.paths[-4:]
            if paths:
                await self._ask(self.at[rng.randrange(3)].session, rng, paths)
            await asyncio.sleep(rng.random() * 0.005)

    async def _ask(self, session: Any, rng: random.Random, paths: list[str]) -> None:
        with suppress(Unavailable):  # a replica that is too far behind says so
            await self._answered(session, rng, paths)

    async def _answered(self, session: Any, rng: random.Random, paths: list[str]) -> None:
        self.asked += 1
        match rng.randrange(4):
            case 0:
                answer = await session.sync.StatFiles(rpc.StatFilesRequest(paths=paths))
                self.seen += [revision_of(entry) for entry in answer.entries]
            case 1:
                answer = await session.sync.OpenDownload(rpc.OpenDownloadRequest(paths=paths))
                self.seen += [revision_of(target.entry) for target in answer.targets if target.url]
            case 2:
                answer = await session.sync.ListFiles(rpc.ListFilesRequest(prefix=ALICE))
                self.seen += [revision_of(entry) for entry in answer.entries]
            case _:
                await self._check(session, rng, rng.choice(paths))

    async def _check(self, session: Any, rng: random.Random, path: str) -> None:
        request = permissions_rpc.CheckPermissionRequest(
            question=permissions_pb2.Question(path=path, level=permissions_pb2.LEVEL_READ)
        )
        token = rng.choice([None, *self.tokens[-6:]])
        if token is not None:
            request.at_least.CopyFrom(token)
        decision = (await session.permissions.CheckPermission(request)).decision
        if token is not None:
            assert decision.token.sequence >= token.sequence
        if decision.allowed:
            self.allowed.append((path, decision.token.sequence))

    async def watch(self, at: Desk) -> None:
        async for batch in at.session.sync.WatchChanges(rpc.WatchChangesRequest()):
            for change in batch.changes:
                if change.kind == sync_pb2.CHANGE_KIND_UPDATED:
                    self.seen.append(revision_of(change.entry))


@pytest.mark.parametrize("seed", range(2))
async def test_a_reader_removed_before_a_write_never_sees_what_was_written_after(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - an order to be tried, no secret
    revoked_at: dict[str, int] = {}
    forbidden: dict[str, int] = {}
    async with mesh(tmp_path, longest_s=0.05) as found, asyncio.TaskGroup() as tasks:
        enemy = Enemy(found.bob, seed)
        asking = [tasks.create_task(enemy.run(number)) for number in range(3)]
        asking += [tasks.create_task(enemy.watch(at)) for at in found.bob]
        members: dict[str, str] = {}

        async def groups(at: Desk) -> int:
            lines = "".join(f"  {name}: [{who}]\n" for name, who in members.items())
            await write(at, GROUPS, f"groups:\n{lines}".encode())
            return at_hub(at).module.log.site(ALICE).find(GROUPS).sequence

        def at_hub(at: Desk) -> Hub:
            return found.replicas[found.alice.index(at)]

        for number in range(12):
            first, second, third = (found.alice[rng.randrange(3)] for _ in range(3))
            directory, name = f"{ALICE}/r{number}", f"t{number}"
            secret, rules = f"{directory}/secret", f"{directory}/syft.pub.yaml"
            by_group = rng.random() < 0.5
            reader = f"'group:{name}'" if by_group else BOB
            granted = f"rules: [{{pattern: '**', access: {{read: [{reader}]}}}}]\n".encode()
            if by_group:
                members[name] = BOB
                await groups(first)
            await write(first, rules, granted)
            enemy.paths.append(secret)
            existed = rng.random() < 0.5
            if existed:
                await write(first, secret, b"for Bob too")
            await asyncio.sleep(rng.random() * 0.1)
            if by_group:
                members[name] = ""
                sequence = await groups(second)
            else:
                await write(second, rules, NOBODY)
                sequence = at_hub(second).module.log.site(ALICE).find(rules).sequence
            revoked_at[secret] = sequence
            forbidden[secret] = 1 + existed
            enemy.tokens.append(common_pb2.ConsistencyToken(epoch=1, sequence=sequence))
            record = await write(third, secret, b"not for Bob")
            view = at_hub(third).module.log.site(ALICE).find(secret)
            assert view.revision == record.revision == 1 + existed
            blob = await found.replicas[0].store.get(object_key(ALICE, view.object_id))
            assert {principal for principal, _ in peek(blob).readers} == {ALICE}
            enemy.tokens.append(common_pb2.ConsistencyToken(epoch=1, sequence=view.sequence))
        await asyncio.sleep(0.3)
        for task in asking:
            task.cancel()
        for at in found.bob:
            for path in revoked_at:
                with pytest.raises(NotFound):
                    await at.files.read(path)
    assert enemy.asked > 100
    secrets = [(path, revision) for path, revision in enemy.seen if path in forbidden]
    assert secrets, "the enemy never saw what it was allowed to see, so this shows nothing"
    for path, revision in secrets:
        assert revision < forbidden[path], f"{path} was seen at revision {revision}"
    for path, sequence in enemy.allowed:
        assert sequence < revoked_at[path], f"{path} was allowed at {sequence}, revoked at {revoked_at[path]}"
