"""The permission service beside the sync service on a real nats-server and a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.common.v1 import common_pb2
from mesh.crypto.v1 import crypto_pb2
from mesh.permissions.v1 import permissions_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2 as rpc
from mesh.permissions.v1 import permissions_service_pb2_grpc as api
from mesh.sync.v1 import sync_pb2
from mesh.sync.v1 import sync_service_pb2 as sync_rpc
from mesh.sync.v1 import sync_service_pb2_grpc as sync_api
from prometheus_client import CollectorRegistry
from syftmesh_client.file_seal import plain_content
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import (
    InvalidInput,
    LimitExceeded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import sign_first_list
from syftmesh_core.identity.phrase import AccountRoot
from syftmesh_core.record import FileRecord, SignedRecord, content_digest, record_digest, sign_record
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.native import NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import Revocation, StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_permissions.app import build
from syftmesh_permissions.settings import PermissionsSettings
from syftmesh_sync.app import build as build_sync
from syftmesh_sync.settings import SyncSettings

pytestmark = pytest.mark.integration

ALICE, BOB = "alice@site.example", "bob@x.example"
CLOCK = SystemClock()
SIGNING = Ed25519PrivateKey.generate()
FOR_BOB = b"rules:\n  - pattern: 'data/**'\n    access: {read: [bob@x.example]}\n"
PRIVATE = b"rules: []\n"


@dataclass
class Replica:
    """A server, and what it verifies tokens by."""

    address: str
    verifier: TokenVerifier


@dataclass
class Hub:
    """Sync and replicas of permissions, each on a server and a connection of its own."""

    sync_address: str
    replicas: list[Replica]
    device: DeviceSecret
    newest: dict[str, tuple[int, SignedRecord]] = field(default_factory=dict)

    @asynccontextmanager
    async def caller(self, principal: str, replica: int = 0) -> AsyncIterator[Any]:
        async def provide() -> str:
            return TokenIssuer(SIGNING, "k", "embedded", CLOCK).issue(principal, "device")[0]

        channel = open_channel(self.replicas[replica].address, token_provider=provide if principal else None)
        try:
            yield api.PermissionServiceStub(channel)
        finally:
            await channel.close()

    async def rules(self, data: bytes) -> common_pb2.ConsistencyToken:
        """Commit the rule file of alice's root and return the token of the commit."""
        return await self.commit("syft.pub.yaml", data)

    async def commit(self, path: str, data: bytes) -> common_pb2.ConsistencyToken:
        """Commit a plain file of alice's and return the token of the commit."""
        content = plain_content(data).header
        revision, previous = 1, None
        if path in self.newest:
            number, last = self.newest[path]
            revision, previous = number + 1, record_digest(last)
        record = FileRecord(
            site=ALICE,
            path=path,
            revision=revision,
            previous_digest=previous,
            content_digest=content_digest(content),
            epoch=0,
            deleted=False,
            rules_checkpoint=None,
            author=ALICE,
            device_id=self.device.device_id,
            created_ms=CLOCK.now_ms(),
        )
        signed = sign_record(record, content, self.device)
        self.newest[path] = (revision, signed)
        operation = str(uuid.uuid4())

        async def provide() -> str:
            return TokenIssuer(SIGNING, "k", "embedded", CLOCK).issue(ALICE, self.device.device_id)[0]

        channel = open_channel(self.sync_address, token_provider=provide)
        stub: Any = sync_api.SyncServiceStub(channel)
        spec = sync_pb2.ObjectSpec(sha256=hashlib.sha256(data).digest(), size_bytes=len(data))
        request = sync_rpc.OpenUploadRequest(operation_id=operation, site=ALICE, objects=[spec])
        target = (await stub.OpenUpload(request)).targets[0]
        if not target.present:
            async with httpx.AsyncClient(trust_env=False) as http:
                put = await http.put(target.url, content=data, headers=dict(target.headers))
                assert put.status_code == 200
        message = sync_pb2.SignedRecord(
            record=signed.record, content=signed.content, signature=signed.signature
        )
        answer = await stub.CommitFiles(
            sync_rpc.CommitFilesRequest(operation_id=operation, records=[message])
        )
        await channel.close()
        assert answer.results[0].status == sync_pb2.COMMIT_STATUS_OK, answer
        return common_pb2.ConsistencyToken(epoch=answer.cursor.epoch, sequence=answer.cursor.sequence)


