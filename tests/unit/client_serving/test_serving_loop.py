"""A site's loop against a router played by hand: hostile bodies, repetitions, crashes, rights, replies."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from syftmesh_client.call import CallClient
from syftmesh_client.call_seal import CallSeal
from syftmesh_client.directory import PrincipalKeys
from syftmesh_client.inbox import SqliteInbox
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_client.problem import CONTENT_TYPE, problem_content, problem_error
from syftmesh_client.serving import Refusal, ServingLoop, _longer_pause_s
from syftmesh_core.clock import SystemClock, system_random, uuid7
from syftmesh_core.errors import (
    Cancelled,
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_core.identity.device import DeviceSecret

ALICE, BOB, EVE = "alice@x.example", "bob@y.example", "eve@z.example"
CLOCK = SystemClock()
URL = f"syft://{BOB}/app_data/chat/rpc/say"


@dataclass
class Keys:
    """A key store's part that is needed."""

    device: DeviceSecret
    own_root: bytes


def keys(principal: str, *, serves: bool = False) -> Keys:
    return Keys(DeviceSecret.generate(principal, uuid7(CLOCK), serves=serves), system_random(32))


class Directory:
    def __init__(self, *everyone: Keys) -> None:
        self.by_name = {
            k.device.principal: PrincipalKeys(k.device.principal, k.own_root, 1, (k.device.public(),))
            for k in everyone
        }
        self.away = False
        self.refreshed = 0

    async def devices_of(self, principal: str, *, refresh: bool = False) -> PrincipalKeys:
        self.refreshed += refresh
        if self.away:
            raise Unavailable("away")
        if principal not in self.by_name:
            raise NotFound("none", reason="PRINCIPAL_UNKNOWN")
        return self.by_name[principal]


class Stream:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.to_site: asyncio.Queue[Any] = asyncio.Queue()
        self.news = asyncio.Event()

    async def write(self, frame: Any) -> None:
        await asyncio.sleep(0)
        self.sent.append(frame)
        self.news.set()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        frame = await self.to_site.get()
        if frame is None:
            raise StopAsyncIteration
        if isinstance(frame, MeshError):
            raise frame
        return frame

    def cancel(self) -> None:
        self.to_site.put_nowait(None)


@dataclass
class Router:
    """The router's stub and, on the other side, what a test does with it."""

    streams: list[Stream] = field(default_factory=list)
    refuses: MeshError | None = None
    answer: pb.Reply | None = None
    calls: list[pb.Message] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rpc(self) -> Any:
        return self

    def Serve(self) -> Stream:  # noqa: N802
        stream = Stream()
        if self.refuses is not None:
            stream.to_site.put_nowait(self.refuses)
        self.streams.append(stream)
        self.opened.set()
        return stream

    async def Call(self, request: Any, timeout: float) -> Any:  # noqa: N802, ASYNC109
        self.calls.append(request.message)
        return rpc.CallResponse(reply=self.answer)

    async def Send(self, request: Any) -> Any:  # noqa: N802
        self.calls.append(request.message)
        return rpc.SendResponse(call_id=request.message.envelope.call_id, state=pb.CALL_STATE_PENDING)

    async def AwaitReply(self, request: Any, timeout: float) -> Any:  # noqa: N802, ASYNC109
        if self.answer is None:
            raise DeadlineExceeded("not yet")
        return rpc.AwaitReplyResponse(reply=self.answer)

    async def GetReply(self, request: Any) -> Any:  # noqa: N802
        if self.answer is None:
            return rpc.GetReplyResponse(state=pb.CALL_STATE_PENDING)
        return rpc.GetReplyResponse(state=self.answer.state, reply=self.answer)

    def welcome(self, epoch: int = 1) -> None:
        frame = rpc.ServeResponse(welcome=rpc.ServeResponse.Welcome(epoch=epoch))
        self.streams[-1].to_site.put_nowait(frame)

    def deliver(self, message: pb.Message, epoch: int = 1) -> None:
        delivery = rpc.ServeResponse.Delivery(message=message, epoch=epoch, attempt=1)
        self.streams[-1].to_site.put_nowait(rpc.ServeResponse(delivery=delivery))

    def accept(self, call_id: str) -> None:
        accepted = rpc.ServeResponse.ReplyAccepted(call_id=call_id, state=pb.CALL_STATE_COMPLETED)
        self.streams[-1].to_site.put_nowait(rpc.ServeResponse(reply_accepted=accepted))

    def frames(self, kind: str) -> list[Any]:
        return [getattr(f, kind) for f in self.streams[-1].sent if f.WhichOneof("frame") == kind]

    async def until(self, check: Any) -> Any:
        async with asyncio.timeout(5):
            while not (found := check()):
                self.streams[-1].news.clear()
                await self.streams[-1].news.wait()
        return found


