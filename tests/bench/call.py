"""Calls: who am I, a call from site to site, store and forward."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import nats
from bench.child import module, running
from bench.measure import Row, Target, alone, compared, pairs, percentile
from bench.mesh import APP, CALLER, SITE, running_mesh
from bench.peer import SERVICE
from mesh.identity.v1 import identity_service_pb2 as identity
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1.content_pb2 import RequestContent
from nats.js.api import StorageType, StreamConfig
from syftmesh_client.node import Node
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_kit.native import NatsServer

CLOCK: Final = SystemClock()
CALLS: Final = 300
IN_FLIGHT: Final = 64
RATE_CALLS: Final = 1500
BODY: Final = bytes(256)
URL: Final = f"syft://{SITE}/app_data/{APP}/rpc/echo"


async def whoami(folder: Path, count: int) -> list[Row]:
    """`WhoAmI` through the client against an empty echo."""
    async with running_mesh(folder) as mesh, _peer(folder) as address, mesh.node(CALLER) as node:
        async with grpc.aio.insecure_channel(address) as channel:
            echo: Any = channel.unary_unary(f"/{SERVICE}/Echo")
            found = await pairs(
                count,
                lambda: _p50(lambda: node.session.identity.WhoAmI(identity.WhoAmIRequest())),
                lambda: _p50(lambda: echo(b"")),
            )
    return [compared("whoami by RPC, p50", "ms", "empty grpc.aio echo", found, Target(1.5))]


async def relay(folder: Path, count: int) -> list[Row]:
    """A call from one site to another: the router against a bare relay, and sealed against plain."""
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(running_mesh(folder))
        device = await mesh.site()
        address = await stack.enter_async_context(_peer(folder))
        await stack.enter_async_context(_site(folder, "peer", address))
        node = await stack.enter_async_context(mesh.node(CALLER))
        bare = await stack.enter_async_context(_bare(address))
        async with _site(folder, "plain", str(device), mesh.server), _plain(node) as plain:
            await _until_served(plain)
            single = await pairs(count, lambda: _p50(plain.call), lambda: _p50(bare.call))
            many = await pairs(count, lambda: _rate(plain.call), lambda: _rate(bare.call))
        rows = [
            compared("RPC between two sites, plain, p50", "ms", "bare stream relay", single, Target(1.5)),
            compared(
                f"RPC between two sites, plain, {IN_FLIGHT} in flight",
                "calls/s",
                "bare stream relay",
                many,
                Target(0.6, at_least=True),
            ),
        ]
        plain_ms = rows[0].ours
        async with _site(folder, "sealed", str(device), mesh.server):
            content = RequestContent(body=BODY)
            await node.calls.call(URL, content)
            sealed = [await _p50(lambda: node.calls.call(URL, content)) for _ in range(count)]
        rows.append(alone("RPC between two sites, sealed, p50", "ms", sealed, round(plain_ms + 1.0, 2)))
    return rows


async def send(folder: Path, count: int) -> list[Row]:
    """`Send` to a site that is away against an append to a stream that is synced at each message."""
    async with running_mesh(folder) as mesh, mesh.node(CALLER) as node, _stream(folder) as append:
        await mesh.site()

        async def store() -> Any:
            return await node.session.rpc.Send(rpc.SendRequest(message=_message(node)))

        one = await pairs(count, lambda: _p50(store), lambda: _p50(append))
        many = await pairs(count, lambda: _rate(store, 400), lambda: _rate(append, 400))
    return [
        compared("store and forward: Send, p50", "ms", "JetStream append, synced", one, Target(2.0)),
        compared(
            f"store and forward: Send, {IN_FLIGHT} in flight", "calls/s", "JetStream append", many, None
        ),
    ]


class Stream:
    """A stream of calls and replies, told apart by id."""

    def __init__(self, stream: Any, make: Any, take: Any) -> None:
        self._stream = stream
        self._make = make
        self._take = take
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self._writing = asyncio.Lock()  # grpc takes one message of a stream at a time

    async def call(self) -> Any:
        """Make one call and return its end."""
        key, frame = self._make()
        self._waiting[key] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[key]
        async with self._writing:
            await self._stream.write(frame)
        return await waiting

    async def read(self) -> None:
        """Give every reply to its call."""
        async for frame in self._stream:
            key, reply = self._take(frame)
            self._waiting.pop(key).set_result(reply)


@asynccontextmanager
async def _reading(stream: Stream) -> AsyncIterator[Stream]:
    task = asyncio.create_task(stream.read())
    try:
        yield stream
    finally:
        task.cancel()


@asynccontextmanager
async def _plain(node: Node) -> AsyncIterator[Stream]:
    def make() -> tuple[str, rpc.ConnectRequest]:
        message = _message(node)
        return message.envelope.call_id, rpc.ConnectRequest(call=message)

    def take(frame: rpc.ConnectResponse) -> tuple[str, Any]:
        if frame.WhichOneof("frame") == "refusal":
            return frame.refusal.call_id, frame.refusal
        return frame.reply.call_id, frame.reply

    async with _reading(Stream(node.session.rpc.Connect(), make, take)) as stream:
        yield stream


@asynccontextmanager
async def _bare(address: str) -> AsyncIterator[Stream]:
    def make() -> tuple[bytes, bytes]:
        key = uuid.UUID(uuid7(CLOCK)).bytes
        return key, key + BODY

    async with grpc.aio.insecure_channel(address) as channel:
        stream: Any = channel.stream_stream(f"/{SERVICE}/Call")()
        async with _reading(Stream(stream, make, lambda frame: (frame[:16], frame))) as found:
            yield found


@asynccontextmanager
async def _peer(folder: Path) -> AsyncIterator[str]:
    async with running(*module("bench.peer"), log=folder / "peer.log") as (_, line):
        yield line.split()[1]


@asynccontextmanager
async def _site(folder: Path, *arguments: str) -> AsyncIterator[None]:
    async with running(*module("bench.site"), *arguments, log=folder / "site.log"):
        yield


@asynccontextmanager
async def _stream(folder: Path) -> AsyncIterator[Any]:
    """An append to a stream of a nats-server of its own, which syncs at each message as the mesh's does."""
    server = NatsServer(folder / "nats")
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        try:
            connection = await nats.connect(address.url, user=address.user, password=address.password)
            context = connection.jetstream()
            await context.add_stream(StreamConfig("bench", subjects=["bench"], storage=StorageType.FILE))
            yield lambda: context.publish("bench", bytes(len(BODY) + 200))
            await connection.close()
        finally:
            await server.stop()


