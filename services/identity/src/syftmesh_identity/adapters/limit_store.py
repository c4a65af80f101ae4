"""Login codes and counts in JetStream key-value buckets, which every replica shares and a restart does not empty."""

from __future__ import annotations

from typing import Any, Final

from syftmesh_core.clock import Clock
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus

from syftmesh_identity.adapters.codec import JsonCodec
from syftmesh_identity.adapters.kv_store import KvRecords
from syftmesh_identity.domain.code import CodeState, LoginCode
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.limit import Limiter, Usage

KEPT_S: Final = 60
"""Seconds that a code or count is kept after its end, for replicas whose clocks differ."""


def _usage(found: dict[str, Any]) -> Usage:
    return Usage(tuple(found["times_ms"]), found["expires_ms"])


CODES: Final = JsonCodec(lambda found: LoginCode(**found))
USAGES: Final = JsonCodec(_usage)


def limiter_on(bus: Bus, fingerprint: Fingerprint, clock: Clock) -> Limiter:
    """Return the counts in their bucket."""
    kv = bus.kv(subject.KV_IDENTITY_LIMIT)
    usages = KvRecords(kv, USAGES, clock, lambda usage: usage.expires_ms, kept_s=KEPT_S)
    return Limiter(usages, fingerprint, clock)


def code_state_on(bus: Bus, fingerprint: Fingerprint, clock: Clock) -> CodeState:
    """Return the codes and counts in their buckets."""
    kv = bus.kv(subject.KV_IDENTITY_CODE)
    codes = KvRecords(kv, CODES, clock, lambda code: code.expires_ms, kept_s=KEPT_S)
    return CodeState(codes, limiter_on(bus, fingerprint, clock), fingerprint)