@dataclass
class App:
    idempotent: bool = False
    seen: list[IncomingCall] = field(default_factory=list)
    answer: Any = None
    hold: asyncio.Event | None = None

    async def handle(self, request: IncomingCall, tx: Transaction) -> ReplyContent:
        self.seen.append(request)
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        if callable(self.answer):
            return self.answer(tx)  # type: ignore[no-any-return]
        tx.execute("INSERT INTO effect VALUES (?)", (request.call_id,))
        return ReplyContent(status=200, body=b"re:" + request.request.body)


class World:
    """A caller, a site, and the router between them."""

    def __init__(self) -> None:
        self.alice, self.bob, self.eve = keys(ALICE), keys(BOB, serves=True), keys(EVE, serves=True)
        self.directory = Directory(self.alice, self.bob, self.eve)
        self.router = Router()
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.connection.execute("CREATE TABLE effect (id TEXT)")
        self.inbox = SqliteInbox(self.connection)
        self.app = App()
        self.refused: list[Refusal] = []
        self.denied: MeshError | None = None
        self.client = CallClient(self.router, self.directory, self.alice, CLOCK, system_random)  # type: ignore[arg-type]

    def effects(self) -> list[str]:
        with self.inbox.lock:
            return [row[0] for row in self.connection.execute("SELECT id FROM effect").fetchall()]

    async def message(self, body: bytes = b"hi", sender: Keys | None = None, **changes: Any) -> pb.Message:
        who = sender or self.alice
        client = CallClient(self.router, self.directory, who, CLOCK, system_random)  # type: ignore[arg-type]
        message = await client._message(changes.pop("url", URL), RequestContent(body=body), 60)
        for name, value in changes.items():
            setattr(message.envelope, name, value)
        return message

    async def _audit(self, refusal: Refusal) -> None:
        self.refused.append(refusal)

    async def _right(self, call: IncomingCall) -> None:
        if self.denied is not None:
            raise self.denied

    @asynccontextmanager
    async def serving(self, epoch: int = 1) -> AsyncIterator[ServingLoop]:
        loop = ServingLoop(
            self.router,
            self.directory,
            self.bob,  # type: ignore[arg-type]
            CLOCK,
            self.inbox,
            {"chat": self.app},
            right_check=self._right,
            audit=self._audit,
        )
        stop = asyncio.Event()
        self.router.opened.clear()
        running = asyncio.create_task(loop.run(stop))
        await self.router.opened.wait()
        self.router.welcome(epoch)
        await loop.wait_connected()
        try:
            yield loop
        finally:
            stop.set()
            await running

    async def content(self, reply: pb.Reply) -> ReplyContent:
        """What the caller finds in a reply that the router passed on."""
        seal = CallSeal(self.alice, self.directory, CLOCK, system_random)  # type: ignore[arg-type]
        passed = pb.Reply()
        passed.CopyFrom(reply)
        passed.replier, passed.replier_device = BOB, self.bob.device.device_id
        return await seal.open_reply(BOB, passed)


@pytest.fixture
def world() -> Any:
    made = World()
    yield made
    made.connection.close()