@asynccontextmanager
async def served(module: Any) -> AsyncIterator[Replica]:
    verifier = TokenVerifier(StaticKeySet({"k": SIGNING.public_key()}), "embedded", CLOCK)
    interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
    host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.2)
    async with host.running() as target:
        await host.wait_ready()
        yield Replica(target, verifier)


@asynccontextmanager
async def hub(state: Path, replicas: int = 1) -> AsyncIterator[Hub]:
    nats, weed = NatsServer(state / "nats"), SeaweedServer(state / "s3")
    device = DeviceSecret.generate(ALICE, str(uuid.uuid4()), admin=True)
    async with asyncio.TaskGroup() as tasks:
        try:
            at, s3 = await nats.start(tasks), await weed.start(tasks)
            buses = [
                await Bus.connect(at.url, name=name, user=at.user, password=at.password)
                for name in ("sync", *(f"permissions-{number}" for number in range(replicas)))
            ]
            store = S3ObjectStore(s3)
            await buses[0].ensure_stream(topology.KEYLOG)
            first = sign_first_list(ALICE, [device.public()], AccountRoot(os.urandom(32)))
            signed = crypto_pb2.SignedDeviceList(device_list=first)
            await buses[0].publish(subject.keylog(ALICE), signed)
            sync = await build_sync(
                SyncSettings(journal=False), bus=buses[0], object_store=store, clock=CLOCK
            )
            async with AsyncExitStack() as stack:
                committer = await stack.enter_async_context(served(sync))
                running = []
                for bus in buses[1:]:
                    module = await build(PermissionsSettings(), bus=bus, object_store=store, clock=CLOCK)
                    running.append(await stack.enter_async_context(served(module)))
                yield Hub(committer.address, running, device)
            for bus in buses:
                await bus.close()
        finally:
            await nats.stop()
            await weed.stop()


def question(path: str, at: common_pb2.ConsistencyToken | None = None, **values: Any) -> Any:
    asked = pb.Question(path=path, **({"level": pb.LEVEL_READ} | values))
    return rpc.CheckPermissionRequest(question=asked, at_least=at)


async def test_a_revoked_right_is_never_granted_by_an_answer_at_least_as_new(tmp_path: Path) -> None:
    async with hub(tmp_path) as running, running.caller(BOB) as bob:
        for _ in range(5):
            granted = await running.rules(FOR_BOB)
            assert (await bob.CheckPermission(question(f"{ALICE}/data/x", granted))).decision.allowed
            revoked = await running.rules(PRIVATE)
            decision = (await bob.CheckPermission(question(f"{ALICE}/data/x", revoked))).decision
            assert (decision.allowed, decision.reason) == (False, "NOT_ALLOWED")
            assert decision.token.sequence >= revoked.sequence
        ahead = common_pb2.ConsistencyToken(epoch=revoked.epoch, sequence=revoked.sequence + 1000)
        with pytest.raises(Unavailable) as behind:
            await bob.CheckPermission(question(f"{ALICE}/data/x", ahead))
        assert behind.value.reason == "BEHIND"


async def test_questions_are_answered_to_whom_they_concern(tmp_path: Path) -> None:
    async with (
        hub(tmp_path) as running,
        running.caller(ALICE) as alice,
        running.caller(BOB) as bob,
        running.caller("") as nobody,
    ):
        token = await running.rules(FOR_BOB)
        about_bob = question(f"{ALICE}/data/x", token, requester=BOB)
        assert (await alice.CheckPermission(about_bob)).decision.rule.line == 2
        assert (await bob.CheckPermission(about_bob)).decision.allowed
        assert not (await bob.CheckPermission(about_bob)).decision.HasField("rule")
        with pytest.raises(PermissionDenied):
            await bob.CheckPermission(question(f"{ALICE}/data/x", token, requester="carol@x.example"))
        with pytest.raises(InvalidInput) as malformed:
            await bob.CheckPermission(question(f"{ALICE}/../x"))
        assert malformed.value.reason == "PATH_INVALID"
        with pytest.raises(Unauthenticated):
            await nobody.CheckPermission(question(f"{ALICE}/data/x"))
        explained = await alice.ExplainPermission(
            rpc.ExplainPermissionRequest(
                question=pb.Question(path=f"{ALICE}/data/x", level=pb.LEVEL_WRITE, requester=BOB),
                at_least=token,
            )
        )
        assert explained.governing_file == f"{ALICE}/syft.pub.yaml"
        assert explained.decision.reason == "NOT_LISTED"
        assert explained.needed
        assert explained.matched == ""
        other = common_pb2.ConsistencyToken(epoch=token.epoch + 1, sequence=1)
        with pytest.raises(WrongState) as expired:
            await bob.CheckPermission(question(f"{ALICE}/data/x", other))
        assert expired.value.reason == "TOKEN_EXPIRED"


