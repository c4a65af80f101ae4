"""What is open when a right ends: every stream that depends on one ends, or says what was lost, within 5 s."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from mesh.rpc.v1 import rpc_pb2
from mesh.rpc.v1 import rpc_service_pb2 as calls
from mesh.rpc.v1 import rpc_service_pb2_grpc as calls_api
from mesh.sync.v1 import sync_pb2
from mesh.sync.v1 import sync_service_pb2 as rpc
from mesh.sync.v1 import sync_service_pb2_grpc as sync_api
from syftmesh_client.file_view import ChangeKind
from syftmesh_core.clock import uuid7
from syftmesh_core.errors import MeshError, NotFound, PermissionDenied, Unauthenticated, Unimplemented
from syftmesh_gateway.app import build as build_gateway
from syftmesh_gateway.settings import GatewaySettings
from syftmesh_kit import subject, topology
from syftmesh_kit.keyset import RevocationPublisher, RevocationWatcher
from syftmesh_router.app import build as build_router
from syftmesh_router.settings import RouterSettings

sys.path.insert(0, str(Path(__file__).parent))
from file_mesh import ALICE, BOB, CLOCK, Desk, Hub, People, channel_to, desk, hub, servers

pytestmark = pytest.mark.integration

CAROL = "carol@x.example"
WITHIN_S = 5.0
FOR_BOB = b"rules: [{pattern: '**', access: {read: [bob@x.example]}}]\n"
FOR_TEAM = b"rules: [{pattern: '**', access: {read: ['group:team']}}]\n"
PRIVATE = b"rules: []\n"
GROUPS = f"{ALICE}/syft.groups.yaml"


@dataclass
class Mesh:
    """A hub with router and gateway, whose open calls end as revocations are announced."""

    hub: Hub
    forward: str
    publisher: RevocationPublisher
    people: People


async def _router(bus: Any, store: Any) -> Any:
    return await build_router(RouterSettings(), bus=bus, object_store=store, clock=CLOCK)


@asynccontextmanager
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(servers(tmp_path))
        running = await stack.enter_async_context(hub(given, more=_router, journal=False, heartbeat_s=1.0))
        bucket = await running.bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_REVOKED))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        watching = tasks.create_task(RevocationWatcher(running.bus, running.verifier).run())
        stack.callback(watching.cancel)
        settings = GatewaySettings(
            http_port=0,
            forward_listen="127.0.0.1:0",
            backends=dict.fromkeys(("sync", "rpc", "crypto"), running.address),
            s3_endpoint=given.s3.endpoint,
        )
        gateway = await build_gateway(settings, clock=CLOCK)
        await gateway.start(tasks)
        stack.push_async_callback(gateway.drain)
        forward = f"127.0.0.1:{gateway.forward_port}"
        yield Mesh(running, forward, RevocationPublisher(bucket, CLOCK), People(tmp_path))


async def _watch(channel: Any, opened: asyncio.Event) -> None:
    async for _ in sync_api.SyncServiceStub(channel).WatchChanges(rpc.WatchChangesRequest()):
        opened.set()


async def _serve(channel: Any, opened: asyncio.Event) -> None:
    stream: Any = calls_api.RpcServiceStub(channel).Serve()
    await stream.write(calls.ServeRequest(hello=calls.ServeRequest.Hello(site=BOB, apps=["*"])))
    async for _ in stream:
        opened.set()


def _message() -> rpc_pb2.Message:
    now_ms = CLOCK.now_ms()
    envelope = rpc_pb2.Envelope(
        call_id=uuid7(CLOCK),
        site=ALICE,
        app="chat",
        endpoint="say",
        sender=BOB,
        sender_device="dev",
        created_unix_ms=now_ms,
        expires_unix_ms=now_ms + 60_000,
        version=1,
        suite=1,
    )
    return rpc_pb2.Message(envelope=envelope, body=b"x")


async def _connect(channel: Any, opened: asyncio.Event) -> None:
    stream: Any = calls_api.RpcServiceStub(channel).Connect()
    # Not a call that may be made, and the refusal shows that the stream is open.
    await stream.write(calls.ConnectRequest(call=_message()))
    async for _ in stream:
        opened.set()


STREAMS: dict[str, Callable[[Any, asyncio.Event], Awaitable[None]]] = {
    "mesh.sync.v1.SyncService.WatchChanges": _watch,
    "mesh.rpc.v1.RpcService.Serve": _serve,
    "mesh.rpc.v1.RpcService.Connect": _connect,
}
"""Every stream of sync and router, which a gateway passes on; there is no other one in either."""


async def test_the_list_of_streams_is_complete(tmp_path: Path) -> None:
    found = {
        method.full_name: method
        for service in (rpc.DESCRIPTOR.services_by_name, calls.DESCRIPTOR.services_by_name)
        for method in next(iter(service.values())).methods
        if method.server_streaming
    }
    assert set(STREAMS) <= set(found)
    async with mesh(tmp_path) as running, channel_to(running.hub.address, BOB, "dev") as channel:
        for name in set(found) - set(STREAMS):
            with pytest.raises(Unimplemented):
                async for _ in getattr(calls_api.RpcServiceStub(channel), name.rpartition(".")[2])(
                    _request(found[name].input_type.name)
                ):
                    pass


def _request(name: str) -> Any:
    return getattr(calls, name)()


@pytest.mark.parametrize("what", ["device_id", "principal"])
@pytest.mark.parametrize("where", ["hub", "gateway"])
async def test_every_stream_of_what_is_revoked_ends_and_no_other(
    tmp_path: Path, what: str, where: str
) -> None:
    async with mesh(tmp_path) as running, AsyncExitStack() as stack:
        ending: list[asyncio.Task[None]] = []
        staying: list[asyncio.Task[None]] = []
        opened: list[asyncio.Event] = []
        target = running.hub.address if where == "hub" else running.forward
        for name, open_stream in STREAMS.items():
            for who, device, kept in (
                (BOB, "lost", False),
                (BOB, "other", what == "device_id"),
                (CAROL, "carols", True),
            ):
                if who != BOB and name.endswith("Serve"):
                    continue  # a device serves its own datasite only
                channel = await stack.enter_async_context(channel_to(target, who, device))
                event = asyncio.Event()
                task = asyncio.create_task(open_stream(channel, event), name=f"{name} {who} {device}")
                opened.append(event)
                (staying if kept else ending).append(task)
        async with asyncio.timeout(20):
            await asyncio.gather(*(event.wait() for event in opened))
        value = "lost" if what == "device_id" else BOB
        await running.publisher.revoke(**{what: value})
        done, pending = await asyncio.wait(ending, timeout=WITHIN_S)
        assert not pending, [task.get_name() for task in pending]
        for task in done:
            error = task.exception()
            assert isinstance(error, Unauthenticated), (task.get_name(), error)
            assert error.reason == "TOKEN_REVOKED"
        assert not [task.get_name() for task in staying if task.done()]
        for task in staying:
            task.cancel()
            with suppress(asyncio.CancelledError, MeshError):
                await task


async def _lost(desk_of_bob: Desk, take: Callable[[], Awaitable[object]]) -> float:
    """Return after how many seconds a stream says that the file is lost, once `take` has returned."""
    loop = asyncio.get_running_loop()
    async with aclosing(desk_of_bob.files.watch([ALICE])) as feed:
        async for change in feed:
            if change.kind is ChangeKind.CAUGHT_UP:
                break
        await take()
        since = loop.time()
        async with asyncio.timeout(WITHIN_S):
            async for change in feed:
                if change.kind is ChangeKind.ACCESS_LOST and change.path == f"{ALICE}/for/x":
                    return loop.time() - since
    raise AssertionError("the feed ended")


async def test_a_stream_says_what_a_rule_a_group_and_the_clock_take(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running, AsyncExitStack() as stack:
        alice = await stack.enter_async_context(desk(running.people, running.hub.address, ALICE))
        bob = await stack.enter_async_context(desk(running.people, running.forward, BOB))
        rules = f"{ALICE}/for/syft.pub.yaml"
        await alice.files.write(rules, FOR_BOB)
        await alice.files.write(f"{ALICE}/for/x", b"1")

        await _lost(bob, lambda: alice.files.write(rules, PRIVATE))
        with pytest.raises(NotFound):
            await bob.files.read(f"{ALICE}/for/x")

        await alice.files.write(GROUPS, b"groups: {team: ['group:lead'], lead: [bob@x.example]}\n")
        await alice.files.write(rules, FOR_TEAM)
        await _lost(bob, lambda: alice.files.write(GROUPS, b"groups: {team: ['group:lead'], lead: []}\n"))
        with pytest.raises(NotFound):
            await bob.files.read(f"{ALICE}/for/x")

        end_ms = CLOCK.now_ms() + 3000
        moment = datetime.fromtimestamp(end_ms / 1000, UTC).isoformat(timespec="milliseconds")
        expiring = FOR_BOB.replace(b"}}]", f"}}, expires: {moment.replace('+00:00', 'Z')}}}]".encode())
        await alice.files.write(rules, expiring)
        assert await bob.files.stat(f"{ALICE}/for/x") is not None

        async def until_the_moment() -> None:
            await asyncio.sleep((end_ms - CLOCK.now_ms()) / 1000)

        assert await _lost(bob, until_the_moment) <= 1.0
        with pytest.raises(NotFound):
            await bob.files.read(f"{ALICE}/for/x")


async def test_a_call_needs_a_right_that_a_group_may_give_and_take(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running, AsyncExitStack() as stack:
        alice = await stack.enter_async_context(desk(running.people, running.hub.address, ALICE))
        channel = await stack.enter_async_context(channel_to(running.forward, BOB, "dev"))
        stub: Any = calls_api.RpcServiceStub(channel)
        team = b"rules: [{pattern: '**', access: {write: ['group:team']}}]\n"
        await alice.files.write(f"{ALICE}/app_data/chat/rpc/syft.pub.yaml", team)

        async def sent() -> str:
            try:
                await stub.Send(calls.SendRequest(message=_message()))
            except (PermissionDenied, NotFound) as error:  # a datasite that it has not seen yet is none
                return error.reason
            return ""

        async def comes(reason: str) -> None:
            async with asyncio.timeout(1.0):  # the router follows the log by itself
                while await sent() != reason:
                    await asyncio.sleep(0.01)

        await comes("PERMISSION_DENIED")
        await alice.files.write(GROUPS, b"groups: {team: [bob@x.example]}\n")
        await comes("")
        await alice.files.write(GROUPS, b"groups: {team: []}\n")
        await comes("PERMISSION_DENIED")


def _life_s(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])


async def test_every_url_that_is_signed_lives_sixty_seconds_at_most(tmp_path: Path) -> None:
    async with mesh(tmp_path) as running, AsyncExitStack() as stack:
        alice = await stack.enter_async_context(desk(running.people, running.hub.address, ALICE))
        bob = await stack.enter_async_context(desk(running.people, running.hub.address, BOB))
        await alice.files.write(
            f"{ALICE}/for/syft.pub.yaml",
            b"rules: [{pattern: '**', access: {write: [bob@x.example]}}, {pattern: own, access: {}}]\n",
        )
        await alice.files.write(f"{ALICE}/for/x", b"1")
        await alice.files.write(f"{ALICE}/for/own", b"for the owner alone")
        own = running.hub.module.log.site(ALICE).live(f"{ALICE}/for/own").content
        new = sync_pb2.ObjectSpec(sha256=hashlib.sha256(b"new").digest(), size_bytes=3)
        # Stored already under a name that Bob may not read: he has to show that he has the bytes.
        held = sync_pb2.ObjectSpec(sha256=bytes.fromhex(own.object_id), size_bytes=own.stored_size_bytes)
        request = rpc.OpenUploadRequest(operation_id=str(uuid.uuid4()), site=ALICE, objects=[new, held])
        uploads = (await bob.session.sync.OpenUpload(request)).targets
        download = await bob.session.sync.OpenDownload(rpc.OpenDownloadRequest(paths=[f"{ALICE}/for/x"]))
        urls = [*(target.url for target in uploads), download.targets[0].url]
        ends_ms = [*(target.expires_unix_ms for target in uploads), download.targets[0].expires_unix_ms]
        assert len([url for url in urls if url]) == 3
        assert all(0 < _life_s(url) <= 60 for url in urls)
        assert all(end_ms - CLOCK.now_ms() <= 60_000 for end_ms in ends_ms)
        # The life is part of what is signed: nobody lengthens it.
        longer = urls[2].replace(f"X-Amz-Expires={_life_s(urls[2])}", "X-Amz-Expires=86400")
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(urls[2])).status_code == 200
            assert (await http.get(longer)).status_code == 403


def test_nothing_but_the_shelf_of_sync_signs_urls() -> None:
    root = Path(__file__).parents[2]
    signing = {
        str(file.relative_to(root))
        for folder in ("services", "libs/client", "libs/sdk", "libs/executor", "libs/flower")
        for file in (root / folder).rglob("*.py")
        if ".presign_" in file.read_text()
    }
    assert signing == {"services/sync/src/syftmesh_sync/adapters/object_shelf.py"}