async def test_call_is_received_handled_once_and_answered_from_the_store_afterwards(world):
    async with world.serving():
        message = await world.message()
        for _ in range(3):
            world.router.deliver(message)
        await world.router.until(lambda: world.router.frames("reply"))
        world.router.deliver(message)
        await world.router.until(lambda: len(world.router.frames("reply")) >= 2)
        replies = world.router.frames("reply")
        assert len({r.SerializeToString() for r in replies}) == 1
        assert (await world.content(replies[0])).body == b"re:hi"
        assert {r.call_id for r in world.router.frames("received")} == {message.envelope.call_id}
        assert len(world.app.seen) == len(world.effects()) == 1
        call = world.app.seen[0]
        assert (call.sender, call.sender_root) == (ALICE, world.alice.own_root)
        first = world.router.streams[0].sent[0].hello
        assert (first.site, list(first.apps)) == (BOB, ["chat"])


async def _refused(world: World, message: pb.Message) -> pb.Reply:
    world.router.deliver(message)
    call_id = message.envelope.call_id
    found = await world.router.until(
        lambda: [r for r in world.router.frames("reply") if r.call_id == call_id]
    )
    assert call_id in {r.call_id for r in world.router.frames("received")}
    return found[0]


async def test_hostile_bodies_are_refused_before_any_handler(world):
    async with world.serving():
        good = await world.message()
        hostile = {
            "plain": pb.Message(envelope=(await world.message()).envelope, body=b"in the clear"),
            "empty": pb.Message(envelope=(await world.message()).envelope),
            "moved to another id": await world.message(call_id=uuid7(CLOCK)),
            "other endpoint": await world.message(endpoint="admin"),
            "other app": await world.message(app="rds"),
            "longer life": await world.message(expires_unix_ms=CLOCK.now_ms() + 10**9),
            "other sender": await world.message(sender_device="x"),
            "said to be of eve": await world.message(call_id=uuid7(CLOCK)),
            "for another site": await world.message(url=f"syft://{EVE}/app_data/chat/rpc/say"),
            "flipped": await world.message(),
            "cut": await world.message(),
        }
        hostile["said to be of eve"].envelope.sender = EVE
        hostile["for another site"].envelope.site = BOB
        flipped = bytearray(hostile["flipped"].body)
        flipped[-1] ^= 1
        hostile["flipped"].body = bytes(flipped)
        hostile["cut"].body = hostile["cut"].body[:-1]
        for name, message in hostile.items():
            reply = await _refused(world, message)
            expected = "NO_KEY_FOR_DEVICE" if name == "for another site" else "SEAL_INVALID"
            if name == "for another site":
                assert reply.failure_reason in {expected, "SEAL_INVALID"}, name
            else:
                assert (reply.state, reply.failure_reason) == (pb.CALL_STATE_FAILED, expected), name
            assert reply.body == b""
        assert world.app.seen == []
        assert len(world.refused) == len(hostile)
        world.router.deliver(good)
        await world.router.until(lambda: world.app.seen)


async def test_sender_whose_root_changed_is_refused_and_the_audit_knows_why(world):
    async def changed(principal: str, *, refresh: bool = False) -> PrincipalKeys:
        raise IntegrityFailure("changed", reason="KEY_CHANGED")

    message = await world.message()
    async with world.serving():
        world.directory.devices_of = changed
        reply = await _refused(world, message)
        assert reply.failure_reason == "SEAL_INVALID"
        assert [r.reason for r in world.refused] == ["KEY_CHANGED"]


async def test_known_id_of_another_sender_is_not_answered(world):
    async with world.serving():
        message = await world.message()
        world.router.deliver(message)
        await world.router.until(lambda: world.router.frames("reply"))
        other = await world.message(sender=world.eve, call_id=message.envelope.call_id)
        world.router.deliver(other)
        async with asyncio.timeout(5):
            while not world.refused:
                await asyncio.sleep(0.001)
        assert world.refused[0].reason == "CALL_ID_REUSED"
        assert len(world.router.frames("reply")) == 1
        assert len(world.router.frames("received")) == 1


async def test_call_waits_unacknowledged_while_keys_cannot_be_looked_up(world):
    async with world.serving():
        message = await world.message()
        world.directory.away = True
        world.router.deliver(message)
        await asyncio.sleep(0.02)
        assert world.router.frames("received") == []
        world.directory.away = False
        world.router.deliver(message)
        await world.router.until(lambda: world.router.frames("reply"))
        assert len(world.app.seen) == 1


async def test_lower_epoch_is_refused_also_after_a_restart(world):
    async with world.serving(epoch=7):
        world.router.deliver(await world.message(), epoch=6)
        message = await world.message()
        world.router.deliver(message, epoch=7)
        await world.router.until(lambda: world.router.frames("received"))
        assert [r.call_id for r in world.router.frames("received")] == [message.envelope.call_id]
    async with world.serving(epoch=7):
        assert world.router.frames("hello")[0].highest_epoch == 7
        world.router.deliver(await world.message(), epoch=6)
        await asyncio.sleep(0.02)
        assert world.router.frames("received") == []


async def test_caller_without_right_is_rejected_by_the_site_itself(world):
    world.denied = PermissionDenied("no")
    async with world.serving():
        reply = await _refused(world, await world.message())
        assert (reply.state, reply.failure_reason) == (pb.CALL_STATE_REJECTED, "PERMISSION_DENIED")
        # Rules that do not verify grant nothing either.
        world.denied = IntegrityFailure("forged", reason="RULES_UNTRUSTED")
        reply = await _refused(world, await world.message())
        assert reply.state == pb.CALL_STATE_REJECTED
    assert world.app.seen == []


async def test_call_waits_while_its_right_cannot_be_known_and_outlives_a_restart(world):
    world.denied = Unavailable("store away")
    async with world.serving():
        world.router.deliver(await world.message())
        await world.router.until(lambda: world.router.frames("received"))
        assert world.router.frames("reply") == []
    world.denied = None
    async with world.serving():
        await world.router.until(lambda: world.router.frames("reply"))
    assert len(world.effects()) == 1


async def test_reply_is_sent_again_on_each_stream_until_it_is_accepted(world):
    async with world.serving():
        message = await world.message()
        world.router.deliver(message)
        await world.router.until(lambda: world.router.frames("reply"))
    async with world.serving():
        [reply] = await world.router.until(lambda: world.router.frames("reply"))
        world.router.accept(reply.call_id)
        async with asyncio.timeout(5):
            while world.inbox.unsettled():
                await asyncio.sleep(0.001)
    async with world.serving():
        await asyncio.sleep(0.02)
        assert world.router.frames("reply") == []
    assert len(world.app.seen) == 1


@pytest.mark.parametrize("idempotent", [True, False])
async def test_cut_off_handler_runs_again_only_when_it_is_idempotent(world, idempotent):
    seal = CallSeal(world.bob, world.directory, CLOCK, system_random)
    message = await world.message()
    call = await seal.open_call(message.envelope, message.body)
    world.inbox.accept(call)
    world.inbox.start(call.call_id)  # the process died here
    world.app.idempotent = idempotent
    async with world.serving():
        [reply] = await world.router.until(lambda: world.router.frames("reply"))
    if idempotent:
        assert (await world.content(reply)).body == b"re:hi"
        assert len(world.effects()) == 1
    else:
        assert (reply.state, reply.failure_reason) == (pb.CALL_STATE_FAILED, "INTERRUPTED")
        assert world.app.seen == world.effects() == []


async def test_call_stored_while_its_stream_breaks_is_handled_all_the_same(world):
    gate, plain_accept = threading.Event(), world.inbox.accept

    def slow_accept(call: IncomingCall) -> bool:
        gate.wait(5)
        return plain_accept(call)

    world.inbox.accept = slow_accept
    async with world.serving():
        world.router.deliver(await world.message())
        await asyncio.sleep(0.02)
        world.router.opened.clear()
        world.router.streams[-1].to_site.put_nowait(Unavailable("gone"))
        await world.router.opened.wait()
        gate.set()
        world.router.welcome()
        await world.router.until(lambda: world.router.frames("reply"))
    assert len(world.effects()) == 1


async def test_call_that_was_accepted_and_not_begun_runs_after_a_restart(world):
    seal = CallSeal(world.bob, world.directory, CLOCK, system_random)
    message = await world.message()
    world.inbox.accept(await seal.open_call(message.envelope, message.body))
    async with world.serving():
        await world.router.until(lambda: world.router.frames("reply"))
    assert len(world.effects()) == 1


