"""Key-value buckets on JetStream (NATS ADR-8) with typed conflicts.

Keys are made with `subject.kv_key`, so that nobody's text becomes a wildcard.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import nats.errors
import nats.js.errors
from nats.js.api import Header
from syftmesh_core.errors import Conflict, InvalidInput

from syftmesh_kit.fault import bus_error

if TYPE_CHECKING:
    from syftmesh_kit.bus import Bus

_OPERATION: Final = "KV-Operation"
_MARKER: Final = "Nats-Marker-Reason"
_KEY_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=/.")


@dataclass(frozen=True, slots=True)
class KvEntry:
    """One value.

    Attributes:
        key: Key within the bucket.
        value: The value; None in a watch when the key was deleted or has expired.
        revision: For `KvBucket.update` and `delete`.
        time_ms: When it was written, Unix milliseconds.
        pending: In a watch: entries of the present state still to come; 0 means caught up.
    """

    key: str
    value: bytes | None
    revision: int
    time_ms: int = 0
    pending: int = 0


class KvBucket:
    """One bucket; get it from `Bus.ensure_kv` or `Bus.kv`.

    Every method raises `Unavailable` when the bus does not answer, NotFound (STREAM_MISSING) when there is
    no such bucket, and InvalidInput (KEY_INVALID) for a key with characters that a subject cannot hold.
    """

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."

    @property
    def name(self) -> str:
        """Return the bucket's name."""
        return self._bucket

    async def get(self, key: str) -> KvEntry | None:
        """Return the value of `key`, or None when it is missing or deleted."""
        found = await self._bus.last_message(self._subject(key), stream=self._stream)
        if found is None or _gone(found.headers):
            return None
        return KvEntry(key, found.payload, found.sequence, found.time_ms)

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Write `value` whatever is there and return its revision; `ttl_s` as in `create`."""
        return await self._write(key, value, {Header.MSG_TTL.value: str(ttl_s)} if ttl_s else {})

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Write `value` only if the key is missing, deleted or expired; return its revision.

        Args:
            key: The key.
            value: The value.
            ttl_s: Whole seconds the key lives (needs `KvSpec.key_ttl`).

        Raises:
            Conflict: The key is there (KV_CONFLICT).
        """
        headers = {Header.MSG_TTL.value: str(ttl_s)} if ttl_s else {}
        try:
            return await self._write(key, value, headers, last=0)
        except Conflict:
            found = await self._bus.last_message(self._subject(key), stream=self._stream)
            if found is not None and not _gone(found.headers):
                raise
        # A tombstone is there, or was a moment ago: its revision is the one to build on.
        return await self._write(key, value, headers, last=found.sequence if found is not None else 0)

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        """Write `value` only if the key's revision is still `revision`; return the new one.

        Raises:
            Conflict: Somebody else wrote it (KV_CONFLICT): get it again, then decide.
        """
        headers = {Header.MSG_TTL.value: str(ttl_s)} if ttl_s else {}
        return await self._write(key, value, headers, last=revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Delete the key, with `revision` only if it is still that.

        Raises:
            Conflict: Somebody else wrote it (KV_CONFLICT).
        """
        await self._write(key, b"", {_OPERATION: "DEL"}, last=revision)

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        """Delete the key and the history of its values (for secrets); raises as `delete`."""
        await self._write(key, b"", {_OPERATION: "PURGE", Header.ROLLUP.value: "sub"}, last=revision)

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the live keys, those that start with the key parts `prefix` (``a.b``) when given, sorted."""
        async with aclosing(self.entries(prefix)) as entries:
            return sorted([entry.key async for entry in entries])

    async def entries(self, prefix: str = "") -> AsyncGenerator[KvEntry, None]:
        """Iterate over the live entries as they are now, then end; `prefix` as in `keys`."""
        subjects = (self._filter(prefix),)
        state = await self._bus.subject_count(self._stream, subjects[0])
        if state == 0:
            return
        async with aclosing(self.watch(prefix)) as watching:
            async for entry in watching:
                if entry.value is not None:
                    yield entry
                if entry.pending == 0:
                    return

    async def watch(self, prefix: str = "") -> AsyncGenerator[KvEntry, None]:
        """Iterate over the present entries, then over every change, for ever; deletions have the value None.

        An empty bucket yields nothing until something is written: use `caught_up` of `keyset.KvMirror`.
        """
        consumer = self._bus.ordered_consumer(
            self._stream, subjects=(self._filter(prefix),), newest_only=True
        )
        async with aclosing(consumer):
            async for message in consumer:
                value = None if _gone(message.headers) else message.payload
                key = message.subject.removeprefix(self._prefix)
                yield KvEntry(key, value, message.sequence, message.time_ms, message.pending)

    async def _write(self, key: str, value: bytes, headers: dict[str, str], last: int | None = None) -> int:
        subject = self._subject(key)
        if last is not None:
            headers = {**headers, Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(last)}
        try:
            ack = await self._bus.jetstream.publish(subject, value, headers=headers or None)
        except (nats.errors.Error, TimeoutError) as error:
            known = bus_error(error, self._bucket)
            if isinstance(known, Conflict):
                raise Conflict(
                    f"The entry in {self._bucket} was changed by somebody else. Read it again, then decide.",
                    reason="KV_CONFLICT",
                    metadata={"bucket": self._bucket, "key": key},
                ) from error
            raise known from error
        return ack.seq

    def _subject(self, key: str) -> str:
        if not key or key[0] == "." or key[-1] == "." or ".." in key or not _KEY_CHARACTERS.issuperset(key):
            raise InvalidInput("The key is not valid. Make keys with kv_key.", reason="KEY_INVALID")
        return self._prefix + key

    def _filter(self, prefix: str) -> str:
        return f"{self._subject(prefix)}.>" if prefix else f"{self._prefix}>"


def _gone(headers: object) -> bool:
    found = headers if isinstance(headers, dict) else {}
    return found.get(_OPERATION) in {"DEL", "PURGE"} or _MARKER in found
