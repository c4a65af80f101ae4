"""Every RPC of the hub meets tokens, paths, ids and sizes that do not hold: a typed error, and nothing is stored."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from mesh.crypto.v1 import crypto_service_pb2
from mesh.federated.v1 import federated_service_pb2
from mesh.identity.v1 import identity_service_pb2
from mesh.permissions.v1 import permissions_service_pb2
from mesh.rpc.v1 import rpc_service_pb2
from mesh.sync.v1 import sync_service_pb2
from syftmesh_client.login import login_local, read_local_token
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_identity.servicer import PUBLIC_METHODS
from syftmesh_kit.native import seaweed_address
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_kit.testing import FakeClock
from syftmesh_kit.token import TokenIssuer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CLOCK = SystemClock()
EVE = "eve@evil.example"
_MODULES = (
    crypto_service_pb2,
    federated_service_pb2,
    identity_service_pb2,
    permissions_service_pb2,
    rpc_service_pb2,
    sync_service_pb2,
)


def _methods() -> Iterator[MethodDescriptor]:
    for module in _MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


METHODS = list(_methods())
GUARDED = [
    method
    for method in METHODS
    if f"/{method.containing_service.full_name}/{method.name}" not in PUBLIC_METHODS
]


@dataclass
class Refused:
    code: grpc.StatusCode
    reason: str
    text: str


async def ask(
    channel: grpc.aio.Channel, method: MethodDescriptor, body: bytes, token: str | None
) -> Refused | None:
    """Call `method` with raw bytes; None when it was answered."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = [("authorization", f"Bearer {token}")] if token is not None else []
    streams = method.client_streaming

    async def once() -> AsyncIterator[bytes]:
        if body:
            yield body
        await asyncio.sleep(30)  # the stream stays open: what ends it is the server's answer

    kind = ("stream" if streams else "unary") + "_" + ("stream" if method.server_streaming else "unary")
    call: Any = getattr(channel, kind)(path)(once() if streams else body, metadata=metadata, timeout=10)
    try:
        if method.server_streaming:
            async for _ in call:
                call.cancel()
                return None
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return _refused(error)
    return None


def _refused(error: grpc.aio.AioRpcError) -> Refused:
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())
    details = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    reason = ""
    for detail in details.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "syftmesh.org"
            reason = info.reason
    return Refused(error.code(), reason, error.details() or "")


@pytest.fixture
async def channel(mesh: Any) -> AsyncIterator[grpc.aio.Channel]:
    limit = 16 << 20
    options = [("grpc.max_send_message_length", limit), ("grpc.max_receive_message_length", limit)]
    async with grpc.aio.insecure_channel(mesh.grpc, options=options) as opened:
        yield opened


@pytest.fixture
async def token(mesh: Any) -> str:
    """A login that holds, of somebody without any keys or rights."""
    local = read_local_token(mesh.state / "hub/local.token")
    tokens = await login_local(
        mesh.grpc, local_token=local, principal=EVE, device_id=uuid7(CLOCK), label="profile"
    )
    return tokens.access_token


async def stored(mesh: Any) -> dict[str, int]:
    """Return how much the hub holds: messages by stream, and objects."""
    conf = (mesh.state / "hub/nats/nats.conf").read_text()
    monitor = re.search(r'http: "([^"]+)"', conf)
    assert monitor is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        found = (await client.get(f"http://{monitor[1]}/jsz?accounts=true&streams=true")).json()
    streams = found["account_details"][0]["stream_detail"]
    # What the services themselves renew by the clock says nothing of requests.
    counts = {s["name"]: s["state"]["messages"] for s in streams if "lease" not in s["name"].lower()}
    objects = [item async for item in S3ObjectStore(seaweed_address(mesh.state / "hub/s3")).list("")]
    return {**counts, "objects": len([o for o in objects if not o.key.startswith("journal/")])}


