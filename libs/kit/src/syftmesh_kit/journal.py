"""The journal: one lease-holding journaler per stream copies what is acknowledged to the object store.

Within a second of being acknowledged a message stands in an object (see `journal_format`), written
create-if-absent; after a kill the next holder goes on behind the last object. `read_journal` gives
everything back for a rebuild.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import CollectorRegistry, Gauge
from syftmesh_core.clock import Clock, Random, system_random, uuid7
from syftmesh_core.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    IntegrityFailure,
    LimitExceeded,
    MeshError,
    NotFound,
    Unavailable,
)

from syftmesh_kit import subject
from syftmesh_kit.journal_format import decode, encode, object_key, object_prefix, parse_range
from syftmesh_kit.lease import TERM_S, Lease, lease_value
from syftmesh_kit.message import StreamMessage
from syftmesh_kit.object_store import ObjectStore

if TYPE_CHECKING:
    from syftmesh_kit.bus import Bus

_GATHER_S: Final = 0.25
_MAX_MESSAGES: Final = 4096
_MAX_BYTES: Final = 4 * 1024 * 1024
_POLL_S: Final = 1.0


class JournalMetrics:
    """Lag of each journaled stream; the alert is on seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["stream"]
        self.messages = Gauge(
            "syftmesh_journal_lag_messages",
            "Messages acknowledged and not yet journaled.",
            labels,
            registry=registry,
        )
        self.seconds = Gauge(
            "syftmesh_journal_lag_seconds",
            "Age of the oldest such message in seconds.",
            labels,
            registry=registry,
        )


