"""Records of calls in the key-value bucket `call`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, Final

import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.errors import Conflict
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.kv import KvBucket

from syftmesh_router.domain.ports import Versioned
from syftmesh_router.domain.record import CallRecord, CallState

_KEPT_S: Final = 86_400
"""Seconds that a record outlives its call's expiry."""

_log: Any = structlog.get_logger("syftmesh.router")


class KvCallRecords:
    """`ports.CallRecords` on JetStream.

    Args:
        bus: The bus; the bucket is declared by the router's module.
        clock: Wall time.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._kv: KvBucket = bus.kv(subject.KV_CALL)
        self._clock = clock

    async def get(self, call_id: str) -> Versioned | None:
        """Return the record as it is now."""
        entry = await self._kv.get(subject.kv_key(call_id))
        if entry is None or entry.value is None:
            return None
        return Versioned(decode(entry.value), entry.revision)

    async def create(self, record: CallRecord) -> Versioned | None:
        """Write the record, or return None when there is one."""
        key = subject.kv_key(record.call_id)
        try:
            return Versioned(record, await self._kv.create(key, encode(record), ttl_s=self._ttl_s(record)))
        except Conflict:
            return None

    async def update(self, old: Versioned, record: CallRecord) -> Versioned | None:
        """Replace `old`, or return None when it was changed meanwhile."""
        key = subject.kv_key(record.call_id)
        try:
            revision = await self._kv.update(key, encode(record), old.revision, ttl_s=self._ttl_s(record))
        except Conflict:
            return None
        return Versioned(record, revision)

    async def watch(self) -> AsyncIterator[CallRecord]:
        """Iterate over the records there are, then over every change, for ever."""
        async for entry in self._kv.watch():
            if entry.value is None:
                continue
            try:
                record = decode(entry.value)
            except (ValueError, KeyError, TypeError):
                _log.error("call.record_malformed", key=entry.key)
                continue
            yield record

    def _ttl_s(self, record: CallRecord) -> int:
        return max(1, (record.expires_ms - self._clock.now_ms()) // 1000) + _KEPT_S


def encode(record: CallRecord) -> bytes:
    """Return `record` as the bucket holds it."""
    return json.dumps({**asdict(record), "state": record.state.value}).encode()


def decode(value: bytes) -> CallRecord:
    """Return the record in `value`."""
    fields = json.loads(value)
    return CallRecord(**{**fields, "state": CallState(fields["state"])})