async def test_stop_waits_for_handlers_that_run_and_sends_their_replies(world):
    world.app.hold = asyncio.Event()
    message = await world.message()
    async with world.serving():
        world.router.deliver(message)
        async with asyncio.timeout(5):
            while not world.app.seen:
                await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.02, world.app.hold.set)
    assert [r.call_id for r in world.router.frames("reply")] == [message.envelope.call_id]


async def test_one_slow_handler_delays_nobody_and_calls_start_in_order(world):
    world.app.hold = asyncio.Event()
    async with world.serving():
        messages = [await world.message(str(n).encode()) for n in range(5)]
        for message in messages:
            world.router.deliver(message)
            call_id = message.envelope.call_id
            await world.router.until(
                lambda call_id=call_id: call_id in {r.call_id for r in world.router.frames("received")}
            )
        async with asyncio.timeout(5):
            while len(world.app.seen) < 5:
                await asyncio.sleep(0.001)
        assert [call.request.body for call in world.app.seen] == [b"0", b"1", b"2", b"3", b"4"]
        world.app.hold.set()
        await world.router.until(lambda: len(world.router.frames("reply")) == 5)


async def _answered(world: World, answer: Any) -> tuple[pb.Reply, ReplyContent | None]:
    world.app.answer = answer
    reply = await _refused(world, await world.message())
    content = await world.content(reply) if reply.state == pb.CALL_STATE_COMPLETED else None
    return reply, content


async def test_errors_of_handlers_become_replies_without_effects(world):
    def effect_then(error: Exception) -> Any:
        def answer(tx: Transaction) -> ReplyContent:
            tx.execute("INSERT INTO effect VALUES ('undone')")
            raise error

        return answer

    async with world.serving():
        _, content = await _answered(world, effect_then(WrongState("not now", reason="NOT_NOW")))
        assert content is not None
        error = problem_error(content)
        assert (type(error), error.reason if error else "") == (WrongState, "NOT_NOW")
        _, content = await _answered(world, effect_then(RuntimeError("secret")))
        assert content is not None
        assert content.status == 500
        assert b"secret" not in content.body
        reply, _ = await _answered(world, NotFound("none", reason="ENDPOINT_UNKNOWN"))
        assert (reply.state, reply.failure_reason) == (pb.CALL_STATE_NOT_FOUND, "ENDPOINT_UNKNOWN")
        _, content = await _answered(world, NotFound("no such job", reason="JOB_UNKNOWN"))
        assert content is not None
        assert content.status == 404
        _, content = await _answered(world, lambda tx: "no reply content")
        assert content is not None
        assert content.status == 500
        _, content = await _answered(world, lambda tx: ReplyContent(status=200, body=b"x" * 300_000))
        assert content is not None
        found = problem_error(content)
        assert found is not None
        assert found.reason == "REPLY_TOO_LARGE"
    assert world.effects() == []


async def test_reply_computed_inside_the_transaction_commits_with_it(world):
    def answer(tx: Transaction) -> ReplyContent:
        def work() -> ReplyContent:
            world.connection.execute("INSERT INTO effect VALUES ('inside')")
            count = world.connection.execute("SELECT count(*) FROM effect").fetchone()[0]
            return ReplyContent(status=200, body=str(count).encode())

        return tx.reply_with(work)

    def failing(tx: Transaction) -> ReplyContent:
        def work() -> ReplyContent:
            world.connection.execute("INSERT INTO effect VALUES ('undone')")
            raise InvalidInput("bad", reason="BAD")

        return tx.reply_with(work)

    async with world.serving():
        _, content = await _answered(world, answer)
        assert content is not None
        assert content.body == b"1"
        _, content = await _answered(world, failing)
        assert content is not None
        assert content.status == 400
    assert world.effects() == ["inside"]


