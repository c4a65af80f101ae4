"""One real gRPC server with its interceptor, and a channel of ours, over sockets."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from syftmesh_core.errors import (
    BY_CODE,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from syftmesh_kit.caller import current_caller, optional_caller
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import RpcMetrics, ServerInterceptor
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.testing import FakeClock
from syftmesh_kit.token import Revocation, StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_kit.trace import current_traceparent, end_span, start_span

pytestmark = pytest.mark.integration

NAME = "mesh.sync.v1.SyncService"
"""Methods that are no real ones, under a name whose tokens are for the audience ``sync``."""
PUBLIC = f"/{NAME}/Public"
KEY, FOREIGN = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SECRET = "hunter2-in-an-exception"

Behaviour = Callable[[str], Any]


class EchoModule:
    """Every kind of method; what a method does is the behaviour of the test."""

    name = "echo"

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.failure: MeshError | None = None
        self.drained = 0.0

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        async def unary(request: StringValue, _context: Any) -> StringValue:
            return StringValue(value=await self.behaviour(request.value))

        async def unary_stream(request: StringValue, _context: Any) -> AsyncIterator[StringValue]:
            for _ in range(3):
                yield StringValue(value=await self.behaviour(request.value))

        async def stream_unary(requests: AsyncIterator[StringValue], _context: Any) -> StringValue:
            got = [request.value async for request in requests]
            return StringValue(value=await self.behaviour(",".join(got)))

        async def stream_stream(
            requests: AsyncIterator[StringValue], _context: Any
        ) -> AsyncIterator[StringValue]:
            async for request in requests:
                yield StringValue(value=await self.behaviour(request.value))

        codec = (StringValue.FromString, StringValue.SerializeToString)
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary, *codec),
            "Public": grpc.unary_unary_rpc_method_handler(unary, *codec),
            "ListFiles": grpc.unary_unary_rpc_method_handler(unary, *codec),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(unary_stream, *codec),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(stream_unary, *codec),
            "StreamStream": grpc.stream_stream_rpc_method_handler(stream_stream, *codec),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, methods),))
        return (NAME,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(asyncio.sleep(3600))

    async def ready(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def drain(self) -> None:
        await asyncio.sleep(self.drained)


class Rig:
    """Server, tokens and channel of one test."""

    def __init__(self, module: EchoModule, address: str) -> None:
        self.module = module
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.verifier = TokenVerifier(StaticKeySet({"k1": KEY.public_key()}), "embedded", self.clock)
        interceptor = ServerInterceptor(
            verifier=self.verifier, metrics=RpcMetrics(self.registry), public_methods=frozenset({PUBLIC})
        )
        self.host = ServiceHost([module], interceptor=interceptor, address=address, check_interval_s=0.2)
        self.token = self.issue()
        self.target = ""
        self.channel: grpc.aio.Channel

    def issue(self, key: Ed25519PrivateKey = KEY, **changes: Any) -> str:
        arguments: dict[str, Any] = {"kid": "k1", "issuer": "embedded", "clock": self.clock, **changes}
        return TokenIssuer(key, **arguments).issue("alice@x.org", "device-1")[0]

    async def provide(self) -> str:
        return self.token

    def call(self, method: str = "Unary") -> Any:
        return self.channel.unary_unary(
            f"/{NAME}/{method}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )

    async def ask(self, value: str = "", method: str = "Unary") -> str:
        answer: StringValue = await self.call(method)(StringValue(value=value), timeout=10)
        return answer.value

    def stream(self, kind: str, method: str) -> Any:
        return getattr(self.channel, kind)(
            f"/{NAME}/{method}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )


async def raw_call(channel: Any, method: str, body: bytes) -> Any:
    return await channel.unary_unary(method)(body, timeout=5)


async def echo(value: str) -> str:
    return value


@asynccontextmanager
async def running(behaviour: Behaviour = echo, address: str = "127.0.0.1:0") -> AsyncIterator[Rig]:
    rig = Rig(EchoModule(behaviour), address)
    async with rig.host.running() as target:
        rig.target = target
        rig.channel = open_channel(
            address if address.startswith("unix:") else target, token_provider=rig.provide
        )
        try:
            await rig.host.wait_ready()
            yield rig
        finally:
            await rig.channel.close()


@pytest.mark.parametrize("code", sorted(BY_CODE))
async def test_every_class_of_error_arrives_as_itself(code: str) -> None:
    async def fail(_value: str) -> str:
        raise BY_CODE[code](
            "What, which value, what to do.", reason="SOME_REASON", metadata={"path": "a/b"}, hint="Do this."
        )

    async with running(fail) as rig:
        with pytest.raises(MeshError) as caught:
            await rig.ask()
        assert type(caught.value) is BY_CODE[code]
        assert caught.value.message == "What, which value, what to do."
        assert (caught.value.reason, caught.value.hint) == ("SOME_REASON", "Do this.")
        assert caught.value.metadata == {"path": "a/b"}


async def test_errors_arrive_from_every_kind_of_method() -> None:
    async def fail(_value: str) -> str:
        raise NotFound("No such thing.", reason="THING_MISSING")

    async def requests() -> AsyncIterator[StringValue]:
        yield StringValue(value="x")

    async with running(fail) as rig:
        with pytest.raises(NotFound):
            await rig.stream("stream_unary", "StreamUnary")(requests())
        for kind, method, argument in (
            ("unary_stream", "UnaryStream", StringValue()),
            ("stream_stream", "StreamStream", requests()),
        ):
            with pytest.raises(NotFound) as caught:
                async for _ in rig.stream(kind, method)(argument):
                    pass
            assert caught.value.reason == "THING_MISSING"


async def test_streams_carry_messages_both_ways() -> None:
    async def requests() -> AsyncIterator[StringValue]:
        for value in "abc":
            yield StringValue(value=value)

    async with running() as rig:
        assert (await rig.stream("stream_unary", "StreamUnary")(requests())).value == "a,b,c"
        answers = [a.value async for a in rig.stream("unary_stream", "UnaryStream")(StringValue(value="x"))]
        assert answers == ["x", "x", "x"]
        both = [a.value async for a in rig.stream("stream_stream", "StreamStream")(requests())]
        assert both == ["a", "b", "c"]


async def test_unexpected_exception_shows_an_id_and_nothing_else() -> None:
    async def fail(_value: str) -> str:
        raise RuntimeError(SECRET)

    with structlog.testing.capture_logs() as logs:
        async with running(fail) as rig:
            with pytest.raises(Internal) as caught:
                await rig.ask()
            raw = grpc.aio.insecure_channel(rig.target)
            with pytest.raises(grpc.aio.AioRpcError) as bare:
                await raw_call(raw, f"/{NAME}/Public", b"")
            await raw.close()
    assert SECRET not in str(caught.value) + str(caught.value.metadata) + str(bare.value)
    lines = [line for line in logs if line["event"] == "rpc.handled" and line["code"] == "INTERNAL"]
    assert [line["log_level"] for line in lines] == ["error", "error"]
    assert lines[0]["error_id"] == caught.value.metadata["error_id"]


async def test_each_call_leaves_one_line_and_one_count() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running() as rig:
            await rig.ask("hello")
            count = rig.registry.get_sample_value(
                "syftmesh_rpc_handled_total", {"method": f"/{NAME}/Unary", "code": "OK"}
            )
    lines = [line for line in logs if line.get("method") == f"/{NAME}/Unary"]
    assert len(lines) == 1
    assert (lines[0]["code"], lines[0]["bytes_in"], lines[0]["bytes_out"]) == ("OK", 7, 7)
    assert lines[0]["principal"] == "alice@x.org"
    assert rig.token not in str(logs)
    assert count == 1


async def test_unknown_method_is_unimplemented_and_makes_no_metric() -> None:
    async with running() as rig:
        with pytest.raises(Unimplemented):
            await rig.ask(method="Nothing")
        assert not any("Nothing" in str(family) for family in rig.registry.collect())


async def test_handler_sees_the_verified_caller() -> None:
    async def who(_value: str) -> str:
        caller = current_caller()
        return f"{caller.principal} {caller.device_id} {caller.kind}"

    async with running(who) as rig:
        assert await rig.ask() == "alice@x.org device-1 user"


async def test_callers_of_concurrent_calls_are_not_mixed() -> None:
    async def who(_value: str) -> str:
        await asyncio.sleep(0.01)
        return current_caller().principal

    async with running(who) as rig:
        names = [f"p{number}@x.org" for number in range(32)]

        async def one(name: str) -> str:
            token = TokenIssuer(KEY, "k1", "embedded", rig.clock).issue(name, "d")[0]
            metadata = (("authorization", f"Bearer {token}"),)
            answer: StringValue = await rig.call()(StringValue(), metadata=metadata)
            return answer.value

        assert await asyncio.gather(*map(one, names)) == names


def unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, "", algorithm="none", headers={"kid": "k1"})


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


FORGERIES: dict[str, Callable[[Rig], str]] = {
    "no token": lambda rig: "",
    "garbage": lambda rig: "garbage",
    "alg none": lambda rig: unsigned(claims_of(rig.token)),
    "hmac with the public key": lambda rig: jwt.encode(
        claims_of(rig.token),
        KEY.public_key().public_bytes_raw() * 2,
        algorithm="HS256",
        headers={"kid": "k1"},
    ),
    "wrong audience": lambda rig: rig.issue(audiences=("router", "identity")),
    "wrong issuer": lambda rig: rig.issue(issuer="other"),
    "foreign key": lambda rig: rig.issue(FOREIGN),
    "unknown kid": lambda rig: rig.issue(kid="k2"),
    "not yet valid": lambda rig: rig.issue(clock=FakeClock(rig.clock.now_ms() + 60_000)),
    "changed claim": lambda rig: rig.token[:60] + ("A" if rig.token[60] != "A" else "B") + rig.token[61:],
    "huge": lambda rig: "a." * 3000,
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forged_tokens_are_refused(forgery: str) -> None:
    async def reached(_value: str) -> str:
        raise AssertionError("the handler ran")

    async with running(reached) as rig:
        rig.token = FORGERIES[forgery](rig)
        with pytest.raises(Unauthenticated) as caught:
            await rig.ask()
        assert caught.value.reason == ("TOKEN_MISSING" if forgery == "no token" else "TOKEN_INVALID")


async def test_token_expires_within_its_leeway() -> None:
    async with running() as rig:
        await rig.ask()
        rig.clock.advance(15 * 60 + 4)
        await rig.ask()
        rig.clock.advance(2)
        with pytest.raises(Unauthenticated) as caught:
            await rig.ask()
        assert caught.value.reason == "TOKEN_EXPIRED"


async def test_a_guest_calls_what_is_listed_for_guests_and_nothing_else() -> None:
    async def who(_value: str) -> str:
        caller = current_caller()
        return f"{caller.requester} {caller.kind}"

    async with running(who) as rig:
        rig.token = TokenIssuer(KEY, "k1", "embedded", rig.clock).issue("guest", "guest", kind="guest")[0]
        assert await rig.ask(method="ListFiles") == "guest guest"
        assert await rig.ask(method="Public") == "guest guest"
        with pytest.raises(PermissionDenied) as caught:
            await rig.ask()
        assert caught.value.reason == "GUEST_NOT_ALLOWED"


async def test_public_method_needs_no_token_and_ignores_a_bad_one() -> None:
    async def who(_value: str) -> str:
        caller = optional_caller()
        return caller.principal if caller is not None else "nobody"

    async with running(who) as rig:
        assert await rig.ask(method="Public") == "alice@x.org"
        for token in ("", "garbage", rig.issue(FOREIGN)):
            rig.token = token
            assert await rig.ask(method="Public") == "nobody"


async def test_server_without_verifier_refuses_what_is_not_public() -> None:
    interceptor = ServerInterceptor(verifier=None, metrics=RpcMetrics(CollectorRegistry()))
    async with ServiceHost([EchoModule(echo)], interceptor=interceptor).running() as target:
        channel = open_channel(target)
        with pytest.raises(Unauthenticated):
            await raw_call(channel, f"/{NAME}/Unary", b"")
        await channel.close()


@pytest.mark.parametrize(
    "revocation",
    [Revocation(device_id="device-1"), Revocation(principal="alice@x.org")],
    ids=["device", "principal"],
)
async def test_revocation_refuses_new_calls_and_ends_open_ones(revocation: Revocation) -> None:
    started = asyncio.Event()

    async def wait(value: str) -> str:
        if value == "wait":
            started.set()
            await asyncio.sleep(60)
        return value

    async with running(wait) as rig:
        open_call = asyncio.ensure_future(rig.ask("wait"))
        await started.wait()
        rig.verifier.revoke(revocation)
        for refused in (open_call, rig.ask()):
            with pytest.raises(Unauthenticated) as caught:
                await refused
            assert caught.value.reason == "TOKEN_REVOKED"


async def test_open_stream_ends_when_its_token_is_revoked() -> None:
    started = asyncio.Event()

    async def wait(value: str) -> str:
        if started.is_set():
            await asyncio.sleep(60)
        started.set()
        return value

    async with running(wait) as rig:
        stream = aiter(rig.stream("unary_stream", "UnaryStream")(StringValue(value="x")))
        await anext(stream)
        rig.verifier.revoke(Revocation(device_id="device-1"))
        with pytest.raises(Unauthenticated) as caught:
            await anext(stream)
        assert caught.value.reason == "TOKEN_REVOKED"


async def test_stream_that_is_revoked_while_a_message_is_written_is_told_so() -> None:
    loop = asyncio.get_running_loop()

    async def revoke_behind(value: str) -> str:
        # The next turn of the loop is that in which gRPC waits for the write of this message.
        loop.call_soon(rig.verifier.revoke, Revocation(device_id="device-1"))
        return value

    async with running(revoke_behind) as rig:
        stream = rig.stream("unary_stream", "UnaryStream")(StringValue(value="x" * 2**20), timeout=10)
        with pytest.raises(Unauthenticated) as caught:
            async for _ in stream:
                pass
        assert caught.value.reason == "TOKEN_REVOKED"


@pytest.mark.parametrize("size_bytes", [5 * 2**20, 9 * 2**20], ids=["our limit", "limit of the transport"])
async def test_message_above_the_limit_is_refused_with_a_reason(size_bytes: int) -> None:
    async with running() as rig:
        with pytest.raises(LimitExceeded) as caught:
            await rig.ask("x" * size_bytes)
        assert caught.value.reason == "MESSAGE_TOO_LARGE"


async def test_message_just_below_the_limit_passes() -> None:
    async with running() as rig:
        assert len(await rig.ask("x" * (4 * 2**20 - 16))) == 4 * 2**20 - 16


async def test_response_above_the_limit_is_refused_with_a_reason() -> None:
    async def large(_value: str) -> str:
        return "x" * (5 * 2**20)

    async with running(large) as rig:
        with pytest.raises(LimitExceeded) as caught:
            await rig.ask()
        assert caught.value.reason == "MESSAGE_TOO_LARGE"


async def test_bytes_that_are_no_message_are_invalid_input() -> None:
    async with running() as rig:
        with pytest.raises(InvalidInput) as caught:
            await raw_call(rig.channel, f"/{NAME}/Unary", b"\xff\xff\xff")
        assert caught.value.reason == "MESSAGE_MALFORMED"


async def test_trace_goes_on_from_caller_to_handler() -> None:
    async def trace(_value: str) -> str:
        return current_traceparent()

    async with running(trace) as rig:
        span, token = start_span("client", "")
        here = current_traceparent()
        there = await rig.ask()
        end_span(span, token)
        assert there.split("-")[1] == here.split("-")[1]
        assert there.split("-")[2] != here.split("-")[2]
        fresh = await rig.ask()
        assert fresh.split("-")[1] != here.split("-")[1]


@pytest.mark.parametrize("header", ["garbage", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 9000])
async def test_bad_traceparent_starts_a_new_trace(header: str) -> None:
    async def trace(_value: str) -> str:
        return current_traceparent()

    async with running(trace) as rig:
        if len(header) > 8000:  # the transport refuses metadata of this size by itself
            header = header[:4000]
        answer = await rig.call()(StringValue(), metadata=(("traceparent", header),))
        assert len(answer.value) == 55
        assert answer.value not in header


async def test_deadline_of_the_caller_is_typed() -> None:
    async def slow(value: str) -> str:
        await asyncio.sleep(30)
        return value

    async with running(slow) as rig:
        with pytest.raises(DeadlineExceeded):
            await rig.call()(StringValue(), timeout=0.2)


async def test_server_that_is_away_is_typed_without_addresses() -> None:
    channel = open_channel("127.0.0.1:1")
    with pytest.raises(Unavailable) as caught:
        await raw_call(channel, "/a/b", b"")
    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert "127.0.0.1" not in str(caught.value)
    await channel.close()


async def health_of(rig: Rig, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(rig.channel)
    status: int = (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status
    return status


async def test_health_follows_readiness_and_recovers() -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    async with running() as rig:
        assert [await health_of(rig, name) for name in ("", NAME)] == [serving, serving]
        rig.module.failure = Unavailable("away")
        for wanted in (not_serving, serving):
            rig.host.check_now()
            async with asyncio.timeout(5):
                while {await health_of(rig, name) for name in ("", NAME)} != {wanted}:
                    await asyncio.sleep(0.02)
            rig.module.failure = None
        with pytest.raises(NotFound):
            await health_of(rig, "no.such.Service")


async def test_health_watch_and_reflection_work_without_a_token() -> None:
    async with running() as rig:
        rig.token = ""
        watch = aiter(
            health_pb2_grpc.HealthStub(rig.channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        )
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(rig.channel)

        async def requests() -> AsyncIterator[Any]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        async for answer in stub.ServerReflectionInfo(requests()):
            assert NAME in {service.name for service in answer.list_services_response.service}


async def test_running_calls_finish_while_the_server_drains() -> None:
    started = asyncio.Event()

    async def slow(value: str) -> str:
        started.set()
        await asyncio.sleep(0.5)
        return value

    rig = Rig(EchoModule(slow), "127.0.0.1:0")
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        async with rig.host.running() as target:
            rig.channel = open_channel(target, token_provider=rig.provide)
            call = tasks.create_task(rig.ask("kept"))
            await started.wait()
            stop.set()
        async with asyncio.timeout(1):  # the answer has been sent; the client may still be reading it
            assert await call == "kept"
        with pytest.raises(Unavailable):
            await rig.ask("too late")
        await rig.channel.close()


async def test_drain_that_hangs_is_cut() -> None:
    rig = Rig(EchoModule(echo), "127.0.0.1:0")
    rig.module.drained = 60
    rig.host._drain_s = 0.3
    async with asyncio.timeout(5):
        async with rig.host.running():
            pass


async def test_failure_inside_the_block_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running():
            raise ZeroDivisionError


async def test_unix_socket_is_private_and_long_paths_work(tmp_path: Path) -> None:
    for path in (tmp_path / "s.sock", tmp_path / ("deep" * 20) / ("er" * 20) / "s.sock"):
        async with running(address=f"unix:{path}") as rig:
            assert await rig.ask("hi") == "hi"
            real = Path(rig.target.removeprefix("unix:"))
            assert stat.S_IMODE(real.stat().st_mode) == 0o600
            assert len(os.fsencode(real)) <= 100


async def test_taken_port_is_typed() -> None:
    async with running() as rig:
        with pytest.raises(Unavailable) as caught:
            async with ServiceHost([], interceptor=rig.host._interceptor, address=rig.target).running():
                pass
        assert caught.value.reason == "PORT_IN_USE"
