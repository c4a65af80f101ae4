"""The private halves of prekeys, and how a device makes both halves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import Reader, Value, encode
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.session.curve import KEM_SEED_BYTES, X25519_BYTES, kem_public, x25519_public
from syftmesh_core.session.prekey import KEPT_MS, SUITE, KemPrekey, OneTimePrekey, WeeklyPrekeys

_ID_BYTES = 8
_MAX_SECRET_BYTES = 512


class PrekeyKind(StrEnum):
    """What a private prekey is for."""

    SIGNED = "signed"
    ONE_TIME = "one-time"
    KEM_LAST_RESORT = "kem-last-resort"
    KEM_ONE_TIME = "kem-one-time"


_SIZES = {
    PrekeyKind.SIGNED: X25519_BYTES,
    PrekeyKind.ONE_TIME: X25519_BYTES,
    PrekeyKind.KEM_LAST_RESORT: KEM_SEED_BYTES,
    PrekeyKind.KEM_ONE_TIME: KEM_SEED_BYTES,
}


@dataclass(frozen=True, slots=True)
class PrekeySecret:
    """One private prekey. Lives in the key store only.

    Attributes:
        kind: What it is for.
        key_id: Random 64-bit id.
        secret: Private X25519 key (32 bytes) or ML-KEM-1024 seed (64 bytes).
        created_ms: When it was made, Unix milliseconds.
    """

    kind: PrekeyKind
    key_id: int
    secret: bytes = field(repr=False)
    created_ms: int

    @classmethod
    def generate(cls, kind: PrekeyKind, *, now_ms: int, random: Random = system_random) -> PrekeySecret:
        """Return a fresh key of `kind`."""
        key_id = int.from_bytes(random(_ID_BYTES), "big")
        return cls(kind, key_id, random(_SIZES[kind]), now_ms)

    @classmethod
    def from_bytes(cls, data: bytes) -> PrekeySecret:
        """Return the key that `to_bytes` wrote.

        Raises:
            IntegrityFailure: ENCODING_INVALID, or PREKEY_INVALID for an unknown kind.
        """
        reader = Reader("prekey-secret", data, max_bytes=_MAX_SECRET_BYTES)
        name = reader.text()
        kind = next((kind for kind in PrekeyKind if kind == name), None)
        if kind is None:
            raise IntegrityFailure(
                "The stored prekey is of an unknown kind: a newer version wrote it, or it is damaged.",
                reason="PREKEY_INVALID",
            )
        found = cls(kind, reader.integer(), reader.raw(_SIZES[kind]), reader.integer())
        reader.end()
        return found

    def to_bytes(self) -> bytes:
        """Return the key in the clear: for the key store, which encrypts it."""
        return encode("prekey-secret", [self.kind.value, self.key_id, self.secret, self.created_ms])

    def is_kept(self, now_ms: int) -> bool:
        """Return whether it may still be used; what is not one-time is destroyed after 80 days."""
        one_time = self.kind in (PrekeyKind.ONE_TIME, PrekeyKind.KEM_ONE_TIME)
        return one_time or now_ms < self.created_ms + KEPT_MS


def weekly_prekeys(
    device: DeviceSecret, signed: PrekeySecret, last_resort: PrekeySecret, *, public: DevicePublic
) -> WeeklyPrekeys:
    """Return the public half of the two weekly keys, signed by `device`.

    Args:
        device: The owner.
        signed: Its key of kind SIGNED; both keys are dated by it.
        last_resort: Its key of kind KEM_LAST_RESORT.
        public: The public half of `device`.
    """
    spk: list[Value] = [signed.key_id, x25519_public(signed.secret)]
    kem: list[Value] = [last_resort.key_id, kem_public(last_resort.secret)]
    body = encode("prekeys", [*_owner(device), *spk, *kem, signed.created_ms])
    return WeeklyPrekeys.from_bytes(encode("prekeys-signed", [body, device.sign(body)]), public)


def one_time_prekey(secret: PrekeySecret) -> OneTimePrekey:
    """Return the public half of a key of kind ONE_TIME."""
    return OneTimePrekey(secret.key_id, x25519_public(secret.secret))


def kem_prekey(device: DeviceSecret, secret: PrekeySecret, *, public: DevicePublic) -> KemPrekey:
    """Return the public half of a key of kind KEM_ONE_TIME, signed by `device`."""
    body = encode("kem-prekey", [*_owner(device), secret.key_id, kem_public(secret.secret)])
    return KemPrekey.from_bytes(encode("kem-prekey-signed", [body, device.sign(body)]), public)


def _owner(device: DeviceSecret) -> list[Value]:
    return [SUITE, device.principal, device.device_id, device.epoch]
