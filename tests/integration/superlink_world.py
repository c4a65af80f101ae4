"""A real nats-server, the superlink service and Flower's SuperLink behind it, played on by hand."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.node_pb2 import Node as NodeProto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from mesh.federated.v1 import federated_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetPublisher
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_kit.topology import bucket
from syftmesh_superlink.app import SuperlinkModule, build
from syftmesh_superlink.settings import SuperlinkSettings

ANNA, BOB, CARL, EVE = "anna@x.example", "bob@y.example", "carl@z.example", "eve@e.example"
CLOCK = SystemClock()
KEY = Ed25519PrivateKey.generate()
ISSUER = TokenIssuer(KEY, "k1", "embedded", CLOCK)
PROJECT = """
[project]
name = "tiny"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "anna"
[tool.flwr.app.components]
serverapp = "tiny.server:app"
clientapp = "tiny.client:app"
[tool.flwr.app.config]
num-server-rounds = 2
rate = 0.5
"""


def token_of(principal: str) -> str:
    """Return an access token."""
    return ISSUER.issue(principal, "dev")[0]


def tiny_fab(project: str = PROJECT) -> bytes:
    """Return a small app bundle."""
    files = {"pyproject.toml": project, "tiny/server.py": "app = None\n", "tiny/client.py": "app = None\n"}
    lines = [f"{name},{sha256(text.encode()).hexdigest()},{len(text) * 8}" for name, text in files.items()]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in {**files, ".info/CONTENT": "\n".join(lines)}.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[NatsAddress]:
    """A nats-server of one's own."""
    server = NatsServer(folder / "nats")
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        try:
            yield address
        finally:
            await server.stop()


