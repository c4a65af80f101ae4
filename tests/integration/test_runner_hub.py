"""A job from a scientist's call to the released file, over a whole hub: sealed calls, sealed files, real sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import json_format
from mesh.common.v1 import common_pb2
from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from mesh.rds.v1 import rds_service_pb2_grpc as api
from mesh.rpc.v1.content_pb2 import RequestContent
from prometheus_client import CollectorRegistry
from syftmesh_client.account import NewAccount, add_devices, create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.node import Node, NodeLogin, open_node
from syftmesh_core.approval import APPROVAL_KIND, RELEASE_KIND, Recipient, ReleasedFile, ReleaseTerms
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.enc import Reader
from syftmesh_core.errors import MeshError, NotFound, PermissionDenied, WrongState
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.layout import standard_layout
from syftmesh_core.statement import Statement, sign_statement
from syftmesh_crypto.app import build as build_crypto
from syftmesh_crypto.settings import CryptoSettings
from syftmesh_executor.archive import pack_code
from syftmesh_executor.sandbox import SandboxExecutor
from syftmesh_identity.app import build as build_identity
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetWatcher
from syftmesh_kit.native import NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import TokenVerifier
from syftmesh_router.app import build as build_router
from syftmesh_router.settings import RouterSettings
from syftmesh_runner.app import build
from syftmesh_runner.settings import RunnerSettings
from syftmesh_sync.app import build as build_sync
from syftmesh_sync.settings import SyncSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ALICE, CAROL, EVE = "alice@hospital.example", "carol@lab.example", "eve@evil.example"
CLOCK = SystemClock()
RPC = f"syft://{ALICE}/app_data/rds/rpc"
DATASET = f"{ALICE}/app_data/rds/datasets/people"
CODE = """
import os, pathlib
import pandas as pd
frame = pd.read_csv(pathlib.Path(os.environ["DATA_DIR"]) / "people.csv")
counts = frame.groupby("ward").size().reset_index(name="count")
counts.to_csv(pathlib.Path(os.environ["OUTPUT_DIR"]) / "counts.csv", index=False)
"""


@dataclass
class Hub:
    url: str
    state: Path

    @asynccontextmanager
    async def node(self, folder: Path, label: str = "profile") -> AsyncIterator[Node]:
        login = NodeLogin(local_token_file=self.state / "local.token", label=label)
        async with open_node(folder, self.url, login=login) as node:
            yield node


@asynccontextmanager
async def hub(state: Path) -> AsyncIterator[Hub]:
    nats, weed = NatsServer(state / "nats"), SeaweedServer(state / "s3")
    async with asyncio.TaskGroup() as tasks:
        address, s3 = await nats.start(tasks), await weed.start(tasks)
        bus = await Bus.connect(address.url, name="hub", user=address.user, password=address.password)
        try:
            async with _services(state, bus, S3ObjectStore(s3)) as bound, _well_known(bound) as url:
                yield Hub(url, state)
        finally:
            await bus.close()
            await nats.stop()
            await weed.stop()


@asynccontextmanager
async def _services(state: Path, bus: Bus, store: S3ObjectStore) -> AsyncIterator[str]:
    files = {"signing_key_file": state / "signing.pem", "local_token_file": state / "local.token"}
    shared: Any = {"bus": bus, "object_store": store, "clock": CLOCK}
    modules = [
        await build_identity(IdentitySettings(**files), bus=bus, clock=CLOCK),
        await build_crypto(CryptoSettings(journal=False), **shared),
        await build_sync(SyncSettings(journal=False), **shared),
        await build_router(RouterSettings(), **shared),
    ]
    keys = KeySetWatcher(bus)
    public = frozenset[str]().union(*(getattr(module, "public_methods", ()) for module in modules))
    interceptor = ServerInterceptor(
        verifier=TokenVerifier(keys, "embedded", CLOCK),
        metrics=RpcMetrics(CollectorRegistry()),
        public_methods=public,
    )
    host = ServiceHost(modules, interceptor=interceptor, check_interval_s=0.2, drain_s=3.0)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(keys.run())
        async with host.running() as bound:
            async with asyncio.timeout(30):
                await host.wait_ready()
            yield bound
        following.cancel()


@asynccontextmanager
async def _well_known(grpc_address: str) -> AsyncIterator[str]:
    body = json.dumps({"issuer": "embedded", "grpc": grpc_address, "version": "0"}).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def make_account(found: Hub, principal: str, base: Path, *, runner: bool = False) -> NewAccount:
    account = create_account(principal, CLOCK)
    KeyStore.create(base / "profile", device=account.device, own_root=account.root_public)
    async with found.node(base / "profile") as node:
        await node.directory.publish(account.device_list)
        if runner:
            secret = DeviceSecret.generate(principal, uuid7(CLOCK), serves=True)
            KeyStore.create(base / "runner", device=secret, own_root=account.root_public)
            current = await node.directory.list_of(principal)
            await node.directory.publish(add_devices(current, account.device, [secret.public()]))
            for path, data in standard_layout(principal).items():
                await node.files.write(path, data)
    return account


class Owner:
    """The owner's program on the socket, with the profile's device."""

    def __init__(self, address: str, admin: DeviceSecret) -> None:
        self.channel = open_channel(address)
        self.admin = admin
        self.datasets: Any = api.DatasetServiceStub(self.channel)
        self.jobs: Any = api.JobServiceStub(self.channel)
        self.audit: Any = api.AuditServiceStub(self.channel)

    def signed(self, kind: str, body: dict[str, Any]) -> common_pb2.SignedStatement:
        statement = Statement(kind, self.admin.principal, self.admin.device_id, CLOCK.now_ms(), None, body)
        reader = Reader("statement-signed", sign_statement(statement, self.admin))
        return common_pb2.SignedStatement(statement=reader.raw(), signature=reader.raw())

    async def approve(self, job_id: str) -> None:
        found = await self.jobs.GetJob(pb.GetJobRequest(job_id=job_id))
        signed = self.signed(APPROVAL_KIND, json.loads(found.approval_terms_json))
        await self.jobs.ApproveJob(pb.ApproveJobRequest(job_id=job_id, approval=signed))

    async def release(self, job_id: str, recipient: Recipient) -> pb.ReleaseJobResponse:
        job = (await self.jobs.GetJob(pb.GetJobRequest(job_id=job_id))).job
        files = tuple(ReleasedFile(o.name, o.sha256) for o in job.outputs if o.name == "counts.csv")
        terms = ReleaseTerms(job_id, files, (recipient,))
        signed = self.signed(RELEASE_KIND, json.loads(terms.to_json()))
        return await self.jobs.ReleaseJob(pb.ReleaseJobRequest(job_id=job_id, release=signed))


@asynccontextmanager
async def runner(found: Hub, base: Path, admin: DeviceSecret) -> AsyncIterator[Owner]:
    settings = RunnerSettings(state_dir=base / "site", memory_bytes=512 << 20, reseal_every_s=1.0)
    async with found.node(base / "runner", "runner") as node:
        module = build(settings, node=node, executor=SandboxExecutor())
        interceptor = ServerInterceptor(
            verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
        )
        host = ServiceHost([module], interceptor=interceptor, address=module.address, check_interval_s=0.2)
        try:
            async with host.running() as bound:
                owner = Owner(bound, admin)
                yield owner
                await owner.channel.close()
        finally:
            module.close()


async def eventually(ask: Any, within_s: float = 40) -> Any:
    """Return what `ask` gives once it gives something; what is not there yet is no error."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                found = await ask()
                if found:
                    return found
            except (NotFound, PermissionDenied, WrongState):
                pass
            await asyncio.sleep(0.1)