async def _until_served(plain: Stream) -> None:
    """Return when the site answers: the router may need a moment to hear of its rules and of its stream."""
    async with asyncio.timeout(30):
        while getattr(await plain.call(), "state", None) != pb.CALL_STATE_COMPLETED:
            await asyncio.sleep(0.1)


def _message(node: Node) -> pb.Message:
    now_ms = CLOCK.now_ms()
    envelope = pb.Envelope(
        call_id=uuid7(CLOCK),
        site=SITE,
        app=APP,
        endpoint="echo",
        sender=node.principal,
        sender_device=node.keystore.device.device_id,
        created_unix_ms=now_ms,
        expires_unix_ms=now_ms + 600_000,
        version=1,
        suite=1,
    )
    return pb.Message(envelope=envelope, body=BODY)


async def _p50(ask: Any, calls: int = CALLS) -> float:
    """Return the median of calls one after the other, in milliseconds."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        _check(await ask())
        times.append((time.perf_counter() - started) * 1000)
    return percentile(times, 0.5)


async def _rate(ask: Any, calls: int = RATE_CALLS) -> float:
    """Return calls per second with 64 in flight."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            _check(await ask())

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(work())
    return calls / (time.perf_counter() - started)


def _check(answer: Any) -> None:
    if isinstance(answer, rpc.ConnectResponse.Refusal):
        raise RuntimeError(f"a call was refused: {answer.reason}: {answer.message}")
    if isinstance(answer, pb.Reply) and answer.state != pb.CALL_STATE_COMPLETED:
        raise RuntimeError(f"a call ended as {pb.CallState.Name(answer.state)}: {answer.failure_reason}")
