"""Records in JetStream key-value buckets (file storage), changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.errors import Conflict
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.kv import KvBucket
from syftmesh_kit.topology import bucket

from syftmesh_identity.adapters import codec
from syftmesh_identity.adapters.codec import Codec
from syftmesh_identity.domain.model import Account, Device, Family, JoinToken, Site, Stored
from syftmesh_identity.domain.ports import RecordStore

Record = TypeVar("Record")

BUCKETS: Final = (
    subject.KV_IDENTITY_KEYS,
    subject.KV_IDENTITY_REVOKED,
    subject.KV_IDENTITY_SIGNING,
    subject.KV_IDENTITY_DEVICE,
    subject.KV_IDENTITY_PRINCIPAL,
    subject.KV_IDENTITY_REFRESH,
    subject.KV_IDENTITY_JOIN,
    subject.KV_IDENTITY_SITE,
    subject.KV_IDENTITY_CODE,
    subject.KV_IDENTITY_LIMIT,
    subject.KV_IDENTITY_LOGIN,
)

KEPT_S: Final = 7 * 24 * 3600
"""Seconds that a refresh family or join token is kept after its end, for lists and for telling reuse."""


class KvRecords(RecordStore[Record]):
    """One kind of record in one bucket. A key's parts are joined by ``/``; each may be any text.

    Args:
        kv: The bucket.
        records: Encodes the records.
        clock: Wall time.
        expires_ms: Gives the end of a record, after which it is kept for `kept_s` and then vanishes;
            None keeps records for ever.
        kept_s: Seconds that a record is kept after its end.
    """

    def __init__(
        self,
        kv: KvBucket,
        records: Codec[Record],
        clock: Clock,
        expires_ms: Callable[[Record], int] | None = None,
        kept_s: int = KEPT_S,
    ) -> None:
        self._kv = kv
        self._codec = records
        self._clock = clock
        self._expires_ms = expires_ms
        self._kept_s = kept_s

    async def get(self, key: str) -> Stored[Record] | None:
        """Return the record of `key`, or None."""
        found = await self._kv.get(_key(key))
        if found is None or found.value is None:
            return None
        return Stored(self._codec.decode(found.value), found.revision)

    async def create(self, key: str, record: Record) -> bool:
        """Write `record` only if there is none; return whether it was written."""
        try:
            await self._kv.create(_key(key), self._codec.encode(record), ttl_s=self._ttl_s(record))
        except Conflict:
            return False
        return True

    async def replace(self, key: str, record: Record, revision: int) -> bool:
        """Write `record` only if the revision is still `revision`; return whether it was written."""
        try:
            await self._kv.update(_key(key), self._codec.encode(record), revision, ttl_s=self._ttl_s(record))
        except Conflict:
            return False
        return True

    async def list(self, prefix: str = "") -> list[Record]:
        """Return the records below a key part, or all of them."""
        below = _key(prefix) if prefix else ""
        return [
            self._codec.decode(entry.value)
            async for entry in self._kv.entries(below)
            if entry.value is not None
        ]

    def _ttl_s(self, record: Record) -> int | None:
        if self._expires_ms is None:
            return None
        return max(0, self._expires_ms(record) - self._clock.now_ms()) // 1000 + self._kept_s


@dataclass(frozen=True, slots=True)
class KvStores:
    """The state of identity in its buckets."""

    devices: KvRecords[Device]
    accounts: KvRecords[Account]
    families: KvRecords[Family]
    join_tokens: KvRecords[JoinToken]
    sites: KvRecords[Site]


def stores_on(bus: Bus, clock: Clock) -> KvStores:
    """Return the stores; `declare` makes their buckets."""
    return KvStores(
        devices=KvRecords(bus.kv(subject.KV_IDENTITY_DEVICE), codec.DEVICES, clock),
        accounts=KvRecords(bus.kv(subject.KV_IDENTITY_PRINCIPAL), codec.ACCOUNTS, clock),
        families=KvRecords(
            bus.kv(subject.KV_IDENTITY_REFRESH), codec.FAMILIES, clock, lambda family: family.expires_ms
        ),
        join_tokens=KvRecords(
            bus.kv(subject.KV_IDENTITY_JOIN), codec.JOIN_TOKENS, clock, lambda token: token.expires_ms
        ),
        sites=KvRecords(bus.kv(subject.KV_IDENTITY_SITE), codec.SITES, clock),
    )


async def declare(bus: Bus) -> None:
    """Declare every bucket of identity, those of keys and revocations too.

    Raises:
        Unavailable: The bus does not answer.
    """
    for name in BUCKETS:
        await bus.ensure_kv(bucket(name))


def _key(key: str) -> str:
    return subject.kv_key(*key.split("/"))
