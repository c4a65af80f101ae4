"""A site's agent against a whole hub: real bus, real store, sealed calls between two accounts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mesh.agent.v1 import agent_service_pb2 as agent_pb
from mesh.agent.v1 import agent_service_pb2_grpc as agent_api
from mesh.identity.v1 import identity_service_pb2 as identity_rpc
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from prometheus_client import CollectorRegistry
from syftmesh_agent.app import AgentModule, build, listen_address, socket_file
from syftmesh_agent.settings import AgentSettings
from syftmesh_client.account import add_devices, create_account
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_client.keystore import KeyStore
from syftmesh_client.node import Node, NodeLogin, open_node
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    WrongState,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.layout import standard_layout
from syftmesh_crypto.app import build as build_crypto
from syftmesh_crypto.settings import CryptoSettings
from syftmesh_identity.app import build as build_identity
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.native import NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import TokenVerifier
from syftmesh_router.app import build as build_router
from syftmesh_router.settings import RouterSettings
from syftmesh_sync.app import build as build_sync
from syftmesh_sync.settings import SyncSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ALICE, BOB, EVE = "alice@x.example", "bob@y.example", "eve@z.example"
CLOCK = SystemClock()
CHAT = f"syft://{BOB}/app_data/chat/rpc/say"
CHAT_RULES = b'rules:\n  - pattern: "**"\n    access: {write: ["USER"]}\n    deny: ["eve@z.example"]\n'
COMPLETED = pb.CALL_STATE_COMPLETED


@dataclass
class Hub:
    url: str
    state: Path
    bus: Bus

    @property
    def local_token(self) -> Path:
        return self.state / "local.token"

    @asynccontextmanager
    async def node(self, folder: Path, label: str = "profile") -> AsyncIterator[Node]:
        login = NodeLogin(local_token_file=self.local_token, label=label)
        async with open_node(folder, self.url, login=login) as node:
            yield node


@asynccontextmanager
async def well_known(grpc_address: str) -> AsyncIterator[str]:
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


@asynccontextmanager
async def hub(state: Path) -> AsyncIterator[Hub]:
    nats, weed = NatsServer(state / "nats"), SeaweedServer(state / "s3")
    async with asyncio.TaskGroup() as tasks:
        address, s3 = await nats.start(tasks), await weed.start(tasks)
        bus = await Bus.connect(address.url, name="hub", user=address.user, password=address.password)
        try:
            async with _modules(state, bus, S3ObjectStore(s3)) as bound, well_known(bound) as url:
                yield Hub(url, state, bus)
        finally:
            await bus.close()
            await nats.stop()
            await weed.stop()


@asynccontextmanager
async def _modules(state: Path, bus: Bus, store: S3ObjectStore) -> AsyncIterator[str]:
    files = {"signing_key_file": state / "signing.pem", "local_token_file": state / "local.token"}
    identity = await build_identity(IdentitySettings(**files), bus=bus, clock=CLOCK)
    shared: Any = {"bus": bus, "object_store": store, "clock": CLOCK}
    modules = [
        identity,
        await build_crypto(CryptoSettings(journal=False), **shared),
        await build_sync(SyncSettings(journal=False), **shared),
        await build_router(RouterSettings(), **shared),
    ]
    keys = KeySetWatcher(bus)
    verifier = TokenVerifier(keys, "embedded", CLOCK)
    revocations = RevocationWatcher(bus, verifier)
    public = frozenset[str]().union(*(getattr(module, "public_methods", ()) for module in modules))
    interceptor = ServerInterceptor(
        verifier=verifier, metrics=RpcMetrics(CollectorRegistry()), public_methods=public
    )
    host = ServiceHost(modules, interceptor=interceptor, check_interval_s=0.2, drain_s=3.0)
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(keys.run()), tasks.create_task(revocations.run())]
        async with host.running() as bound:
            async with asyncio.timeout(30):
                await host.wait_ready()
            yield bound
        for task in following:
            task.cancel()


@dataclass
class Account:
    """An owner's profile and agent folders, both devices in the signed list."""

    principal: str
    profile: Path
    agent: Path


async def make_account(found: Hub, principal: str, base: Path, *, layout: bool = True) -> Account:
    account = create_account(principal, CLOCK)
    agent = DeviceSecret.generate(principal, uuid7(CLOCK), serves=True)
    folders = Account(principal, base / "profile", base / "agent")
    for folder, secret in ((folders.profile, account.device), (folders.agent, agent)):
        KeyStore.create(folder, device=secret, own_root=account.root_public)
    async with found.node(folders.profile) as node:
        await node.directory.publish(account.device_list)
        current = await node.directory.list_of(principal)
        await node.directory.publish(add_devices(current, account.device, [agent.public()]))
        if layout:
            files = dict(standard_layout(principal))
            files[f"{principal}/app_data/chat/rpc/syft.pub.yaml"] = CHAT_RULES
            for path, data in files.items():
                await node.files.write(path, data)
    return folders