def request(message: Any) -> RequestContent:
    return RequestContent(body=message.SerializeToString())


def submission(card: rds_pb2.Dataset, folder: Path) -> rds_pb2.JobSubmission:
    (folder / "main.py").write_text(CODE)
    return rds_pb2.JobSubmission(
        job_id=uuid7(CLOCK),
        datasets=[rds_pb2.DatasetVersion(name=card.name, digest=card.private_digest)],
        code_archive=pack_code(folder / "main.py"),
        entrypoint="main.py",
        parameters_json="{}",
        purpose="prevalence",
    )


async def test_a_job_travels_from_a_sealed_call_to_a_sealed_result(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "patient": [f"{n * 7919 % 2**40:012x}" for n in range(1, 301)],
            "ward": np.where(np.arange(300) % 3 == 0, "north", "south"),
        }
    )
    private = tmp_path / "private"
    private.mkdir()
    frame.to_csv(private / "people.csv", index=False)
    async with hub(tmp_path) as found:
        base = tmp_path / "alice"
        alice = await make_account(found, ALICE, base, runner=True)
        carol = await make_account(found, CAROL, tmp_path / "carol")
        await make_account(found, EVE, tmp_path / "eve")
        async with (
            found.node(base / "profile") as profile,
            found.node(tmp_path / "carol/profile") as scientist,
            found.node(tmp_path / "eve/profile") as stranger,
        ):
            async with runner(found, base, alice.device) as owner:
                await owner.datasets.CreateDataset(
                    pb.CreateDatasetRequest(
                        name="people", private_path=str(private), generate_mock=True, audience=[CAROL]
                    )
                )
                await asyncio.sleep(0.5)
                assert await profile.files.stat(f"{DATASET}/card.json") is None, "no rule, no card"
                rules = f'rules:\n  - pattern: "**"\n    access: {{read: ["{CAROL}"]}}\n'
                await profile.files.write(f"{DATASET}/syft.pub.yaml", rules.encode())
                read = await eventually(lambda: scientist.files.read(f"{DATASET}/card.json"))
            card = json_format.Parse(read.data, rds_pb2.Dataset())
            mock = await scientist.files.read(f"{DATASET}/mock/people.csv")
            assert not [value for value in frame["patient"] if value.encode() in mock.data]
            with pytest.raises(MeshError):
                await stranger.files.read(f"{DATASET}/card.json")

            # The site is offline: the submission waits in the router.
            message = submission(card, tmp_path)
            await scientist.calls.send(f"{RPC}/submit", request(message))
            async with runner(found, base, alice.device) as owner:
                job_id, reference = message.job_id, rds_pb2.JobReference(job_id=message.job_id)

                async def state() -> rds_pb2.JobState.ValueType:
                    reply = await scientist.calls.call(f"{RPC}/status", request(reference))
                    return rds_pb2.JobStatus.FromString(reply.body).state

                async def is_in(wanted: rds_pb2.JobState.ValueType) -> bool:
                    return await state() == wanted

                await eventually(lambda: is_in(rds_pb2.JOB_STATE_IN_REVIEW))
                with pytest.raises(NotFound) as unknown:
                    await stranger.calls.call(f"{RPC}/status", request(reference))
                assert unknown.value.reason == "JOB_UNKNOWN"
                with pytest.raises(NotFound) as unread:
                    await stranger.calls.call(f"{RPC}/submit", request(submission(card, tmp_path)))
                assert unread.value.reason == "DATASET_UNKNOWN"

                await owner.approve(job_id)
                await eventually(lambda: is_in(rds_pb2.JOB_STATE_SUCCEEDED))
                results = f"{ALICE}/app_data/rds/results/{CAROL}/{job_id}"
                assert await scientist.files.stat(f"{results}/counts.csv") is None
                answer = await owner.release(job_id, Recipient(CAROL, carol.root_public.hex()))
                counts = await scientist.files.read(f"{results}/counts.csv")
                assert counts.data == b"ward,count\nnorth,100\nsouth,200\n"
                assert answer.bytes_out > len(counts.data)
                with pytest.raises(MeshError):
                    await stranger.files.read(f"{results}/counts.csv")

                async def released() -> bool:
                    data = (await scientist.files.read(f"{results}/status.json")).data
                    status = json_format.Parse(data, rds_pb2.JobStatus())
                    return list(status.released) == ["counts.csv"]

                await eventually(released)

                # A new device of the reader can open what was sealed before it was there.
                laptop = DeviceSecret.generate(CAROL, uuid7(CLOCK), admin=True)
                KeyStore.create(tmp_path / "laptop", device=laptop, own_root=carol.root_public)
                current = await scientist.directory.list_of(CAROL, refresh=True)
                await scientist.directory.publish(add_devices(current, carol.device, [laptop.public()]))
                async with found.node(tmp_path / "laptop") as second:
                    again = await eventually(lambda: second.files.read(f"{results}/counts.csv"))
                assert again.data == counts.data
                verified = await owner.audit.VerifyAudit(pb.VerifyAuditRequest())
                assert verified.checkpoints >= 1
