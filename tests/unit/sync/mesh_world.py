"""A hub in memory for unit tests: a stream, a store, people with devices, and records they sign."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from blake3 import blake3
from mesh.crypto.v1 import crypto_pb2
from mesh.sync.v1 import sync_pb2  # noqa: F401 - for the tests
from syftmesh_core.errors import AlreadyExists, Conflict, NotFound, Unavailable
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.identity.device_list import parse_list, sign_first_list, sign_next_list
from syftmesh_core.identity.phrase import AccountRoot
from syftmesh_core.record import (
    ContentHeader,
    FileRecord,
    SignedRecord,
    content_digest,
    parse_record,
    record_digest,
    sign_record,
)
from syftmesh_kit import subject
from syftmesh_kit.filelog import object_key
from syftmesh_kit.kv import KvEntry
from syftmesh_kit.message import OPERATION_HEADER, Outgoing, PublishAck, StreamMessage, type_headers
from syftmesh_kit.object_store import ObjectInfo, PresignedRequest
from syftmesh_kit.stream import StreamState
from syftmesh_sync.adapters.record_log import CHECKED_SUBJECT

NOW_MS = 1_800_000_000_000
ALICE, BOB, EVE = "alice@site.example", "bob@x.example", "eve@evil.example"


class FixedClock:
    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class FakeBus:
    """Streams by subject, with what JetStream promises about expectations and batches."""

    def __init__(self) -> None:
        self.messages: list[StreamMessage] = []
        self.arrived = asyncio.Event()
        self.epoch = 1
        self.lose_next_ack = False
        self.race: list[Outgoing] = []
        self.batches = 0
        self.now_ms = lambda: NOW_MS

    def _last(self, name: str) -> StreamMessage | None:
        return next((m for m in reversed(self.messages) if m.subject == name), None)

    def _store(self, name: str, payload, operation_id: str) -> int:
        stream = subject.FILES if name.startswith("files.") else subject.KEYLOG
        sequence = 1 + sum(m.stream == stream for m in self.messages)
        headers = {**type_headers(payload, ""), OPERATION_HEADER: operation_id}
        self.messages.append(
            StreamMessage(stream, name, sequence, self.now_ms(), headers, payload.SerializeToString())
        )
        waiting, self.arrived = self.arrived, asyncio.Event()
        waiting.set()
        return sequence

    def _run_race(self) -> None:
        racing, self.race = self.race, []
        for out in racing:
            self._store(out.subject, out.payload, "racer")

    async def publish(self, name, payload, *, message_id="", operation_id="", expected_last=None):
        self._run_race()
        last = self._last(name)
        sequence = last.sequence if last else 0
        if expected_last is not None and sequence != expected_last:
            if last is not None and operation_id and last.operation_id == operation_id:
                return PublishAck(subject.FILES, last.sequence, duplicate=True)
            raise Conflict("", reason="WRONG_LAST_SEQUENCE", metadata={"actual": str(sequence)})
        stored = self._store(name, payload, operation_id)
        if self.lose_next_ack:
            self.lose_next_ack = False
            raise Unavailable("", reason="BUS_TIMEOUT")
        return PublishAck(subject.FILES, stored)

    async def publish_batch(self, batch: Sequence[Outgoing], *, operation_id=""):
        self.batches += 1
        self._run_race()
        for out in batch:
            last = self._last(out.headers.get(CHECKED_SUBJECT, out.subject))
            sequence = last.sequence if last else 0
            if out.expected_last is not None and sequence != out.expected_last:
                first = self._last(batch[0].subject)
                if operation_id and first is not None and first.operation_id == operation_id:
                    return PublishAck(subject.FILES, first.sequence + len(batch) - 1, duplicate=True)
                raise Conflict("", reason="WRONG_LAST_SEQUENCE", metadata={"actual": str(sequence)})
        stored = [self._store(o.subject, o.payload, operation_id) for o in batch][-1]
        if self.lose_next_ack:
            self.lose_next_ack = False
            raise Unavailable("", reason="BUS_TIMEOUT")
        return PublishAck(subject.FILES, stored)

    async def last_message(self, name, *, stream=""):
        return self._last(name)

    async def stream_state(self, stream):
        found = [m for m in self.messages if m.stream == stream]
        return StreamState(self.epoch, 1, len(found), len(found))

    async def ordered_consumer(
        self, stream, *, from_sequence=1, subjects=(), newest_only=False
    ) -> AsyncIterator[StreamMessage]:
        stored = [m for m in self.messages if m.stream == stream]
        if newest_only:
            stored = sorted({m.subject: m for m in stored}.values(), key=lambda m: m.sequence)
        seen = stored[-1].sequence if stored else 0
        for message in stored:
            yield message
        while True:
            fresh = [m for m in self.messages if m.stream == stream and m.sequence > seen]
            for message in fresh:
                seen = message.sequence
                yield message
            if not fresh:
                await self.arrived.wait()


class FakeStore:
    """An object store; what a pre-signed URL allows is done by `do`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.grants: dict[str, tuple[str, str, int, str]] = {}
        self.away = False

    def _check(self) -> None:
        if self.away:
            raise Unavailable("", reason="OBJECT_STORE_AWAY")

    async def ensure_bucket(self) -> None:
        self._check()

    async def put(self, key, data, *, create=True):
        self._check()
        if create and key in self.objects:
            raise AlreadyExists("", reason="OBJECT_EXISTS")
        self.objects[key] = data

    async def get(self, key, *, start=0, end=None):
        self._check()
        if key not in self.objects:
            raise NotFound("", reason="OBJECT_MISSING")
        return self.objects[key][start:end]

    async def head(self, key):
        self._check()
        found = self.objects.get(key)
        return None if found is None else ObjectInfo(key, len(found))

    async def delete(self, key):
        self.objects.pop(key, None)

    async def list(self, prefix, *, after=""):
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield ObjectInfo(key, len(self.objects[key]))

    def presign_put(self, key, *, size_bytes, sha256, ttl_s):
        url = f"http://store.example/put/{len(self.grants)}"
        self.grants[url] = ("PUT", key, size_bytes, sha256.hex())
        return PresignedRequest("PUT", url, {"if-none-match": "*"}, NOW_MS + ttl_s * 1000)

    def presign_get(self, key, *, ttl_s):
        url = f"http://store.example/get/{len(self.grants)}"
        self.grants[url] = ("GET", key, 0, "")
        return PresignedRequest("GET", url, {}, NOW_MS + ttl_s * 1000)

    def do(self, method: str, url: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body of a request, as the store would answer it."""
        granted, key, size, digest = self.grants.get(url, ("", "", 0, ""))
        if granted != method:
            return 403, b""
        if method == "GET":
            return (200, self.objects[key]) if key in self.objects else (404, b"")
        if len(body) != size:
            return 403, b""
        if hashlib.sha256(body).hexdigest() != digest:
            return 400, b""
        if key in self.objects:
            return 412, b""
        self.objects[key] = body
        return 200, b""


class FakeBucket:
    def __init__(self) -> None:
        self.entries: dict[str, KvEntry] = {}
        self.revision = 0

    async def get(self, key):
        return self.entries.get(key)

    async def create(self, key, value):
        if key in self.entries:
            raise Conflict("", reason="KV_CONFLICT")
        return self._write(key, value)

    async def update(self, key, value, revision):
        if self.entries[key].revision != revision:
            raise Conflict("", reason="KV_CONFLICT")
        return self._write(key, value)

    def _write(self, key, value):
        self.revision += 1
        self.entries[key] = KvEntry(key, value, self.revision)
        return self.revision


@dataclass
class Person:
    """A principal: account root, devices, and the signed chain of device lists."""

    principal: str
    root: AccountRoot
    devices: list[DeviceSecret]
    chain: list[bytes] = field(default_factory=list)

    @property
    def device(self) -> DeviceSecret:
        return self.devices[0]

    @classmethod
    def create(cls, principal: str, *, admins: int = 1, others: int = 0) -> Person:
        number = int.from_bytes(hashlib.sha256(principal.encode()).digest()[:2], "big")
        devices = [
            DeviceSecret.generate(
                principal, str(uuid.UUID(int=number * 100 + i)), admin=i < admins, serves=i >= admins
            )
            for i in range(admins + others)
        ]
        root = AccountRoot(hashlib.sha256(principal.encode()).digest())
        person = cls(principal, root, devices)
        person.chain.append(sign_first_list(principal, [d.public() for d in devices], root))
        return person

    def remove(self, device: DeviceSecret) -> None:
        self.devices.remove(device)
        previous = parse_list(self.chain[-1])
        self.chain.append(sign_next_list(previous, [d.public() for d in self.devices], self.device))

    def publics(self) -> tuple[DevicePublic, ...]:
        return tuple(device.public() for device in self.devices)


def plain(data: bytes) -> ContentHeader:
    return ContentHeader(
        sealed=False,
        object_id=hashlib.sha256(data).hexdigest(),
        stored_size_bytes=len(data),
        plain_blake3=blake3(data).digest(),
        plain_size_bytes=len(data),
    )


def sealed(data: bytes) -> ContentHeader:
    return ContentHeader(sealed=True, object_id=hashlib.sha256(data).hexdigest(), stored_size_bytes=len(data))


def record(
    path: str,
    content: ContentHeader | None,
    device: DeviceSecret,
    *,
    replaces: SignedRecord | None = None,
    **changes,
) -> SignedRecord:
    site, _, below = path.partition("/")
    values = {
        "site": site,
        "path": below,
        "revision": 1 if replaces is None else parse_record(replaces)[0].revision + 1,
        "previous_digest": None if replaces is None else record_digest(replaces),
        "content_digest": None if content is None else content_digest(content),
        "epoch": 0,
        "deleted": content is None,
        "rules_checkpoint": None,
        "author": device.principal,
        "device_id": device.device_id,
        "created_ms": NOW_MS,
    } | changes
    return sign_record(FileRecord(**values), content, device)


def put_object(store: FakeStore, site: str, data: bytes) -> None:
    store.objects[object_key(site, hashlib.sha256(data).hexdigest())] = data


def publish_devices(bus: FakeBus, person: Person) -> None:
    message = crypto_pb2.SignedDeviceList(device_list=person.chain[-1])
    bus._store(subject.keylog(person.principal), message, "")


def rules(*lines: str) -> bytes:
    """Return a rule file: each line is `pattern: {level: [..]}` in flow style."""
    return ("rules:\n" + "".join(f"  - {line}\n" for line in lines)).encode()


PUBLIC = b'rules:\n  - pattern: "**"\n    access: {read: ["*"]}\n'
PRIVATE = b"rules: []\n"