@dataclass
class Chat:
    """An app that notes what it is asked, inside the transaction of its reply."""

    idempotent: bool = True
    started: list[str] = field(default_factory=list)

    async def handle(self, request: IncomingCall, tx: Transaction) -> ReplyContent:
        text = request.request.body.decode()
        self.started.append(text)
        if request.endpoint == "fail":
            raise WrongState("not now", reason="NOT_NOW", metadata={"why": text})
        if request.endpoint == "crash":
            raise RuntimeError("secret detail")
        tx.execute("CREATE TABLE IF NOT EXISTS said (text TEXT)")
        tx.execute("INSERT INTO said VALUES (?)", (text,))
        return ReplyContent(status=200, content_type="text/plain", body=f"{request.sender}: {text}".encode())


@asynccontextmanager
async def agent(found: Hub, account: Account, chat: Chat | None = None) -> AsyncIterator[AgentModule]:
    settings = AgentSettings(
        folder=account.agent, hub_url=found.url, local_token_file=found.local_token, drain_s=2.0
    )
    module = await build(settings, clock=CLOCK, apps={"chat": chat or Chat()})
    interceptor = ServerInterceptor(
        verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
    )
    host = ServiceHost(
        [module], interceptor=interceptor, address=listen_address(settings), check_interval_s=0.1
    )
    async with host.running():
        async with asyncio.timeout(30):
            await host.wait_ready()
        yield module


def said(account: Account) -> list[str]:
    with contextlib.closing(sqlite3.connect(account.agent / "agent.sqlite")) as database:
        return [text for (text,) in database.execute("SELECT text FROM said ORDER BY rowid")]


def ask(text: str) -> RequestContent:
    return RequestContent(method="POST", content_type="text/plain", body=text.encode())


async def test_sealed_calls_between_two_accounts(tmp_path):
    async with hub(tmp_path) as found:
        bob = await make_account(found, BOB, tmp_path / "bob")
        alice = await make_account(found, ALICE, tmp_path / "alice", layout=False)
        eve = await make_account(found, EVE, tmp_path / "eve", layout=False)
        async with found.node(alice.profile) as node, found.node(eve.profile) as other:
            # Offline first: what is sent waits, in order.
            ids = [await node.calls.send(CHAT, ask(str(n))) for n in range(5)]
            assert (await node.calls.reply(ids[0])).state == pb.CALL_STATE_PENDING
            chat = Chat()
            async with agent(found, bob, chat) as module:
                replies = [(await node.calls.wait(call_id, 20)).body for call_id in ids]
                assert replies == [f"{ALICE}: {n}".encode() for n in range(5)]
                assert chat.started == said(bob) == ["0", "1", "2", "3", "4"]
                reply = await node.calls.call(f"{CHAT}?loud=1", ask("hello"), timeout_s=10)
                assert (reply.status, reply.body) == (200, f"{ALICE}: hello".encode())
                await _refusals(node, other, chat)
                await _local_api(bob, module)
            # The agent says who it is with a fresh process and knows what it did.
            async with agent(found, bob) as module:
                await node.calls.call(CHAT, ask("again"), timeout_s=10)
                assert module.status().bytes_sent["message"] > 0
            assert said(bob)[-1] == "again"


async def _refusals(node: Node, other: Node, chat: Chat) -> None:
    with pytest.raises(PermissionDenied):
        await other.calls.call(CHAT, ask("x"), timeout_s=5)
    with pytest.raises(WrongState) as failed:
        await node.calls.call(CHAT.replace("say", "fail"), ask("later"), timeout_s=10)
    assert (failed.value.reason, failed.value.metadata["why"]) == ("NOT_NOW", "later")
    with pytest.raises(Exception, match="The app failed") as crashed:
        await node.calls.call(CHAT.replace("say", "crash"), ask("x"), timeout_s=10)
    assert "secret" not in str(crashed.value)
    with pytest.raises(NotFound) as unknown:
        await other.calls.call(f"syft://{BOB}/app_data/rds/rpc/status", ask("x"), timeout_s=5)
    assert unknown.value.reason == "APP_UNKNOWN"
    with pytest.raises(NotFound) as nobody:
        await node.calls.call("syft://nobody@x.example/app_data/chat/rpc/say", ask("x"), timeout_s=5)
    assert nobody.value.reason == "PRINCIPAL_UNKNOWN"
    before = list(chat.started)
    await _unsealed_and_replayed(node)
    assert chat.started == [*before, "once"]


