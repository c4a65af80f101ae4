"""Logins by a provider in a JetStream key-value bucket: any replica finishes what another one started."""

from __future__ import annotations

from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus

from syftmesh_identity.adapters.codec import JsonCodec
from syftmesh_identity.adapters.kv_store import KvRecords
from syftmesh_identity.domain.provider import ProviderLogin

KEPT_S: Final = 60
"""Seconds that a login is kept after its end, for replicas whose clocks differ."""

PROVIDER_LOGINS: Final = JsonCodec(lambda found: ProviderLogin(**found))


def provider_logins_on(bus: Bus, clock: Clock) -> KvRecords[ProviderLogin]:
    """Return the logins under way."""
    kv = bus.kv(subject.KV_IDENTITY_LOGIN)
    return KvRecords(kv, PROVIDER_LOGINS, clock, lambda login: login.expires_ms, kept_s=KEPT_S)