async def test_a_batch_says_what_single_checks_say(tmp_path: Path) -> None:
    async with hub(tmp_path) as running, running.caller(ALICE) as alice, running.caller(BOB) as bob:
        token = await running.rules(FOR_BOB)
        names = [BOB, "carol@x.example", ALICE, "guest", ""]
        asked = [
            pb.Question(path=f"{ALICE}/{folder}/f{number}.csv", level=level, requester=names[number % 5])
            for number in range(100)
            for folder in ("data", "other")
            for level in (pb.LEVEL_READ, pb.LEVEL_ADMIN)
        ]
        request = rpc.BatchCheckPermissionsRequest(questions=asked, at_least=token)
        for _ in range(2):
            batch = await alice.BatchCheckPermissions(request)
            assert len(batch.decisions) == len(asked)
            assert batch.token.sequence >= token.sequence
            assert not any(decision.HasField("token") for decision in batch.decisions)
        for index in range(0, len(asked), 37):
            found = (await alice.CheckPermission(rpc.CheckPermissionRequest(question=asked[index]))).decision
            found.ClearField("token")
            assert batch.decisions[index] == found
        with pytest.raises(PermissionDenied) as refused:
            await bob.BatchCheckPermissions(request)
        assert refused.value.metadata["index"] == "4", "the first four questions are about bob himself"
        with pytest.raises(LimitExceeded) as many:
            await bob.BatchCheckPermissions(
                rpc.BatchCheckPermissionsRequest(questions=[pb.Question(path=ALICE)] * 10_001)
            )
        assert many.value.reason == "BATCH_SIZE"


async def test_no_replica_grants_what_was_revoked_at_the_token(tmp_path: Path) -> None:
    async with hub(tmp_path, replicas=3) as running, AsyncExitStack() as stack:
        bobs = [await stack.enter_async_context(running.caller(BOB, number)) for number in range(3)]
        seen = [0, 0, 0]
        for data in (FOR_BOB, PRIVATE) * 4:
            token = await running.rules(data)

            async def ask(number: int, token: common_pb2.ConsistencyToken = token) -> pb.Decision:
                check = await bobs[number].CheckPermission(question(f"{ALICE}/data/x", token))
                batch = await bobs[number].BatchCheckPermissions(
                    rpc.BatchCheckPermissionsRequest(
                        questions=[pb.Question(path=f"{ALICE}/data/y", level=pb.LEVEL_READ)], at_least=token
                    )
                )
                assert batch.decisions[0].allowed == check.decision.allowed
                return check.decision

            for number, decision in enumerate(await asyncio.gather(*(ask(n) for n in range(3)))):
                assert decision.allowed == (data is FOR_BOB)
                assert decision.token.epoch == token.epoch
                assert decision.token.sequence >= max(token.sequence, seen[number])
                seen[number] = decision.token.sequence


