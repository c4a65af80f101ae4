"""The router on a real nats-server, called over gRPC: bodies here are opaque, as they are to the router."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1 import rpc_service_pb2_grpc as api
from mesh.sync.v1 import sync_pb2
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.record import ContentHeader, FileRecord, content_digest, sign_record
from syftmesh_core.text import safe_token
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_router.app import build
from syftmesh_router.domain.device_book import DeviceBook
from syftmesh_router.settings import RouterSettings

pytestmark = pytest.mark.integration

ALICE, BOB, EVE = "alice@x.example", "bob@y.example", "eve@z.example"
CLOCK = SystemClock()
KEY = Ed25519PrivateKey.generate()
ISSUER = TokenIssuer(KEY, "k1", "embedded", CLOCK)

OPEN_RULES = b'rules:\n  - pattern: "**"\n    access: {write: ["USER"]}\n    deny: ["eve@z.example"]\n'


class NoObjects:
    async def get(self, key: str) -> bytes:
        raise NotFound("there is none")


class EveryoneButEve:
    """A right check without rule files; the one with them has a test of its own."""

    def check(self, envelope: Any) -> None:
        if envelope.site == "nobody@x.example":
            raise NotFound("unknown", reason="SITE_UNKNOWN")
        if envelope.sender == EVE:
            raise PermissionDenied("denied")


@asynccontextmanager
async def nats_server(state: Path) -> AsyncIterator[tuple[NatsServer, NatsAddress]]:
    server = NatsServer(state / "nats")
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        try:
            yield server, address
        finally:
            await server.stop()


@dataclass
class Router:
    address: str
    bus: Bus

    @asynccontextmanager
    async def client(self, principal: str, device: str = "dev") -> AsyncIterator[Any]:
        async def provide() -> str:
            return ISSUER.issue(principal, device)[0]

        channel = open_channel(self.address, token_provider=provide)
        try:
            yield api.RpcServiceStub(channel)
        finally:
            await channel.close()


@asynccontextmanager
async def router(
    nats: NatsAddress, *, rights: Any = "fake", objects: Any = None, **settings: Any
) -> AsyncIterator[Router]:
    bus = await Bus.connect(nats.url, name="router", user=nats.user, password=nats.password)
    await bus.ensure_stream(topology.FILES)
    module = await build(
        RouterSettings(**settings),
        bus=bus,
        object_store=objects or NoObjects(),
        clock=CLOCK,
        rights=EveryoneButEve() if rights == "fake" else None,
    )
    verifier = TokenVerifier(StaticKeySet({"k1": KEY.public_key()}), "embedded", CLOCK)
    interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
    host = ServiceHost([module], interceptor=interceptor, check_interval_s=0.1, drain_s=2.0)
    try:
        async with host.running() as bound:
            async with asyncio.timeout(10):
                await host.wait_ready()
            yield Router(bound, bus)
    finally:
        await bus.close()


@asynccontextmanager
async def running(state: Path, **settings: Any) -> AsyncIterator[Router]:
    async with nats_server(state) as (_, nats), router(nats, **settings) as found:
        yield found


@dataclass
class Device:
    """A serving device, played by hand."""

    stub: Any
    site: str = BOB
    apps: tuple[str, ...] = ("*",)
    received: bool = True
    answers: bool = True
    seen: list[str] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    accepted: dict[str, int] = field(default_factory=dict)
    epoch: int = 0
    highest: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    out: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def run(self) -> None:
        stream = self.stub.Serve()
        hello = rpc.ServeRequest.Hello(site=self.site, apps=self.apps, highest_epoch=self.highest)
        await stream.write(rpc.ServeRequest(hello=hello))
        writer = asyncio.create_task(self._write(stream))
        try:
            async for frame in stream:
                await self._take(frame)
                self.news.set()
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
            stream.cancel()

    async def _write(self, stream: Any) -> None:
        while True:
            await stream.write(await self.out.get())

    async def _take(self, frame: Any) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "welcome":
            self.epoch = frame.welcome.epoch
            self.ready.set()
        elif kind == "delivery":
            call_id = frame.delivery.message.envelope.call_id
            self.seen.append(call_id)
            self.attempts.append(frame.delivery.attempt)
            if self.received:
                self.out.put_nowait(rpc.ServeRequest(received=rpc.ServeRequest.Received(call_id=call_id)))
            if self.answers:
                self.reply(call_id, b"re:" + frame.delivery.message.body)
        else:
            self.accepted[frame.reply_accepted.call_id] = frame.reply_accepted.state

    def reply(self, call_id: str, body: bytes = b"", state: int = pb.CALL_STATE_COMPLETED) -> None:
        reply = pb.Reply(call_id=call_id, state=state, body=body)
        self.out.put_nowait(rpc.ServeRequest(reply=reply))

    async def until(self, check: Any, timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not check():
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def device(
    found: Router, name: str = "site-dev", site: str = BOB, **play: Any
) -> AsyncIterator[Device]:
    async with found.client(site, name) as stub:
        player = Device(stub, site, **play)
        task = asyncio.create_task(player.run())
        try:
            async with asyncio.timeout(20):
                ready = asyncio.create_task(player.ready.wait())
                await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    ready.cancel()
                    await task
            yield player
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, MeshError):
                await task


def message(body: bytes = b"x", *, sender: str = ALICE, life_s: float = 60, **fields: Any) -> pb.Message:
    now_ms = CLOCK.now_ms()
    values = {
        "call_id": uuid7(CLOCK),
        "site": BOB,
        "app": "chat",
        "endpoint": "say",
        "sender": sender,
        "sender_device": "dev",
        "created_unix_ms": now_ms,
        "expires_unix_ms": now_ms + int(life_s * 1000),
        "version": 1,
        "suite": 1,
    }
    return pb.Message(envelope=pb.Envelope(**{**values, **fields}), body=body)


async def refusal(call: Any, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


async def test_online_call_comes_back_with_the_sites_reply(tmp_path):
    async with running(tmp_path) as found, device(found) as site, found.client(ALICE) as alice:
        call = message(b"hello")
        reply = (await alice.Call(rpc.CallRequest(message=call), timeout=10)).reply
        assert (reply.state, reply.body) == (pb.CALL_STATE_COMPLETED, b"re:hello")
        assert (reply.replier, reply.replier_device) == (BOB, "site-dev")
        # Direct path: nothing was stored on the way.
        assert (await found.bus.stream_state(subject.CALLS)).last_sequence == 0
        await site.until(lambda: call.envelope.call_id in site.accepted)


async def test_same_id_gives_same_reply_and_another_body_is_refused(tmp_path):
    async with running(tmp_path) as found, device(found) as site, found.client(ALICE) as alice:
        call = message(b"one")
        first = await alice.Call(rpc.CallRequest(message=call), timeout=10)
        again = await alice.Call(rpc.CallRequest(message=call), timeout=10)
        assert first == again
        assert len(site.seen) == 1
        assert (await alice.Send(rpc.SendRequest(message=call))).state == pb.CALL_STATE_COMPLETED
        other = pb.Message(envelope=call.envelope, body=b"two")
        assert await refusal(alice.Call(rpc.CallRequest(message=other)), Conflict) == "CALL_ID_REUSED"
        async with found.client("carol@x.example") as carol:
            stolen = message(b"one", sender="carol@x.example", call_id=call.envelope.call_id)
            assert await refusal(carol.Send(rpc.SendRequest(message=stolen)), Conflict) == "CALL_ID_REUSED"
            ask = rpc.GetReplyRequest(call_id=call.envelope.call_id)
            assert await refusal(carol.GetReply(ask), NotFound) == "CALL_UNKNOWN"


async def test_offline_sends_are_delivered_in_order_on_return(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        calls = [message(str(n).encode()) for n in range(20)]
        for call in calls:
            state = (await alice.Send(rpc.SendRequest(message=call))).state
            assert state == pb.CALL_STATE_PENDING
        waiting = asyncio.ensure_future(
            alice.AwaitReply(rpc.AwaitReplyRequest(call_id=calls[-1].envelope.call_id), timeout=20)
        )
        async with device(found) as site:
            await site.until(lambda: len(site.accepted) == 20)
            assert site.seen == [call.envelope.call_id for call in calls]
        assert (await waiting).reply.body == b"re:19"
        assert (await found.bus.stream_state(subject.CALLS)).messages == 0


async def test_direct_call_does_not_overtake_what_is_stored(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        stored = [message(str(n).encode()) for n in range(5)]
        for call in stored:
            await alice.Send(rpc.SendRequest(message=call))
        async with device(found) as site:
            late = message(b"late")
            await alice.Call(rpc.CallRequest(message=late), timeout=10)
            assert site.seen == [c.envelope.call_id for c in [*stored, late]]


async def test_call_without_received_is_stored_under_the_same_id(tmp_path):
    async with running(tmp_path, received_s=1.0) as found, found.client(ALICE) as alice:
        async with device(found, received=False, answers=False) as deaf:
            call = message(b"hard of hearing")
            waiting = asyncio.ensure_future(alice.Call(rpc.CallRequest(message=call), timeout=30))
            await deaf.until(lambda: len(deaf.seen) >= 2)
            assert set(deaf.seen) == {call.envelope.call_id}
        async with device(found) as site:
            assert (await waiting).reply.body == b"re:hard of hearing"
            assert site.seen == [call.envelope.call_id]


async def test_worker_that_dies_before_its_reply_is_replaced(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        call = message(b"work")
        waiting = asyncio.ensure_future(alice.Call(rpc.CallRequest(message=call), timeout=20))
        async with device(found, "dev-1", answers=False) as first:
            await first.until(lambda: first.seen)
            ask = rpc.GetReplyRequest(call_id=call.envelope.call_id)
            async with asyncio.timeout(5):
                while (await alice.GetReply(ask)).state != pb.CALL_STATE_DELIVERED:
                    await asyncio.sleep(0.01)
        async with device(found, "dev-1") as again:
            # RECEIVED means stored at the site: it comes back with the reply by itself.
            again.reply(call.envelope.call_id, b"done after restart")
            assert (await waiting).reply.body == b"done after restart"
            assert again.seen == []


async def test_first_final_state_wins_and_stays(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice, device(found, answers=False) as site:
        call = message(b"race")
        await alice.Send(rpc.SendRequest(message=call))
        await site.until(lambda: site.seen)
        call_id = call.envelope.call_id
        for n in range(10):
            site.reply(call_id, f"answer {n}".encode())
        await site.until(lambda: call_id in site.accepted)
        site.reply(call_id, b"", pb.CALL_STATE_FAILED)
        ends = [await alice.AwaitReply(rpc.AwaitReplyRequest(call_id=call_id), timeout=5) for _ in range(3)]
        assert {end.reply.state for end in ends} == {pb.CALL_STATE_COMPLETED}
        assert len({end.reply.body for end in ends}) == 1


async def test_call_expires_once_and_a_late_reply_changes_nothing(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        call = message(b"too late", life_s=1.0)
        await alice.Send(rpc.SendRequest(message=call))
        call_id = call.envelope.call_id
        end = await alice.AwaitReply(rpc.AwaitReplyRequest(call_id=call_id), timeout=10)
        assert (end.reply.state, end.reply.failure_reason) == (pb.CALL_STATE_EXPIRED, "CALL_EXPIRED")
        async with device(found) as site:
            site.reply(call_id, b"sorry")
            await site.until(lambda: call_id in site.accepted)
            assert site.accepted[call_id] == pb.CALL_STATE_EXPIRED
            assert site.seen == []
        again = await alice.GetReply(rpc.GetReplyRequest(call_id=call_id))
        assert (again.state, again.reply.body) == (pb.CALL_STATE_EXPIRED, b"")


async def test_forged_envelopes_and_foreign_sites_are_refused(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:

        def send(call: pb.Message) -> Any:
            return alice.Send(rpc.SendRequest(message=call))

        assert await refusal(send(message(sender=BOB)), PermissionDenied) == "SENDER_MISMATCH"
        assert await refusal(send(message(sender_device="x")), PermissionDenied) == "SENDER_MISMATCH"
        assert await refusal(send(message(b"x" * 262_145)), LimitExceeded) == "BODY_TOO_LARGE"
        assert await refusal(send(message(site="nobody@x.example")), NotFound) == "SITE_UNKNOWN"
        assert await refusal(send(message(site="*")), InvalidInput) == "INVALID_URL"
        assert await refusal(send(message(endpoint="../x")), InvalidInput) == "INVALID_URL"
        assert await refusal(send(message(call_id="1")), InvalidInput) == "ENVELOPE_INVALID"
        assert await refusal(send(message(life_s=31 * 86_400)), InvalidInput) == "ENVELOPE_INVALID"
        async with found.client(EVE) as eve:
            denied = eve.Send(rpc.SendRequest(message=message(sender=EVE)))
            assert await refusal(denied, PermissionDenied) == "PERMISSION_DENIED"
            assert await refusal(Device(eve, BOB).run(), PermissionDenied) == "PERMISSION_DENIED"
        assert (await found.bus.stream_state(subject.CALLS)).last_sequence == 0
        stub = alice.CancelCall(rpc.CancelCallRequest(call_id="x"))
        assert await refusal(stub, Unimplemented) == "UNIMPLEMENTED"


async def test_reply_of_another_site_ends_its_stream_and_changes_nothing(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice, device(found, answers=False) as site:
        call = message(b"for bob")
        await alice.Send(rpc.SendRequest(message=call))
        await site.until(lambda: site.seen)
        async with found.client(EVE, "eve-dev") as stub:
            spy = Device(stub, EVE)
            spy.reply(call.envelope.call_id, b"forged")
            assert await refusal(spy.run(), PermissionDenied) == "REPLY_FOREIGN"
        state = (await alice.GetReply(rpc.GetReplyRequest(call_id=call.envelope.call_id))).state
        assert state == pb.CALL_STATE_DELIVERED


async def test_apps_go_to_the_device_that_names_them_also_after_it_went(tmp_path):
    async with (
        running(tmp_path) as found,
        found.client(ALICE) as alice,
        device(found, "agent") as agent,
    ):
        async with device(found, "runner", apps=("rds",)) as runner:
            job = message(b"job", app="rds", endpoint="submit")
            assert (
                await alice.Call(rpc.CallRequest(message=job), timeout=10)
            ).reply.replier_device == "runner"
            talk = await alice.Call(rpc.CallRequest(message=message(b"hi")), timeout=10)
            assert talk.reply.replier_device == "agent"
        job = message(b"job 2", app="rds", endpoint="submit")
        assert (await alice.Send(rpc.SendRequest(message=job))).state == pb.CALL_STATE_PENDING
        # The waiting job does not hold up calls to other apps.
        await alice.Call(rpc.CallRequest(message=message(b"still here")), timeout=10)
        async with device(found, "runner", apps=("rds",)) as runner:
            await runner.until(lambda: runner.accepted)
            assert runner.seen == [job.envelope.call_id]
            assert job.envelope.call_id not in agent.seen


async def test_app_that_nobody_serves_is_not_found_at_once(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice, device(found, apps=("rds",)):
        reply = (await alice.Call(rpc.CallRequest(message=message()), timeout=5)).reply
        assert (reply.state, reply.failure_reason) == (pb.CALL_STATE_NOT_FOUND, "APP_UNKNOWN")


async def test_fifth_failed_delivery_is_a_dead_letter(tmp_path):
    async with running(tmp_path, received_s=0.1, direct_ms=50) as found, found.client(ALICE) as alice:
        async with device(found, received=False, answers=False) as deaf:
            call, after = message(b"poison"), message(b"fine")
            await alice.Send(rpc.SendRequest(message=call))
            await alice.Send(rpc.SendRequest(message=after))
            ask = rpc.AwaitReplyRequest(call_id=call.envelope.call_id)
            end = (await alice.AwaitReply(ask, timeout=60)).reply
            assert (end.state, end.failure_reason) == (pb.CALL_STATE_FAILED, "CALL_UNDELIVERABLE")
            assert deaf.attempts[:5] == [1, 2, 3, 4, 5]
            deaf.received = deaf.answers = True
            ask = rpc.AwaitReplyRequest(call_id=after.envelope.call_id)
            assert (await alice.AwaitReply(ask, timeout=30)).reply.body == b"re:fine"
        dead = await found.bus.last_message(subject.dead(BOB, call.envelope.call_id))
        assert dead is not None
        assert dead.decode(pb.Message).body == b"poison"


async def test_sender_above_its_rate_is_told_when_to_come_again(tmp_path):
    async with running(tmp_path, sender_burst=3, sender_per_s=1) as found, found.client(ALICE) as alice:
        for _ in range(3):
            await alice.Send(rpc.SendRequest(message=message()))
        with pytest.raises(LimitExceeded) as caught:
            await alice.Send(rpc.SendRequest(message=message()))
        assert caught.value.reason == "RATE_LIMITED"
        assert 0 < int(caught.value.metadata["retry_after_ms"]) <= 1000


async def test_call_to_an_offline_site_ends_with_the_rpcs_deadline_and_can_be_awaited(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        call = message(b"later")
        with pytest.raises(DeadlineExceeded):
            await alice.Call(rpc.CallRequest(message=call), timeout=0.5)
        async with device(found):
            ask = rpc.AwaitReplyRequest(call_id=call.envelope.call_id)
            assert (await alice.AwaitReply(ask, timeout=10)).reply.body == b"re:later"


async def test_connect_stream_carries_many_calls_in_order(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice, device(found) as site:
        stream = alice.Connect()
        calls = [message(str(n).encode()) for n in range(30)]
        for call in calls:
            await stream.write(rpc.ConnectRequest(call=call))
        bad = message(sender=BOB)
        await stream.write(rpc.ConnectRequest(call=bad))
        await stream.write(rpc.ConnectRequest(await_call_id=calls[0].envelope.call_id))
        await stream.done_writing()
        frames = [frame async for frame in stream]
        bodies = {f.reply.call_id: f.reply.body for f in frames if f.HasField("reply")}
        assert bodies == {c.envelope.call_id: b"re:" + c.body for c in calls}
        refusals = [f.refusal for f in frames if f.HasField("refusal")]
        assert [(r.call_id, r.code, r.reason) for r in refusals] == [
            (bad.envelope.call_id, "PERMISSION_DENIED", "SENDER_MISMATCH")
        ]
        assert site.seen == [call.envelope.call_id for call in calls]


async def test_two_replicas_deliver_for_each_other(tmp_path):
    async with nats_server(tmp_path) as (_, nats), router(nats) as one, router(nats) as two:
        async with (
            device(one, "agent") as agent,
            device(two, "runner", apps=("rds",)) as runner,
            one.client(ALICE) as at_one,
            two.client(ALICE) as at_two,
        ):
            chat = await at_two.Call(rpc.CallRequest(message=message(b"a")), timeout=10)
            assert chat.reply.replier_device == "agent"
            job = message(b"b", app="rds", endpoint="submit")
            reply = (await at_one.Call(rpc.CallRequest(message=job), timeout=10)).reply
            assert reply.replier_device == "runner"
            stored = message(b"c", app="rds", endpoint="submit")
            await at_two.Send(rpc.SendRequest(message=stored))
            ask = rpc.AwaitReplyRequest(call_id=stored.envelope.call_id)
            assert (await at_one.AwaitReply(ask, timeout=10)).reply.body == b"re:c"
            assert len(agent.seen) == 1
            assert len(runner.seen) == 2
            assert agent.epoch == runner.epoch
        # The one without devices now gives the lease up; calls through either still arrive.
        async with device(two, "agent") as agent, one.client(ALICE) as at_one:
            reply = (await at_one.Call(rpc.CallRequest(message=message(b"d")), timeout=15)).reply
            assert reply.body == b"re:d"
            assert agent.epoch > 1


async def test_lease_holder_that_dies_is_followed_with_a_higher_epoch(tmp_path):
    async with nats_server(tmp_path) as (_, nats), router(nats, lease_s=2.0) as two:
        async with router(nats, lease_s=2.0) as one, device(one) as site:
            first_epoch = site.epoch
            # The process vanishes: nothing of it reaches the bus any more.
            await one.bus.close()
        async with two.client(ALICE) as alice, device(two) as site:
            assert site.epoch > first_epoch
            reply = (await alice.Call(rpc.CallRequest(message=message(b"x")), timeout=10)).reply
            assert reply.body == b"re:x"


async def test_what_a_holder_that_died_had_out_is_not_waited_for(tmp_path):
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        call = message(b"taken and not settled")
        await alice.Send(rpc.SendRequest(message=call))
        taken = found.bus.pull_consumer(
            subject.CALLS, f"site_{safe_token(BOB)}", subjects=(subject.calls_to(BOB),)
        )
        async with aclosing(taken) as deliveries:
            await anext(deliveries)
        async with device(found) as site:
            # Its acknowledgement would be overdue only after 30 s.
            await site.until(lambda: call.envelope.call_id in site.accepted)


async def test_a_replica_that_is_told_to_end_gives_its_leases_up_though_a_cancellation_is_lost(
    tmp_path, monkeypatch
):
    lost = asyncio.Event()
    wait = DeviceBook.wait_changed

    async def deaf_once(self: DeviceBook) -> None:
        try:
            await wait(self)
        except asyncio.CancelledError:
            if lost.is_set():
                raise
            lost.set()  # as `asyncio.wait_for` of Python 3.11 does in a bad moment

    monkeypatch.setattr(DeviceBook, "wait_changed", deaf_once)
    async with nats_server(tmp_path) as (_, nats), router(nats) as two:
        async with router(nats) as one, device(one) as site:
            assert site.epoch
        assert lost.is_set()
        # Well before the lease of 10 s would end by itself.
        async with asyncio.timeout(6), device(two) as site:
            assert site.epoch


async def test_site_that_has_seen_a_higher_epoch_is_served_with_one_above_it(tmp_path):
    """As after a rebuild of the hub's state, when terms start anew."""
    async with running(tmp_path) as found, found.client(ALICE) as alice:
        async with device(found, highest=50) as site:
            assert site.epoch > 50
            await alice.Call(rpc.CallRequest(message=message()), timeout=10)
        async with device(found) as site:
            assert site.epoch > 51