async def _unsealed_and_replayed(node: Node) -> None:
    device, now_ms = node.keystore.device, CLOCK.now_ms()

    def message(body: bytes, call_id: str = "") -> pb.Message:
        envelope = pb.Envelope(
            call_id=call_id or uuid7(CLOCK),
            site=BOB,
            app="chat",
            endpoint="say",
            sender=device.principal,
            sender_device=device.device_id,
            created_unix_ms=now_ms,
            expires_unix_ms=now_ms + 60_000,
            version=1,
            suite=1,
        )
        return pb.Message(envelope=envelope, body=body)

    plain = await node.session.rpc.Call(rpc.CallRequest(message=message(b"in the clear")), timeout=10)
    assert (plain.reply.state, plain.reply.failure_reason) == (pb.CALL_STATE_FAILED, "SEAL_INVALID")
    sealed = await node.calls._message(CHAT, ask("once"), 60)
    assert (await node.session.rpc.Call(rpc.CallRequest(message=sealed), timeout=10)).reply.state == COMPLETED
    # The same sealed body under another id, and another body under the same id.
    moved = message(sealed.body)
    moved.envelope.expires_unix_ms = sealed.envelope.expires_unix_ms
    again = await node.session.rpc.Call(rpc.CallRequest(message=moved), timeout=10)
    assert again.reply.failure_reason == "SEAL_INVALID"
    other = await node.calls._message(CHAT, ask("twice"), 60)
    other.envelope.call_id = sealed.envelope.call_id
    with pytest.raises(Conflict) as reused:
        await node.session.rpc.Call(rpc.CallRequest(message=other), timeout=10)
    assert reused.value.reason == "CALL_ID_REUSED"


async def _local_api(bob: Account, module: AgentModule) -> None:
    socket = socket_file(bob.agent)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    channel = open_channel(f"unix:{socket}")
    try:
        stub = agent_api.AgentServiceStub(channel)
        status = await stub.GetStatus(agent_pb.GetStatusRequest(), timeout=5)
    finally:
        await channel.close()
    assert (status.site, status.connected) == (BOB, True)
    assert status.bytes_sent["message"] > 0
    assert module.status().layout_missing in {None, ()}


async def test_agent_process_joins_serves_survives_kill_and_drains(tmp_path):
    async with hub(tmp_path) as found:
        bob = await make_account(found, BOB, tmp_path / "bob")
        alice = await make_account(found, ALICE, tmp_path / "alice", layout=False)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ},
            "SYFTMESH_AGENT_FOLDER": str(bob.agent),
            "SYFTMESH_AGENT_HUB_URL": found.url,
            "SYFTMESH_AGENT_JOIN_TOKEN_FILE": str(await join_token(found, bob, tmp_path)),
        }

        async def start() -> asyncio.subprocess.Process:
            with (tmp_path / "agent.log").open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "syftmesh_agent", env=environment, stdout=log, stderr=log
                )

        async with found.node(alice.profile) as node:
            child = await start()
            await _unknown_app(node)
            child.send_signal(signal.SIGKILL)
            await child.wait()
            call_id = await node.calls.send(CHAT, ask("while away"))
            child = await start()
            with pytest.raises(NotFound):
                await node.calls.wait(call_id, 20)
            child.terminate()
            async with asyncio.timeout(15):
                assert await child.wait() == 0
        environment["SYFTMESH_AGENT_FOLDER"] = str(tmp_path / "nothing")
        child = await start()
        assert await child.wait() == NotFound.exit_code
    assert b"Traceback" not in (tmp_path / "agent.log").read_bytes()


async def join_token(found: Hub, account: Account, folder: Path) -> Path:
    async with found.node(account.profile) as node:
        request = identity_rpc.CreateJoinTokenRequest(principal=account.principal, label="agent")
        secret = (await node.session.identity.CreateJoinToken(request)).secret
    file = folder / "join.token"
    file.write_text(secret)
    file.chmod(0o600)
    return file


async def _unknown_app(node: Node) -> None:
    call_id = await node.calls.send(CHAT, ask("x"))
    with pytest.raises(NotFound) as caught:
        await node.calls.wait(call_id, 20)
    assert caught.value.reason == "APP_UNKNOWN"
    with pytest.raises(InvalidInput) as unknown:
        await node.calls.reply(uuid7(CLOCK))
    assert unknown.value.reason == "SITE_NEEDED"
