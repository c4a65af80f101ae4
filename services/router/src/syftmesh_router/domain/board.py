"""Who waits for which call, and which call expires when; fed by the records' own change feed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.errors import MeshError

from syftmesh_router.domain.ports import CallRecords
from syftmesh_router.domain.record import CallRecord

_LONGEST_SLEEP_S: Final = 30.0
_RETRY_MS: Final = 500

_log: Any = structlog.get_logger("syftmesh.router")


class Expiries:
    """Open calls by expiry; pure, `due` tells which have passed."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._open)

    def note(self, record: CallRecord) -> None:
        """Take in the newest record of a call."""
        if record.state.is_final:
            self._open.pop(record.call_id, None)
        elif self._open.get(record.call_id) != record.expires_ms:
            self.put(record.call_id, record.expires_ms)

    def put(self, call_id: str, at_ms: int) -> None:
        """Look at this call again at `at_ms`."""
        self._open[call_id] = at_ms
        heapq.heappush(self._heap, (at_ms, call_id))

    def due(self, now_ms: int) -> list[str]:
        """Take out the open calls whose expiry has passed, oldest expiry first."""
        found = []
        while self._heap and (self._heap[0][0] <= now_ms or self._is_stale(self._heap[0])):
            at_ms, call_id = heapq.heappop(self._heap)
            if self._open.get(call_id) == at_ms and at_ms <= now_ms:
                del self._open[call_id]
                found.append(call_id)
        return found

    def next_ms(self) -> int | None:
        """Return the earliest expiry of an open call."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _is_stale(self, item: tuple[int, str]) -> bool:
        return self._open.get(item[1]) != item[0]


class CallBoard:
    """Wakes waiters and the expiry of calls. Each replica has one: a compare-and-set decides.

    Args:
        records: Records of calls; their feed tells of changes by all replicas, also after a restart.
        clock: Wall time.
    """

    def __init__(self, records: CallRecords, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._expiries = Expiries()
        self._changed = asyncio.Event()

    @contextmanager
    def waiting(self, call_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set when the call becomes final; look at the record after entering."""
        event = asyncio.Event()
        self._waiters.setdefault(call_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiters.get(call_id, set())
            events.discard(event)
            if not events:
                self._waiters.pop(call_id, None)

    def note(self, record: CallRecord) -> None:
        """Take in a record."""
        earliest = self._expiries.next_ms()
        self._expiries.note(record)
        if record.state.is_final:
            for event in self._waiters.get(record.call_id, ()):
                event.set()
        elif earliest is None or record.expires_ms < earliest:
            self._changed.set()

    async def follow(self) -> None:
        """Follow the records for ever."""
        async for record in self._records.watch():
            self.note(record)

    async def expire(self, end: Callable[[str], Awaitable[object]]) -> None:
        """Call `end` for each open call when its expiry has passed, for ever."""
        while True:
            self._changed.clear()
            for call_id in self._expiries.due(self._clock.now_ms()):
                try:
                    await end(call_id)
                except MeshError as error:
                    _log.warning("call.expiry_postponed", call_id=call_id, reason=error.reason)
                    self._expiries.put(call_id, self._clock.now_ms() + _RETRY_MS)
            due_ms = self._expiries.next_ms()
            left_s = _LONGEST_SLEEP_S if due_ms is None else (due_ms - self._clock.now_ms()) / 1000
            try:
                async with asyncio.timeout(min(max(left_s, 0.001), _LONGEST_SLEEP_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue
