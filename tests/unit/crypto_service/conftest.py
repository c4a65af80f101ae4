"""Accounts with real keys, and a bus that keeps the stream in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from syftmesh_core.errors import Conflict
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import parse_list, sign_first_list, sign_next_list
from syftmesh_core.identity.phrase import AccountRoot
from syftmesh_kit.message import OPERATION_HEADER, TYPE_HEADER, PublishAck, StreamMessage
from syftmesh_kit.stream import StreamState


@dataclass
class Person:
    """A principal with a root, an admin device, and lists signed by them."""

    principal: str
    root: AccountRoot
    admin: DeviceSecret

    def first(self) -> bytes:
        return sign_first_list(self.principal, [self.admin.public()], self.root)

    def following(self, previous: bytes, *more: DeviceSecret, signer: DeviceSecret | None = None) -> bytes:
        devices = [self.admin.public(), *(device.public() for device in more)]
        return sign_next_list(parse_list(previous), devices, signer or self.admin)

    def device(self, device_id: str, *, admin: bool = False) -> DeviceSecret:
        return DeviceSecret.generate(self.principal, device_id, serves=True, admin=admin)


def make_person(principal: str, seed: int) -> Person:
    return Person(
        principal,
        AccountRoot(bytes([seed]) * 32),
        DeviceSecret.generate(principal, f"{principal[0]}-admin", admin=True),
    )


@pytest.fixture(scope="session")
def alice() -> Person:
    return make_person("alice@x.example", 1)


@pytest.fixture(scope="session")
def bob() -> Person:
    return make_person("bob@y.example", 2)


class MemoryBus:
    """One stream; appends are compare-and-set like JetStream's."""

    def __init__(self) -> None:
        self.messages: list[StreamMessage] = []
        self.lag = asyncio.Event()
        self.lag.set()
        self._more = asyncio.Event()
        self.before_publish: Callable[[], None] | None = None

    async def stream_state(self, stream: str) -> StreamState:
        return StreamState(1, 1, len(self.messages), len(self.messages))

    async def last_message(self, subject: str, *, stream: str = "") -> StreamMessage | None:
        return next((m for m in reversed(self.messages) if m.subject == subject), None)

    async def publish(self, subject, payload, *, operation_id="", expected_last=None) -> PublishAck:
        hook, self.before_publish = self.before_publish, None
        if hook is not None:
            hook()
        newest = await self.last_message(subject)
        if expected_last is not None and (newest.sequence if newest else 0) != expected_last:
            if newest is not None and newest.operation_id == operation_id:
                return PublishAck("KEYLOG", newest.sequence, duplicate=True)
            raise Conflict("wrong last sequence", reason="WRONG_LAST_SEQUENCE")
        return PublishAck("KEYLOG", self.store(subject, payload, operation_id))

    def store(self, subject, payload, operation_id="") -> int:
        headers = {TYPE_HEADER: payload.DESCRIPTOR.full_name, OPERATION_HEADER: operation_id}
        raw = payload.SerializeToString()
        self.messages.append(StreamMessage("KEYLOG", subject, len(self.messages) + 1, 0, headers, raw))
        waiting, self._more = self._more, asyncio.Event()
        waiting.set()
        return len(self.messages)

    async def ordered_consumer(
        self, stream, *, from_sequence=1, subjects=(), newest_only=False
    ) -> AsyncIterator[StreamMessage]:
        position = 0
        while True:
            while position < len(self.messages):
                await self.lag.wait()
                position += 1
                yield self.messages[position - 1]
            await self._more.wait()


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()