async def test_malformed_frames_end_the_stream(tmp_path):
    async with running(tmp_path) as found, found.client(BOB) as bob:
        received = rpc.ServeRequest(received=rpc.ServeRequest.Received(call_id="x"))
        for first in (received, rpc.ServeRequest(), rpc.ServeRequest(hello=rpc.ServeRequest.Hello(site=BOB))):
            stream = bob.Serve()
            await stream.write(first)
            assert await refusal(stream.read(), InvalidInput) == "FRAME_INVALID"
        site = Device(bob)
        site.out.put_nowait(rpc.ServeRequest(hello=rpc.ServeRequest.Hello(site=BOB)))
        assert await refusal(site.run(), InvalidInput) == "FRAME_INVALID"
        site = Device(bob)
        site.reply(uuid7(CLOCK), b"", pb.CALL_STATE_EXPIRED)
        assert await refusal(site.run(), InvalidInput) == "FRAME_INVALID"
        stream = bob.Connect()
        await stream.write(rpc.ConnectRequest())
        assert await refusal(stream.read(), InvalidInput) == "FRAME_INVALID"


async def test_kill_of_the_bus_and_restart_of_the_router_lose_nothing(tmp_path):
    calls = [message(str(n).encode()) for n in range(60)]
    acknowledged: list[str] = []
    async with nats_server(tmp_path) as (server, nats):
        async with router(nats) as found, found.client(ALICE) as alice:

            async def send_all() -> None:
                for call in calls[:40]:
                    while True:
                        try:
                            await alice.Send(rpc.SendRequest(message=call), timeout=15)
                            break
                        except Unavailable:
                            await asyncio.sleep(0.1)
                    acknowledged.append(call.envelope.call_id)

            sending = asyncio.create_task(send_all())
            while len(acknowledged) < 15:
                await asyncio.sleep(0.005)
            os.kill(server.pid, signal.SIGKILL)
            await sending
        async with router(nats, lease_s=2.0) as found, found.client(ALICE) as alice:
            for call in calls[40:]:
                await alice.Send(rpc.SendRequest(message=call))
                acknowledged.append(call.envelope.call_id)
            async with device(found) as site:
                await site.until(lambda: len(site.accepted) == 60, 30)
                # In order, and what the router saw fail is not delivered as something new.
                assert list(dict.fromkeys(site.seen)) == acknowledged
            for call in calls:
                reply = (await alice.GetReply(rpc.GetReplyRequest(call_id=call.envelope.call_id))).reply
                assert reply.body == b"re:" + call.body


