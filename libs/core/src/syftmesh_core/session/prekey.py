"""Prekeys: what a device publishes so that others can start a session while it is away.

Weekly: ``ENC('prekeys', [suite, principal, device id, epoch, signed prekey id and key, last-resort KEM key id
and key, created])``, signed by the device as ``ENC('prekeys-signed', [body, signature])``. One-time keys:
``ENC('one-time-prekey', [id, X25519 key])`` and ``ENC('kem-prekey', [suite, principal, device id, epoch, id,
ML-KEM-1024 key])``, the second signed as ``ENC('kem-prekey-signed', [body, signature])``. A fetched bundle is
``ENC('prekey-bundle', [prekeys-signed, one-time-prekey or absent, kem-prekey-signed or absent])``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, WrongState
from syftmesh_core.identity import ed25519
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.session.curve import KEM_PUBLIC_BYTES, X25519_BYTES, is_sound_kem, is_sound_x25519

SUITE = 1
"""X25519 + ML-KEM-1024, HKDF-SHA-512, double ratchet with SHA-256, AES-256-GCM, Ed25519."""

DAY_MS = 24 * 60 * 60 * 1000
NEW_EVERY_MS = 7 * DAY_MS
"""Age at which the owner replaces the weekly prekeys."""

ACCEPTED_MS = 45 * DAY_MS
"""Age up to which senders accept the weekly prekeys."""

KEPT_MS = 80 * DAY_MS
"""Age up to which the owner keeps their private halves."""

ONE_TIME_KEYS = 100
"""One-time prekeys of each kind that a device has published at most."""

REFILL_BELOW = 25
"""Remaining one-time prekeys of a kind below which the owner publishes new ones."""

MAX_CLOCK_AHEAD_MS = DAY_MS
"""How far in the future a weekly prekey may claim to be made."""

MAX_BUNDLE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class WeeklyPrekeys:
    """Signed prekey and last-resort KEM key of a device, its signature checked.

    Attributes:
        spk_id: Id of the signed prekey.
        spk: X25519 public key.
        kem_id: Id of the last-resort KEM key.
        kem: ML-KEM-1024 public key.
        created_ms: When they were made, Unix milliseconds.
        encoded: The signed bytes as received.
    """

    spk_id: int
    spk: bytes = field(repr=False)
    kem_id: int
    kem: bytes = field(repr=False)
    created_ms: int
    encoded: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, device: DevicePublic) -> WeeklyPrekeys:
        """Return the prekeys in `data`, which `device` must have signed.

        Raises:
            IntegrityFailure: ENCODING_INVALID for a wrong encoding, PREKEY_INVALID when signature, owner,
                suite or a key does not hold.
        """
        reader = _signed("prekeys", data, device)
        found = cls(
            spk_id=reader.integer(),
            spk=reader.raw(X25519_BYTES),
            kem_id=reader.integer(),
            kem=reader.raw(KEM_PUBLIC_BYTES),
            created_ms=reader.integer(),
            encoded=bytes(data),
        )
        reader.end()
        if not is_sound_x25519(found.spk) or not is_sound_kem(found.kem):
            _refuse("a key of it is unusable")
        return found

    def check_fresh(self, now_ms: int) -> None:
        """Check that a sender may still use them.

        Raises:
            WrongState: PREKEY_EXPIRED when they are older than 45 days, or made in the future.
        """
        if not self.created_ms - MAX_CLOCK_AHEAD_MS <= now_ms < self.created_ms + ACCEPTED_MS:
            raise WrongState(
                "The prekeys of the device are older than 45 days or made in the future: its owner must bring "
                "it online once, with its clock right, so that it publishes new ones.",
                reason="PREKEY_EXPIRED",
                metadata={"created_ms": str(self.created_ms)},
            )


@dataclass(frozen=True, slots=True)
class OneTimePrekey:
    """A one-time X25519 key; unsigned: whoever swaps it only makes the first message fail."""

    key_id: int
    key: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> OneTimePrekey:
        """Return the key in `data`.

        Raises:
            IntegrityFailure: ENCODING_INVALID, or PREKEY_INVALID for a point of small order.
        """
        reader = Reader("one-time-prekey", data)
        found = cls(key_id=reader.integer(), key=reader.raw(X25519_BYTES))
        reader.end()
        if not is_sound_x25519(found.key):
            _refuse("a key of it is unusable")
        return found

    def to_bytes(self) -> bytes:
        """Return the encoding."""
        return encode("one-time-prekey", [self.key_id, self.key])


@dataclass(frozen=True, slots=True)
class KemPrekey:
    """A one-time ML-KEM-1024 key, the device's signature checked."""

    key_id: int
    key: bytes = field(repr=False)
    encoded: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, device: DevicePublic) -> KemPrekey:
        """Return the key in `data`, which `device` must have signed.

        Raises:
            IntegrityFailure: As `WeeklyPrekeys.from_bytes`.
        """
        reader = _signed("kem-prekey", data, device)
        found = cls(key_id=reader.integer(), key=reader.raw(KEM_PUBLIC_BYTES), encoded=bytes(data))
        reader.end()
        if not is_sound_kem(found.key):
            _refuse("a key of it is unusable")
        return found


