"""A lease in a key-value bucket: one holder at a time, found dead by its silence.

A contender takes over only after it has itself seen the entry unchanged for the whole term, by its own
monotonic clock: clocks of different machines are never compared. The holder trusts the lease for four fifths
of the term after its last confirmed renewal.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import Conflict

from syftmesh_kit.kv import KvBucket

TERM_S: Final = 10.0


class Lease:
    """One contender for the lease `key`.

    Args:
        bucket: Where leases are kept.
        key: From `subject.kv_key`.
        holder: Id of this contender, new at each start.
        clock: Monotonic time.
        term_s: Seconds without renewal after which others may take over.
    """

    def __init__(
        self, bucket: KvBucket, key: str, holder: str, clock: Clock, *, term_s: float = TERM_S
    ) -> None:
        self._kv = bucket
        self._key = key
        self._holder = holder
        self._clock = clock
        self._term_s = term_s
        self._revision = 0
        self._renewed_s = 0.0
        self._seen: tuple[int, float] = (-1, 0.0)
        self.term = 0
        """Number of the holder's term, higher at each change of holder: the fencing number."""
        self.value: dict[str, Any] = {}
        """Data kept with the lease by its last holder."""

    @property
    def is_held(self) -> bool:
        """Return whether this contender may act as the holder now."""
        return self._revision > 0 and self._clock.monotonic_s() - self._renewed_s < self._term_s * 0.8

    async def try_acquire(self) -> bool:
        """Take the lease if it is free, released or its holder silent for a term; return whether it is held.

        Raises:
            Unavailable: The bus does not answer.
        """
        started_s = self._clock.monotonic_s()
        entry = await self._kv.get(self._key)
        found = {} if entry is None or entry.value is None else json.loads(entry.value)
        revision = entry.revision if entry is not None else 0
        if found.get("holder") not in {None, "", self._holder}:
            if revision != self._seen[0]:
                self._seen = (revision, started_s)
            if started_s - self._seen[1] < self._term_s:
                return False
        self.value = dict(found.get("value", {}))
        term = int(found.get("term", 0)) + 1
        try:
            body = self._body(self._holder, term)
            if entry is None:
                self._revision = await self._kv.create(self._key, body)
            else:
                self._revision = await self._kv.update(self._key, body, revision)
        except Conflict:
            return False
        self.term, self._renewed_s = term, started_s
        return True

    async def renew(self, value: dict[str, Any] | None = None) -> bool:
        """Renew, keeping `value` with the lease; return False when it was lost.

        Raises:
            Unavailable: The bus does not answer; the lease ends by itself when this goes on.
        """
        if value is not None:
            self.value = value
        started_s = self._clock.monotonic_s()
        try:
            self._revision = await self._kv.update(
                self._key, self._body(self._holder, self.term), self._revision
            )
        except Conflict:
            # A renewal whose acknowledgement was lost is ours too.
            entry = await self._kv.get(self._key)
            if entry is None or entry.value is None or json.loads(entry.value).get("holder") != self._holder:
                self._revision = 0
                return False
            self._revision = entry.revision
        self._renewed_s = started_s
        return True

    async def release(self) -> None:
        """Give the lease up, so that the next holder need not wait for a term."""
        if self._revision:
            revision, self._revision = self._revision, 0
            try:
                await self._kv.update(self._key, self._body("", self.term), revision)
            except Conflict:
                return

    def _body(self, holder: str, term: int) -> bytes:
        return _encoded(holder, term, self.value)


async def lease_value(bucket: KvBucket, key: str) -> dict[str, Any]:
    """Return the data that the holder keeps with the lease, without contending; empty when there is none."""
    entry = await bucket.get(key)
    if entry is None or entry.value is None:
        return {}
    return dict(json.loads(entry.value).get("value", {}))


def freed_lease(entry: bytes, *, forget: Collection[str] = ()) -> bytes | None:
    """Return the entry of a lease without its holder, None for an entry that is no lease or has none.

    For whoever knows that every holder is dead. The term stays, because it fences off what a dead holder may
    have sent.

    Args:
        entry: The entry as it is.
        forget: Names in the lease's data that are true of the holder alone; emptied where they are.
    """
    try:
        found = json.loads(entry)
        if not found["holder"]:
            return None
        value = {name: "" if name in forget else kept for name, kept in found["value"].items()}
        return _encoded("", int(found["term"]), value)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _encoded(holder: str, term: int, value: Mapping[str, Any]) -> bytes:
    return json.dumps({"holder": holder, "term": term, "value": value}).encode()
