"""Declarations of the product's streams and buckets; each service ensures those it owns at start."""

from __future__ import annotations

from typing import Final

from syftmesh_kit import subject
from syftmesh_kit.stream import DAY_S, KvSpec, StreamSpec

FILES: Final = StreamSpec(
    subject.FILES, ("files.*.*",), max_messages_per_subject=16, atomic_batches=True, duplicate_window_s=600
)
"""File records: the newest and up to 15 older ones per path."""

CALLS: Final = StreamSpec(subject.CALLS, ("calls.*.*",), max_age_s=31 * DAY_S, duplicate_window_s=600)
"""Stored calls; kept a day longer than the longest expiry (30 days), the router deletes what is settled."""

REPLIES: Final = StreamSpec(
    subject.REPLIES,
    ("replies.*.*",),
    max_messages_per_subject=1,
    max_age_s=31 * DAY_S,
    duplicate_window_s=600,
)

DEAD: Final = StreamSpec(subject.DEAD, ("dead.*.*",), max_messages_per_subject=1, max_age_s=90 * DAY_S)

KEYLOG: Final = StreamSpec(subject.KEYLOG, ("keylog.*",), atomic_batches=True)
"""The verifiable log of keys: append-only, for ever."""

STREAMS: Final = (FILES, CALLS, REPLIES, DEAD, KEYLOG)

BUCKETS: Final = (
    KvSpec(subject.KV_IDENTITY_KEYS),
    KvSpec(subject.KV_IDENTITY_REVOKED, key_ttl=True),
    KvSpec(subject.KV_IDENTITY_SIGNING),
    KvSpec(subject.KV_IDENTITY_PRINCIPAL),
    KvSpec(subject.KV_IDENTITY_DEVICE),
    KvSpec(subject.KV_IDENTITY_CODE, key_ttl=True),
    KvSpec(subject.KV_IDENTITY_LOGIN, key_ttl=True),
    KvSpec(subject.KV_IDENTITY_REFRESH, key_ttl=True),
    KvSpec(subject.KV_IDENTITY_GROUP),
    KvSpec(subject.KV_IDENTITY_JOIN, key_ttl=True),
    KvSpec(subject.KV_IDENTITY_SITE),
    KvSpec(subject.KV_IDENTITY_LIMIT, key_ttl=True),
    KvSpec(subject.KV_CRYPTO_DEVICE),
    KvSpec(subject.KV_CRYPTO_PREKEY),
    KvSpec(subject.KV_CRYPTO_HEAD),
    KvSpec(subject.KV_CALL, ttl_s=32 * DAY_S, key_ttl=True),
    KvSpec(subject.KV_LEASE, key_ttl=True),
    KvSpec(subject.KV_RUNS, history=8),
    KvSpec(subject.KV_SYNC_OPERATION, ttl_s=2 * DAY_S, key_ttl=True),
    KvSpec(subject.KV_SYNC_SITE),
    KvSpec(subject.KV_JOURNAL),
)
"""Every bucket, by owner in the order of `subject`."""


def bucket(name: str) -> KvSpec:
    """Return the declaration of the bucket `name` (a ``KV_*`` constant of `subject`)."""
    return next(spec for spec in BUCKETS if spec.bucket == name)