def _tokens(mesh: Any, good: str) -> dict[str, str | None]:
    signing = load_pem_private_key((mesh.state / "hub/signing.pem").read_bytes(), password=None)
    assert isinstance(signing, Ed25519PrivateKey)
    kid = str(jwt.get_unverified_header(good)["kid"])
    claims = jwt.decode(good, options={"verify_signature": False})
    old = FakeClock(now_ms=CLOCK.now_ms() - 3_600_000)
    foreign = Ed25519PrivateKey.generate()

    def issued(key: Ed25519PrivateKey, issuer: str = "embedded", clock: Any = CLOCK, **more: Any) -> str:
        return TokenIssuer(key, kid, issuer, clock, **more).issue(EVE, "d")[0]

    head, body, signature = good.split(".")
    return {
        "missing": None,
        "empty": "",
        "garbage": "x.y.z",
        "expired": issued(signing, clock=old),
        "foreign key": issued(foreign),
        "foreign issuer": issued(signing, issuer="https://evil.example"),
        "foreign audience": issued(signing, audiences=("other",)),
        "without algorithm": jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
        "public key as secret": jwt.encode(claims, "k" * 64, algorithm="HS256", headers={"kid": kid}),
        "cut": f"{head}.{body}.{signature[:-4]}",
    }


async def test_no_rpc_answers_a_token_that_does_not_hold(mesh: Any, channel: Any, token: str) -> None:
    before = await stored(mesh)
    wrong = []
    for name, bad in _tokens(mesh, token).items():
        for method in GUARDED:
            refused = await ask(channel, method, b"", bad)
            expected = {"TOKEN_MISSING"} if bad is None else {"TOKEN_INVALID", "TOKEN_EXPIRED"}
            if name == "expired":
                expected = {"TOKEN_EXPIRED"}
            holds = (
                refused is not None
                and refused.code == grpc.StatusCode.UNAUTHENTICATED
                and refused.reason in expected
            )
            if not holds:
                wrong.append((name, method.full_name, refused))
    assert not wrong
    assert await stored(mesh) == before


async def test_every_rpc_refuses_a_message_above_the_limit(mesh: Any, channel: Any, token: str) -> None:
    before = await stored(mesh)
    body = _unknown_field(5 << 20)
    wrong = []
    for method in METHODS:
        refused = await ask(channel, method, body, token)
        if refused is None or (refused.code, refused.reason) != (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "MESSAGE_TOO_LARGE",
        ):
            wrong.append((method.full_name, refused))
    assert not wrong
    assert await stored(mesh) == before


def _unknown_field(size_bytes: int) -> bytes:
    """Return a field of zeros that no message has, well formed for every one (protobuf encoding, "LEN")."""
    encoded = bytearray([(15 << 3 & 0x78) | 2])
    left = size_bytes
    while left > 0x7F:
        encoded.append(0x80 | (left & 0x7F))
        left >>= 7
    return bytes(encoded) + bytes([left]) + bytes(size_bytes)


async def test_every_rpc_answers_bytes_that_are_no_message_with_a_reason(
    mesh: Any, channel: Any, token: str
) -> None:
    for method in METHODS:
        refused = await ask(channel, method, b"\xff\xff\xff\xff", token)
        assert refused is not None, method.full_name
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "MESSAGE_MALFORMED",
        ), method.full_name


TEXTS = (
    "../../etc/passwd",
    "alice@hospital.example/../x",
    "alice@hospital.example/a\0b",
    "alice@hospital.example//a",
    "alice@hospital.example/a\u0301\u0301/.",
    "/" * 3000,
    "*",
    "\u202e",
    "%2e%2e/%2e%2e",
)


@pytest.mark.parametrize("text", TEXTS)
async def test_hostile_texts_in_every_field_end_in_a_typed_error(
    mesh: Any, channel: Any, token: str, text: str
) -> None:
    """Each RPC gets `text` in all its text fields; what is answered holds nothing, what is refused has a reason."""
    before = await stored(mesh)
    for method in GUARDED:
        message = _filled(GetMessageClass(method.input_type)(), text)
        if message is None or method.name in {"Serve", "Connect"}:
            continue
        refused = await ask(channel, method, message.SerializeToString(), token)
        if refused is not None:
            assert refused.reason not in {"", "INTERNAL"}, (method.full_name, refused)
            assert refused.code not in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
    assert await stored(mesh) == before


def _filled(message: Any, text: str) -> Any:
    """Set every text and bytes field of `message`, one level of messages deep; None when it has none."""
    found = False
    for field in message.DESCRIPTOR.fields:
        single = not field.is_repeated
        if field.type == field.TYPE_STRING:
            found = True
            if single:
                setattr(message, field.name, text)
            else:
                getattr(message, field.name).append(text)
        elif field.type == field.TYPE_BYTES and single:
            setattr(message, field.name, text.encode())
        elif field.type == field.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            part = getattr(message, field.name) if single else getattr(message, field.name).add()
            if _filled(part, text) is not None:
                found = True
                if single:
                    part.SetInParent()
    return message if found else None