async def test_hub_that_refuses_the_device_ends_the_loop(world):
    world.router.refuses = Unauthenticated("revoked", reason="REFRESH_INVALID")
    loop = ServingLoop(
        world.router,
        world.directory,
        world.bob,
        CLOCK,
        world.inbox,
        {"chat": world.app},
        right_check=world._right,
        random=lambda size: bytes(size),
    )
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(loop.run(asyncio.Event()), 10)
    assert len(world.router.streams) == 3


async def test_stream_that_ends_before_the_first_word_is_opened_again(world):
    class Ended(Stream):
        async def write(self, frame: Any) -> None:
            raise asyncio.InvalidStateError("RPC already finished.")

    dead, serve = Ended(), world.router.Serve
    dead.to_site.put_nowait(Unavailable("gone", reason="SERVER_UNREACHABLE"))
    opened: list[Stream] = []

    def first_dead() -> Stream:
        opened.append(serve() if opened else dead)
        return opened[-1]

    world.router.Serve = first_dead
    async with world.serving() as loop:
        assert loop.is_connected
    assert len(opened) == 2


async def _reply_for(world: World, by: Keys, content: ReplyContent, **changes: Any) -> None:
    """Let the router answer the next call with a reply that `by` seals for alice."""
    seal = CallSeal(by, world.directory, CLOCK, system_random)  # type: ignore[arg-type]

    async def answer(request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        envelope = request.message.envelope
        call_id = changes.get("call_id", envelope.call_id)
        call = IncomingCall(
            call_id, ALICE, world.alice.own_root, world.alice.device.device_id, BOB, "chat", "say",
            RequestContent(), envelope.expires_unix_ms,
        )  # fmt: skip
        reader = await seal.reply_reader(call)
        body = seal.seal_reply(call, content, reader)
        replier = changes.get("replier", by.device.principal)
        return rpc.CallResponse(
            reply=pb.Reply(
                call_id=envelope.call_id,
                state=pb.CALL_STATE_COMPLETED,
                body=body,
                replier=replier,
                replier_device=by.device.device_id,
            )
        )

    world.router.Call = answer  # type: ignore[method-assign]


async def test_caller_gets_the_sites_reply_whatever_its_status(world):
    await _reply_for(world, world.bob, ReplyContent(status=418, content_type="text/plain", body=b"teapot"))
    reply = await world.client.call(URL, RequestContent(body=b"x"))
    assert (reply.status, reply.body) == (418, b"teapot")


async def test_caller_refuses_forged_replies(world):
    good = ReplyContent(status=200)
    for by, changes in (
        (world.eve, {}),
        (world.eve, {"replier": BOB}),
        (world.bob, {"call_id": uuid7(CLOCK)}),
        (world.alice, {"replier": BOB}),
    ):
        await _reply_for(world, by, good, **changes)
        with pytest.raises(IntegrityFailure) as caught:
            await world.client.call(URL, RequestContent())
        assert caught.value.reason == "SEAL_INVALID"
    # A device of the site that does not serve cannot answer for it.
    silent = Keys(DeviceSecret.generate(BOB, "profile"), world.bob.own_root)
    known = world.directory.by_name[BOB]
    both = (*known.devices, silent.device.public())
    world.directory.by_name[BOB] = PrincipalKeys(BOB, known.root, 2, both)
    await _reply_for(world, silent, good)
    with pytest.raises(IntegrityFailure):
        await world.client.call(URL, RequestContent())


async def test_sites_errors_are_raised_as_they_were_there(world):
    error = LimitExceeded("too many", reason="JOBS_FULL", metadata={"limit": "3"}, hint="wait")
    await _reply_for(world, world.bob, problem_content(error))
    with pytest.raises(LimitExceeded) as caught:
        await world.client.call(URL, RequestContent())
    found = caught.value
    assert (found.reason, found.metadata, found.hint, found.message) == (
        "JOBS_FULL",
        {"limit": "3"},
        "wait",
        "too many",
    )


@pytest.mark.parametrize(
    ("state", "given", "kind", "reason"),
    [
        (pb.CALL_STATE_EXPIRED, "CALL_EXPIRED", DeadlineExceeded, "CALL_EXPIRED"),
        (pb.CALL_STATE_NOT_FOUND, "APP_UNKNOWN", NotFound, "APP_UNKNOWN"),
        (pb.CALL_STATE_REJECTED, "", PermissionDenied, "PERMISSION_DENIED"),
        (pb.CALL_STATE_FAILED, "SEAL_INVALID", IntegrityFailure, "SEAL_INVALID"),
        (pb.CALL_STATE_FAILED, "INTERRUPTED", Unavailable, "INTERRUPTED"),
        (pb.CALL_STATE_CANCELLED, "", Cancelled, "CANCELLED"),
    ],
)
async def test_ends_without_reply_are_typed(world, state, given, kind, reason):
    world.router.answer = pb.Reply(state=state, failure_reason=given)
    with pytest.raises(kind) as caught:
        await world.client.call(URL, RequestContent())
    assert caught.value.reason == reason


async def test_query_goes_sealed_and_the_site_alone_can_open_the_body(world):
    world.router.answer = pb.Reply(state=pb.CALL_STATE_EXPIRED)
    with pytest.raises(DeadlineExceeded):
        await world.client.call(f"{URL}?secret=1", RequestContent(body=b"for bob alone"))
    [message] = world.router.calls
    raw = message.SerializeToString()
    assert b"secret" not in raw
    assert b"for bob alone" not in raw
    seal = CallSeal(world.bob, world.directory, CLOCK, system_random)
    call = await seal.open_call(message.envelope, message.body)
    assert (call.request.query, call.request.body) == ("secret=1", b"for bob alone")
    spy = CallSeal(world.eve, world.directory, CLOCK, system_random)
    with pytest.raises(MeshError):
        await spy.open_call(message.envelope, message.body)


async def test_future_is_asked_and_awaited_with_its_site(world):
    call_id = await world.client.send(URL, RequestContent())
    assert (await world.client.reply(call_id)).state == pb.CALL_STATE_PENDING
    with pytest.raises(DeadlineExceeded):
        await world.client.wait(call_id, 0.01)
    other = CallClient(world.router, world.directory, world.alice, CLOCK, system_random)
    with pytest.raises(InvalidInput) as caught:
        await other.reply(call_id)
    assert caught.value.reason == "SITE_NEEDED"
    assert not (await other.reply(call_id, site=BOB)).is_final


async def test_too_large_body_and_site_without_device_are_refused_before_sending(world):
    with pytest.raises(LimitExceeded) as caught:
        await world.client.call(URL, RequestContent(body=b"x" * 262_144))
    assert caught.value.reason == "BODY_TOO_LARGE"
    with pytest.raises(NotFound) as missing:
        await world.client.call(f"syft://{ALICE}/app_data/chat/rpc/say", RequestContent())
    assert missing.value.reason == "SITE_HAS_NO_DEVICE"
    assert world.router.calls == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"code": 1}', b"[" * 10_000, b"x" * 20_000, b'{"code": "NONSENSE", "reason": 1}'],
)
def test_problem_documents_of_others_never_break_the_caller(body):
    content = ReplyContent(status=500, content_type=CONTENT_TYPE, body=body)
    found = problem_error(content)
    assert found is None or isinstance(found, MeshError)
    assert problem_error(ReplyContent(status=200, content_type=CONTENT_TYPE, body=body)) is None


def test_problem_document_stays_small():
    error = WrongState("m" * 5000, reason="X", metadata={"big": "y" * 50_000}, hint="h" * 5000)
    content = problem_content(error)
    assert len(content.body) < 16 * 1024
    assert json.loads(content.body)["metadata"] == {}
    found = problem_error(content)
    assert found is not None
    assert found.reason == "X"


@pytest.mark.parametrize(("away_s", "longest_s"), [(0.0, 0.5), (29.0, 0.5), (31.0, 5.0), (float("inf"), 5.0)])
def test_a_hub_that_was_just_there_is_looked_for_at_short_pauses(away_s: float, longest_s: float) -> None:
    pause_s, pauses = 0.1, []
    for _ in range(20):
        pause_s = _longer_pause_s(pause_s, away_s=away_s)
        pauses.append(pause_s)
    assert pauses[0] == 0.2
    assert max(pauses) == pauses[-1] == longest_s
