"""The permission service beside the sync service on a real nats-server and a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from syftmesh_core.errors import InvalidInput, PermissionDenied, Unauthenticated, Unavailable, Unimplemented
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
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier
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
class Hub:
    """Sync and permissions, each on a server and a connection of its own."""

    sync_address: str
    address: str
    device: DeviceSecret
    last: SignedRecord | None = None

    @asynccontextmanager
    async def caller(self, principal: str) -> AsyncIterator[Any]:
        async def provide() -> str:
            return TokenIssuer(SIGNING, "k", "embedded", CLOCK).issue(principal, "device")[0]

        channel = open_channel(self.address, token_provider=provide if principal else None)
        try:
            yield api.PermissionServiceStub(channel)
        finally:
            await channel.close()

    async def rules(self, data: bytes) -> common_pb2.ConsistencyToken:
        """Commit the rule file of alice's root and return the token of the commit."""
        content = plain_content(data).header
        revision, previous = 1, None
        if self.last is not None:
            revision, previous = self.revision + 1, record_digest(self.last)
        record = FileRecord(
            site=ALICE,
            path="syft.pub.yaml",
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
        self.last, self.revision = sign_record(record, content, self.device), revision
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
            record=self.last.record, content=self.last.content, signature=self.last.signature
        )
        answer = await stub.CommitFiles(
            sync_rpc.CommitFilesRequest(operation_id=operation, records=[message])
        )
        await channel.close()
        assert answer.results[0].status == sync_pb2.COMMIT_STATUS_OK, answer
        return common_pb2.ConsistencyToken(epoch=answer.cursor.epoch, sequence=answer.cursor.sequence)


@asynccontextmanager
async def served(module: Any) -> AsyncIterator[str]:
    verifier = TokenVerifier(StaticKeySet({"k": SIGNING.public_key()}), "embedded", CLOCK)
    interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
    host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.2)
    async with host.running() as target:
        await host.wait_ready()
        yield target


@asynccontextmanager
async def hub(state: Path) -> AsyncIterator[Hub]:
    nats, weed = NatsServer(state / "nats"), SeaweedServer(state / "s3")
    device = DeviceSecret.generate(ALICE, str(uuid.uuid4()), admin=True)
    async with asyncio.TaskGroup() as tasks:
        try:
            at, s3 = await nats.start(tasks), await weed.start(tasks)
            buses = [
                await Bus.connect(at.url, name=name, user=at.user, password=at.password)
                for name in ("sync", "permissions")
            ]
            store = S3ObjectStore(s3)
            await buses[0].ensure_stream(topology.KEYLOG)
            first = sign_first_list(ALICE, [device.public()], AccountRoot(os.urandom(32)))
            signed = crypto_pb2.SignedDeviceList(device_list=first)
            await buses[0].publish(subject.keylog(ALICE), signed)
            sync = await build_sync(
                SyncSettings(journal=False), bus=buses[0], object_store=store, clock=CLOCK
            )
            permissions = await build(PermissionsSettings(), bus=buses[1], object_store=store, clock=CLOCK)
            async with served(sync) as sync_address, served(permissions) as address:
                yield Hub(sync_address, address, device)
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
        ahead = common_pb2.ConsistencyToken(epoch=revoked.epoch, sequence=revoked.sequence + 1)
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
        with pytest.raises(Unimplemented):
            await bob.ListReaders(rpc.ListReadersRequest(path=f"{ALICE}/data/x"))