@dataclass(frozen=True, slots=True)
class PrekeyBundle:
    """What a sender fetches to start a session with one device, all of it checked.

    Attributes:
        device: The device, from a verified device list.
        weekly: Its weekly prekeys.
        one_time: A one-time X25519 key, when there was one left.
        one_time_kem: A one-time KEM key, when there was one left.
    """

    device: DevicePublic
    weekly: WeeklyPrekeys
    one_time: OneTimePrekey | None = None
    one_time_kem: KemPrekey | None = None

    @classmethod
    def from_bytes(cls, data: bytes, device: DevicePublic, *, now_ms: int) -> PrekeyBundle:
        """Return the bundle in `data` for `device`.

        Raises:
            IntegrityFailure: ENCODING_INVALID or PREKEY_INVALID, as for its parts.
            WrongState: PREKEY_EXPIRED.
        """
        reader = Reader("prekey-bundle", data, max_bytes=MAX_BUNDLE_BYTES)
        weekly, one_time, kem = reader.raw(), reader.optional_raw(), reader.optional_raw()
        reader.end()
        bundle = cls(
            device=device,
            weekly=WeeklyPrekeys.from_bytes(weekly, device),
            one_time=None if one_time is None else OneTimePrekey.from_bytes(one_time),
            one_time_kem=None if kem is None else KemPrekey.from_bytes(kem, device),
        )
        bundle.weekly.check_fresh(now_ms)
        return bundle

    def to_bytes(self) -> bytes:
        """Return the encoding, the signed parts as received."""
        one_time = None if self.one_time is None else self.one_time.to_bytes()
        kem = None if self.one_time_kem is None else self.one_time_kem.encoded
        return encode("prekey-bundle", [self.weekly.encoded, one_time, kem])

    @property
    def kem_id(self) -> int:
        """Id of the KEM key a first message uses: the one-time one, else the last resort."""
        return self.weekly.kem_id if self.one_time_kem is None else self.one_time_kem.key_id

    @property
    def kem(self) -> bytes:
        """The KEM key of `kem_id`."""
        return self.weekly.kem if self.one_time_kem is None else self.one_time_kem.key


def _signed(label: str, data: bytes, device: DevicePublic) -> Reader:
    outer = Reader(f"{label}-signed", data, max_bytes=MAX_BUNDLE_BYTES)
    body, signature = outer.raw(), outer.raw(ed25519.SIGNATURE_BYTES)
    outer.end()
    if not device.has_signed(signature, body):
        _refuse("its signature does not hold")
    reader = Reader(label, body)
    suite = reader.integer()
    if suite != SUITE:
        _refuse(f"suite {suite} is unknown here")
    if (reader.text(), reader.text(), reader.integer()) != (device.principal, device.device_id, device.epoch):
        _refuse("it belongs to another device or epoch")
    return reader


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The prekey is refused: {what}.", reason="PREKEY_INVALID")