class Journaler:
    """Journals one stream; run one per stream in every replica, the lease lets one of them work.

    Args:
        bus: The bus; the bucket ``journal`` must have been declared.
        store: Where objects go.
        stream: Name of the stream (``KV_<bucket>`` for a bucket).
        clock: Time.
        metrics: Where the lag is shown.
        random: For the holder's id.
        term_s: Seconds of the lease.
    """

    def __init__(
        self,
        bus: Bus,
        store: ObjectStore,
        stream: str,
        clock: Clock,
        metrics: JournalMetrics,
        *,
        random: Random = system_random,
        term_s: float = TERM_S,
    ) -> None:
        self._bus = bus
        self._store = store
        self._stream = stream
        self._clock = clock
        self._metrics = metrics
        self._term_s = term_s
        key = subject.kv_key(stream)
        self._lease = Lease(bus.kv(subject.KV_JOURNAL), key, uuid7(clock, random), clock, term_s=term_s)
        self._epoch = 0
        self._last = 0
        self._current_s = clock.monotonic_s()
        self._log: Any = structlog.get_logger("syftmesh.journal")

    async def run(self) -> None:
        """Contend and journal for ever; run it in a TaskGroup. Cancelling it releases the lease."""
        try:
            while True:
                try:
                    if await self._lease.try_acquire():
                        self._log.info("journal.lease_taken", stream=self._stream, term=self._lease.term)
                        await self._work()
                except (Unavailable, NotFound, Conflict, LimitExceeded) as error:
                    # LimitExceeded: the bus is full and cannot even keep the lease; somebody has to make room.
                    self._log.warning("journal.paused", stream=self._stream, reason=error.reason)
                    # While nothing can be written the lag grows with time, whatever was seen last.
                    self._metrics.seconds.labels(self._stream).set(
                        self._clock.monotonic_s() - self._current_s
                    )
                await asyncio.sleep(min(_POLL_S, self._term_s / 4))
        finally:
            with suppress(MeshError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._lease.release()

    async def _work(self) -> None:
        await self._resume()
        queue: asyncio.Queue[StreamMessage] = asyncio.Queue(maxsize=_MAX_MESSAGES)
        reader = asyncio.create_task(self._read(queue))
        try:
            while self._lease.is_held:
                if not await self._step(queue):
                    return
                if reader.done():
                    reader.result()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _step(self, queue: asyncio.Queue[StreamMessage]) -> bool:
        """Write one object, or nothing when nothing came; return False when the lease was lost."""
        batch: list[StreamMessage] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(self._term_s / 4):
                batch.append(await queue.get())
        if batch:
            await asyncio.sleep(_GATHER_S)
            size = len(batch[0].payload)
            while not queue.empty() and len(batch) < _MAX_MESSAGES and size < _MAX_BYTES:
                batch.append(queue.get_nowait())
                size += len(batch[-1].payload)
            if not self._lease.is_held:
                return False
            await self._write(batch)
        self._show_lag(queue, batch)
        return await self._lease.renew({"epoch": self._epoch, "last": self._last})

    async def _read(self, queue: asyncio.Queue[StreamMessage]) -> None:
        async with aclosing(
            self._bus.ordered_consumer(self._stream, from_sequence=self._last + 1)
        ) as messages:
            async for message in messages:
                await queue.put(message)

    async def _write(self, batch: list[StreamMessage]) -> None:
        last = batch[-1].sequence
        key = object_key(self._stream, self._epoch, self._last + 1, last)
        with suppress(AlreadyExists):  # an earlier try, or a former holder, wrote the same range
            await self._store.put(key, encode(batch))
        self._last = last

    async def _resume(self) -> None:
        state = await self._bus.stream_state(self._stream)
        self._epoch, known = state.epoch, self._lease.value
        self._last = int(known.get("last", 0)) if known.get("epoch") == self._epoch else 0
        prefix = object_prefix(self._stream, self._epoch)
        after = f"{prefix}{self._last:020d}" if self._last else ""
        async for info in self._store.list(prefix, after=after):
            self._last = max(self._last, parse_range(info.key)[1])
        if self._last > state.last_sequence:
            # The stream holds less than was acknowledged: going on would journal other messages under old
            # numbers.
            raise Unavailable(
                f"The stream {self._stream} is behind its journal. Rebuild it with `syftmesh admin rebuild`.",
                reason="STREAM_BEHIND_JOURNAL",
                metadata={"stream": self._stream},
            )

    def _show_lag(self, queue: asyncio.Queue[StreamMessage], batch: list[StreamMessage]) -> None:
        waiting = queue.qsize() + (batch[-1].pending if batch and queue.empty() else 0)
        age_s = max(0.0, (self._clock.now_ms() - batch[0].time_ms) / 1000) if batch else 0.0
        self._metrics.messages.labels(self._stream).set(waiting)
        self._metrics.seconds.labels(self._stream).set(age_s)
        self._current_s = self._clock.monotonic_s()


async def wait_journaled(bus: Bus, stream: str, sequence: int, *, timeout_s: float = 5.0) -> None:
    """Return once the journal holds `sequence` of `stream`; the key log waits for it before it signs a head.

    Raises:
        DeadlineExceeded: Not within the time (JOURNAL_LAGS).
        Unavailable: The bus does not answer.
    """
    state = await bus.stream_state(stream)
    bucket, key = bus.kv(subject.KV_JOURNAL), subject.kv_key(stream)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                value = await lease_value(bucket, key)
                if value.get("epoch") == state.epoch and int(value.get("last", 0)) >= sequence:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DeadlineExceeded(
            f"The journal of {stream} has not reached {sequence} yet. Check the lag of the journaler.",
            reason="JOURNAL_LAGS",
            metadata={"stream": stream, "sequence": str(sequence)},
        ) from None


async def read_journal(store: ObjectStore, stream: str, epoch: int) -> AsyncIterator[StreamMessage]:
    """Iterate over every journaled message of one epoch in order of sequence, each once.

    Raises:
        IntegrityFailure: An object is damaged (JOURNAL_CORRUPT) or missing (JOURNAL_GAP, metadata ``after``).
    """
    last = 0
    async for info in store.list(object_prefix(stream, epoch)):
        first, end = parse_range(info.key)
        if first > last + 1:
            raise IntegrityFailure(
                f"The journal of {stream} has a gap behind {last}. Restore what is missing from a backup.",
                reason="JOURNAL_GAP",
                metadata={"stream": stream, "after": str(last)},
            )
        if end <= last:
            continue
        for message in decode(stream, info.key, await store.get(info.key)):
            if message.sequence > last:
                yield message
        last = end