async def test_readers_and_files_are_listed_by_rules_and_groups(tmp_path: Path) -> None:
    async with hub(tmp_path) as running, running.caller(ALICE) as alice, running.caller(BOB) as bob:
        await running.commit("syft.groups.yaml", f"groups: {{team: [{BOB}]}}\n".encode())
        await running.rules(b"rules:\n  - pattern: 'data/**'\n    access: {read: ['group:team']}\n")
        await running.commit("open/syft.pub.yaml", b"rules:\n  - pattern: '**'\n    access: {read: ['*']}\n")
        token = await running.commit("open/a.txt", b"text")
        readers = rpc.ListReadersRequest(path=f"{ALICE}/data/x", at_least=token)
        full = await alice.ListReaders(readers)
        assert (list(full.principals), full.kind) == ([ALICE, BOB], pb.READER_KIND_CLOSED)
        assert full.token.sequence >= token.sequence
        assert (await bob.ListReaders(readers)).kind == pb.READER_KIND_OPEN
        everything = rpc.ListAccessibleRequest(at_least=token)
        pages = [page async for page in bob.ListAccessible(everything)]
        assert [path for page in pages for path in page.paths] == [
            f"{ALICE}/open/a.txt",
            f"{ALICE}/open/syft.pub.yaml",
        ]
        resumed = rpc.ListAccessibleRequest(cursor=pages[-1].after_cursor)
        assert [page async for page in bob.ListAccessible(resumed)] == []
        with pytest.raises(InvalidInput) as foreign:
            [page async for page in alice.ListAccessible(resumed)]
        assert foreign.value.reason == "PAGE_INVALID"
        own = [page async for page in alice.ListAccessible(rpc.ListAccessibleRequest(prefix=ALICE))]
        assert len(own[0].paths) == 4


async def test_a_watch_tells_what_changes_by_rules_groups_and_clock(tmp_path: Path) -> None:
    async with hub(tmp_path) as running, running.caller(BOB) as bob, asyncio.timeout(60):
        token = await running.rules(b"rules: []\n")
        asked = [pb.Question(path=f"{ALICE}/{name}", level=pb.LEVEL_READ) for name in ("data/x", "team/x")]
        watch = aiter(bob.WatchPermissions(rpc.WatchPermissionsRequest(questions=asked, at_least=token)))
        first = [await anext(watch), await anext(watch)]
        assert [(item.index, item.decision.allowed) for item in first] == [(0, False), (1, False)]
        expiry_ms = CLOCK.now_ms() // 1000 * 1000 + 3000
        expires = datetime.fromtimestamp(expiry_ms / 1000, UTC).isoformat()
        await running.rules(
            b"rules:\n  - pattern: 'team/**'\n    access: {read: ['group:team']}\n"
            b"  - pattern: 'data/**'\n    access: {read: [bob@x.example]}\n"
            b"    expires: " + expires.encode() + b"\n"
        )
        granted = await anext(watch)
        assert (granted.index, granted.decision.allowed) == (0, True)
        assert granted.decision.token.sequence > first[0].decision.token.sequence
        ended = await anext(watch)
        assert (ended.index, ended.decision.allowed) == (0, False)
        assert CLOCK.now_ms() >= expiry_ms
        await running.commit("syft.groups.yaml", f"groups: {{team: [{BOB}]}}\n".encode())
        joined = await anext(watch)
        assert (joined.index, joined.decision.allowed) == (1, True)


async def test_a_watch_ends_with_the_right_to_ask(tmp_path: Path) -> None:
    async with hub(tmp_path) as running, running.caller(BOB) as bob, asyncio.timeout(60):
        token = await running.rules(FOR_BOB.replace(b"read", b"admin"))
        about = pb.Question(path=f"{ALICE}/data/x", level=pb.LEVEL_READ, requester="carol@x.example")
        watch = aiter(bob.WatchPermissions(rpc.WatchPermissionsRequest(questions=[about], at_least=token)))
        assert not (await anext(watch)).decision.allowed
        await running.rules(FOR_BOB)
        with pytest.raises(PermissionDenied) as ended:
            await anext(watch)
        assert ended.value.metadata["index"] == "0"


async def test_open_streams_end_when_the_token_is_revoked(tmp_path: Path) -> None:
    async with hub(tmp_path) as running, running.caller(BOB) as bob:
        token = await running.rules(FOR_BOB)
        about = pb.Question(path=f"{ALICE}/data/x", level=pb.LEVEL_READ)
        watch = aiter(bob.WatchPermissions(rpc.WatchPermissionsRequest(questions=[about], at_least=token)))
        assert (await anext(watch)).decision.allowed
        await bob.CheckPermission(question(f"{ALICE}/data/x"))  # by now the watch waits for news
        running.replicas[0].verifier.revoke(Revocation(principal=BOB))
        with pytest.raises(Unauthenticated) as ended:
            async with asyncio.timeout(5):
                await anext(watch)
        assert ended.value.reason == "TOKEN_REVOKED"
