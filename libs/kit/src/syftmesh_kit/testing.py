"""Fakes and servers for tests: never imported by the product.

The fakes keep the promises of their ports; one contract suite runs on them and on the real thing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.errors import AlreadyExists, InvalidInput, NotFound, Unavailable

from syftmesh_kit.object_store import ObjectInfo, PresignedRequest, check_key, check_presign

T = TypeVar("T")


class FakeClock:
    """A clock that moves only when told; starts at 2026-01-01T00:00:00Z."""

    def __init__(self, now_ms: int = 1_767_225_600_000) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 1000.0

    def now_ms(self) -> int:
        """Return the wall time in Unix milliseconds."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """Return the monotonic time in seconds."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self._now_ms += round(seconds * 1000)
        self._monotonic_s += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back when negative; the monotonic clock does not notice."""
        self._now_ms += round(seconds * 1000)


class FakeRandom:
    """Bytes that differ at each call and are the same in each run."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._calls = 0

    def __call__(self, size_bytes: int) -> bytes:
        """Return `size_bytes` bytes."""
        self._calls += 1
        return hashlib.shake_256(f"{self._seed}/{self._calls}".encode()).digest(size_bytes)


class FakeObjectStore:
    """`ObjectStore` in memory; `away` makes it fail as a store that does not answer."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or FakeClock()
        self.objects: dict[str, bytes] = {}
        self.away = False

    async def put(self, key: str, data: bytes, *, create: bool = True) -> None:
        """See `ObjectStore.put`."""
        self._answer(key)
        if create and key in self.objects:
            raise AlreadyExists("There already.", reason="OBJECT_EXISTS", metadata={"key": key})
        self.objects[key] = bytes(data)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        self._answer(key)
        if start < 0 or (end is not None and end <= start):
            raise InvalidInput("Bad range.", reason="RANGE_INVALID")
        if key not in self.objects:
            raise NotFound("No such object.", reason="OBJECT_MISSING", metadata={"key": key})
        if start and start >= len(self.objects[key]):
            raise InvalidInput("Bad range.", reason="RANGE_INVALID")
        return self.objects[key][start:end]

    async def head(self, key: str) -> ObjectInfo | None:
        """See `ObjectStore.head`."""
        self._answer(key)
        data = self.objects.get(key)
        return None if data is None else self._info(key, data)

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._answer(key)
        self.objects.pop(key, None)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        self._answer(prefix.removesuffix("/") or "root")
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield self._info(key, self.objects[key])

    def presign_put(self, key: str, *, size_bytes: int, sha256: bytes, ttl_s: int) -> PresignedRequest:
        """See `ObjectStore.presign_put`; `fulfil` answers what this gives out."""
        check_presign(key, ttl_s, size_bytes=size_bytes, sha256=sha256)
        headers = {
            "content-length": str(size_bytes),
            "if-none-match": "*",
            "x-amz-checksum-sha256": base64.b64encode(sha256).decode(),
        }
        return PresignedRequest("PUT", f"memory:{key}", headers, self._clock.now_ms() + ttl_s * 1000)

    def presign_get(self, key: str, *, ttl_s: int) -> PresignedRequest:
        """See `ObjectStore.presign_get`."""
        check_presign(key, ttl_s)
        return PresignedRequest("GET", f"memory:{key}", {}, self._clock.now_ms() + ttl_s * 1000)

    def fulfil(self, request: PresignedRequest, body: bytes = b"") -> tuple[int, bytes]:
        """Answer a pre-signed request with status and body, as a store does."""
        key = request.url.removeprefix("memory:")
        if self._clock.now_ms() > request.expires_at_ms:
            return 403, b""
        if request.method == "GET":
            return (200, self.objects[key]) if key in self.objects else (404, b"")
        if str(len(body)) != request.headers["content-length"]:
            return 403, b""
        if (
            base64.b64encode(hashlib.sha256(body).digest()).decode()
            != request.headers["x-amz-checksum-sha256"]
        ):
            return 400, b""
        if key in self.objects:
            return 412, b""
        self.objects[key] = body
        return 200, b""

    def _answer(self, key: str) -> None:
        check_key(key)
        if self.away:
            raise Unavailable("The store does not answer.", reason="OBJECT_STORE_AWAY")

    def _info(self, key: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())


@contextmanager
def background_server(
    start: Callable[[asyncio.TaskGroup], Awaitable[T]], stop: Callable[[], Awaitable[None]]
) -> Iterator[T]:
    """Run a native server from a thread with a loop of its own, for fixtures that outlive a test's loop.

    Args:
        start: E.g. `NatsServer.start`.
        stop: E.g. `NatsServer.stop`.
    """
    started, ending = threading.Event(), threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    async def serve() -> None:
        async with asyncio.TaskGroup() as tasks:
            results.append(await start(tasks))
            started.set()
            await asyncio.to_thread(ending.wait)
            await stop()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="background-server", daemon=True)
    thread.start()
    started.wait()
    if failures:
        raise failures[0]
    try:
        yield results[0]
    finally:
        ending.set()
        thread.join(timeout=15)