async def test_expiry_survives_a_restart_of_the_router(tmp_path):
    async with nats_server(tmp_path) as (_, nats):
        call = message(b"x", life_s=2.0)
        async with router(nats) as found, found.client(ALICE) as alice:
            await alice.Send(rpc.SendRequest(message=call))
        async with router(nats) as found, found.client(ALICE) as alice:
            ask = rpc.AwaitReplyRequest(call_id=call.envelope.call_id)
            assert (await alice.AwaitReply(ask, timeout=10)).reply.state == pb.CALL_STATE_EXPIRED


class RuleObjects:
    """An object store that holds one rule file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def get(self, key: str) -> bytes:
        assert key.endswith(hashlib.sha256(self.data).hexdigest())
        return self.data


async def test_rights_come_from_the_file_log(tmp_path):
    async with nats_server(tmp_path) as (_, nats):
        async with router(nats, rights="log", objects=RuleObjects(OPEN_RULES)) as found:
            async with found.client(ALICE) as alice, found.client(EVE) as eve:
                send = alice.Send(rpc.SendRequest(message=message()))
                assert await refusal(send, NotFound) == "SITE_UNKNOWN"
                signer = DeviceSecret.generate(BOB, "dev", admin=True)
                path = "app_data/chat/rpc/say/syft.pub.yaml"
                entry = _rule_entry(signer, path, OPEN_RULES)
                where = subject.files(BOB, hashlib.sha256(entry.path.encode()).hexdigest()[:32])
                await found.bus.publish(where, entry)
                async with asyncio.timeout(5):
                    while True:
                        try:
                            await alice.Send(rpc.SendRequest(message=message()))
                            break
                        except (NotFound, PermissionDenied):
                            await asyncio.sleep(0.02)
                denied = eve.Send(rpc.SendRequest(message=message(sender=EVE)))
                assert await refusal(denied, PermissionDenied) == "PERMISSION_DENIED"
                elsewhere = alice.Send(rpc.SendRequest(message=message(endpoint="other")))
                assert await refusal(elsewhere, PermissionDenied) == "PERMISSION_DENIED"


def _rule_entry(signer: DeviceSecret, path: str, data: bytes) -> sync_pb2.FileEntry:
    object_id = hashlib.sha256(data).hexdigest()
    content = ContentHeader(False, object_id, len(data), blake3(data).digest(), len(data))
    record = FileRecord(
        site=BOB,
        path=path,
        revision=1,
        previous_digest=None,
        content_digest=content_digest(content),
        epoch=1,
        deleted=False,
        rules_checkpoint=None,
        author=BOB,
        device_id=signer.device_id,
        created_ms=CLOCK.now_ms(),
    )
    signed = sign_record(record, content, signer)
    return sync_pb2.FileEntry(
        path=f"{BOB}/{path}",
        record=sync_pb2.SignedRecord(
            record=signed.record, content=signed.content, signature=signed.signature
        ),
    )