@dataclass
class Hub:
    """The service under test."""

    grpc: str
    module: SuperlinkModule
    clients: list[Any] = field(default_factory=list)

    @property
    def http(self) -> str:
        """Return the address of Flower's APIs."""
        return f"127.0.0.1:{self.module.http_port}"

    @asynccontextmanager
    async def stub(self, principal: str) -> AsyncIterator[Any]:
        """A gRPC client."""

        async def provide() -> str:
            return token_of(principal)

        channel = open_channel(self.grpc, token_provider=provide)
        try:
            yield api.FederationServiceStub(channel)
        finally:
            await channel.close()

    async def post(
        self, path: str, message: Any = None, principal: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send one of Flower's requests."""
        sent = {
            "content-type": "application/protobuf",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        if principal is not None:
            sent["authorization"] = f"Bearer {token_of(principal)}"
        body = message.SerializeToString() if message is not None else b""
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
            return await client.post(f"http://{self.http}{path}", content=body, headers=sent)


@asynccontextmanager
async def hub(nats: NatsAddress, folder: Path) -> AsyncIterator[Hub]:
    """Run the service on a bus and a state folder."""
    bus = await Bus.connect(nats.url, name="superlink", user=nats.user, password=nats.password)
    try:
        for name in (subject.KV_IDENTITY_KEYS, subject.KV_IDENTITY_REVOKED):
            await bus.ensure_kv(bucket(name))
        await KeySetPublisher(bus.kv(subject.KV_IDENTITY_KEYS)).publish("k1", KEY.public_key())
        module = await build(SuperlinkSettings(state_dir=folder, drain_s=1.0), bus=bus, clock=CLOCK)
        verifier = TokenVerifier(StaticKeySet({"k1": KEY.public_key()}), "embedded", CLOCK)
        interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
        host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.1, drain_s=3.0)
        async with host.running() as bound:
            async with asyncio.timeout(10):
                await host.wait_ready()
            found = Hub(bound, module)
            try:
                yield found
            finally:
                for client in found.clients:
                    client.close()
    finally:
        await bus.close()


async def create(
    stub: Any, *sites: str, rounds: int = 1, minimum: int = 0, config: str = "", fab: bytes | None = None
) -> pb.Run:
    """Create a run."""
    run = pb.Run(sites=sites, dataset="tiny", rounds=rounds, minimum_sites=minimum, run_config_json=config)
    return (await stub.CreateRun(rpc.CreateRunRequest(run=run, bundle=fab or tiny_fab()))).run


async def report(stub: Any, run_id: str, state: int, reason: str = "") -> pb.Run:
    """Report a site's state."""
    request = rpc.ReportSiteRequest(run_id=run_id, state=state, reason=reason)
    return (await stub.ReportSite(request)).run


async def approved_run(found: Hub, *sites: str, minimum: int = 0) -> str:
    """Create a run of Anna's that every site approved, and return its id."""
    async with found.stub(ANNA) as anna:
        run_id = (await create(anna, *sites, minimum=minimum)).run_id
    for site in sites:
        async with found.stub(site) as stub:
            await report(stub, run_id, pb.SITE_STATE_APPROVED)
    return run_id


async def acquire(found: Hub, run_id: str) -> str:
    """Return the task token of Anna's run."""
    async with found.stub(ANNA) as anna:
        return (await anna.AcquireServerTask(rpc.AcquireServerTaskRequest(run_id=run_id))).task_token


class Bearer:
    """Adds a principal's access token to requests of Flower's own clients, as a site's relay does."""

    def __init__(self, principal: str) -> None:
        self._principal = principal

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Add it."""
        context.request.headers["authorization"] = f"Bearer {token_of(self._principal)}"
        return call_next(context)


class Node:
    """A SuperNode's connection, by Flower's own client: calls block, run them in a thread."""

    def __init__(self, found: Hub, site: str) -> None:
        private, public = generate_key_pairs()
        self.public_key = public_key_to_bytes(public)
        self.node_id = 0
        self.client = FleetHttpClient.from_server_address(
            found.http,
            insecure=True,
            root_certificates=None,
            interceptors=[
                NodeAuthHttpInterceptor(private, public),
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                Bearer(site),
            ],
        )
        found.clients.append(self.client)

    def register(self) -> int:
        """Register and activate, and return the node id."""
        answer = self.client.RegisterNode(RegisterNodeFleetRequest(public_key=self.public_key))
        self.node_id = answer.node_id
        self.client.ActivateNode(ActivateNodeRequest(public_key=self.public_key, heartbeat_interval=30))
        return self.node_id

    def pull(self) -> tuple[Message, float] | None:
        """Pull a message with its objects; gives it and the seconds it took, None without one."""
        begun = time.monotonic()
        answer = self.client.PullMessages(PullMessagesRequest(node=NodeProto(node_id=self.node_id)))
        if not answer.messages_list:
            return None
        took_s = time.monotonic() - begun
        run_id = answer.messages_list[0].metadata.run_id
        pull = make_pull_object_fn_protobuf(self.client.PullObject, NodeProto(node_id=self.node_id), run_id)
        ids = [tree.object_id for tree in iterate_object_tree(answer.message_object_trees[0])]
        contents = pull_objects(ids, pull)
        message_id = answer.messages_list[0].metadata.message_id
        message = inflate_object_from_contents(message_id, contents)
        message.metadata.__dict__["_message_id"] = message_id
        return message, took_s

    def reply(self, message: Message) -> None:
        """Answer a message with its own content."""
        TaskIdentity.run_id, TaskIdentity.node_id = message.metadata.run_id, self.node_id
        answer = Message(message.content, reply_to=message)
        with no_object_id_recompute():
            answer.metadata.__dict__["_message_id"] = answer.object_id
            objects = get_all_nested_objects(answer)
            pushed = self.client.PushMessages(
                PushMessagesRequest(
                    node=NodeProto(node_id=self.node_id),
                    messages_list=[message_to_proto(remove_content_from_message(answer))],
                    message_object_trees=[get_object_tree(answer)],
                    clientapp_runtime_list=[0.1],
                )
            )
            push_objects(
                objects,
                push_object_fn=make_push_object_fn_protobuf(
                    self.client.PushObject,
                    NodeProto(node_id=self.node_id),
                    message.metadata.run_id,
                    pushed.session_id,
                ),
                object_ids_to_push=set(pushed.objects_to_push),
            )

    def unregister(self) -> None:
        """Say goodbye."""
        self.client.UnregisterNode(UnregisterNodeFleetRequest(node_id=self.node_id))


class Aggregator:
    """A ServerApp's Grid, by Flower's own client: calls block, run them in a thread."""

    def __init__(self, found: Hub, run_id: str, token: str) -> None:
        self.client = RuntimeHttpClient.from_server_address(
            found.http,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(token=token),
                Bearer(ANNA),
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        found.clients.append(self.client)
        self.grid = HttpGrid(runtime_api_address=found.http, insecure=True, token=token)
        self.grid._client = self.client
        self.grid.set_run(Run.create_empty(int(run_id)))
        self.run_id = int(run_id)

    def begin(self) -> None:
        """Take the task's input."""
        self.client.PullTaskInput(PullTaskInputRequest())

    def push(self, *nodes: int, size: int = 100) -> list[str]:
        """Send each node an array."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self.run_id, 1, 1
        content = RecordDict({"arrays": ArrayRecord([np.ones(size)])})
        return list(
            self.grid.push_messages([Message(content, node, "train", group_id="1") for node in nodes])
        )

    def pull(self, ids: list[str]) -> list[Message]:
        """Pull replies, which waits for one."""
        return list(self.grid.pull_messages(ids))

    def finish(self, sub_status: str = "completed") -> None:
        """Say that the task ended."""
        self.client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status))
