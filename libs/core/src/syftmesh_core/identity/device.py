"""Devices: the keys one profile holds, and their signed public half.

The signing key (Ed25519) signs ``ENC('device', principal, device id, epoch, signing key, identity-DH key,
X-Wing key, serves, admin)`` and so binds all keys of a device to each other and to its principal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.identity import ed25519, xwing

SEED_BYTES = 32
DH_KEY_BYTES = 32
MAX_PRINCIPAL_BYTES = 320
MAX_DEVICE_BYTES = 4096
"""Longest encoding of a signed device, in bytes; a real one has about 1.5 KiB."""

_DEVICE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DevicePublic:
    """The public half of a device, its own signature checked.

    Made by `DeviceSecret.public` or `from_bytes` only. That a device belongs to its principal follows from a
    verified device list, never from this object alone.

    Attributes:
        principal: E-mail address of the owner, normalised.
        device_id: 1 to 64 of ``[A-Za-z0-9._-]``.
        epoch: Version of the device's keys, from 1; new keys need a higher one.
        signing_key: Ed25519 public key, raw, 32 bytes.
        dh_key: X25519 identity key for sessions, raw, 32 bytes.
        xwing_key: X-Wing public key for content keys, raw, 1216 bytes.
        serves: Whether it takes calls.
        admin: Whether it may sign device lists, rules, approvals and releases.
        encoded: The signed bytes as received.
    """

    principal: str
    device_id: str
    epoch: int
    signing_key: bytes = field(repr=False)
    dh_key: bytes = field(repr=False)
    xwing_key: bytes = field(repr=False)
    serves: bool
    admin: bool
    encoded: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> DevicePublic:
        """Return the device in `data`, with its signature and keys checked.

        Raises:
            IntegrityFailure: ENCODING_INVALID for a wrong encoding, DEVICE_INVALID when the signature does
                not hold or a key or name is unusable.
        """
        outer = Reader("device-signed", data, max_bytes=MAX_DEVICE_BYTES)
        body, signature = outer.raw(), outer.raw(ed25519.SIGNATURE_BYTES)
        outer.end()
        reader = Reader("device", body)
        device = cls(
            principal=reader.text(),
            device_id=reader.text(),
            epoch=reader.integer(),
            signing_key=reader.raw(ed25519.KEY_BYTES),
            dh_key=reader.raw(DH_KEY_BYTES),
            xwing_key=reader.raw(xwing.PUBLIC_BYTES),
            serves=reader.boolean(),
            admin=reader.boolean(),
            encoded=bytes(data),
        )
        reader.end()
        device._check(body, signature)
        return device

    def to_bytes(self) -> bytes:
        """Return the signed bytes as received."""
        return self.encoded

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        """Return whether `signature` over `message` is this device's."""
        return ed25519.is_signed_by(self.signing_key, signature, message)

    def _check(self, body: bytes, signature: bytes) -> None:
        named = is_principal(self.principal) and is_device_id(self.device_id) and self.epoch >= 1
        if not named or not ed25519.is_sound_key(self.signing_key):
            _refuse("its names or its signing key are unusable")
        if not self.has_signed(signature, body):
            _refuse("its signature does not hold")
        if not _is_sound_dh_key(self.dh_key) or not xwing.is_sound_key(self.xwing_key):
            _refuse("a key of it is unusable")


class DeviceSecret:
    """All private keys of one device, as 32-byte seeds. Lives in the key store only.

    Args:
        principal: E-mail address of the owner, normalised.
        device_id: 1 to 64 of ``[A-Za-z0-9._-]``.
        seeds: Seeds of the signing, the identity-DH and the X-Wing key, 32 bytes each.
        epoch: Version of the keys, from 1.
        serves: Whether the device takes calls.
        admin: Whether it may sign device lists, rules, approvals and releases.

    Raises:
        InvalidInput: DEVICE_INVALID when a name, the epoch or a seed has not the form above.
    """

    __slots__ = (
        "_dh_seed",
        "_signing",
        "_signing_seed",
        "_xwing_seed",
        "admin",
        "device_id",
        "epoch",
        "principal",
        "serves",
    )

    def __init__(
        self,
        principal: str,
        device_id: str,
        seeds: tuple[bytes, bytes, bytes],
        *,
        epoch: int = 1,
        serves: bool = False,
        admin: bool = False,
    ) -> None:
        if not is_principal(principal) or not is_device_id(device_id) or epoch < 1:
            raise InvalidInput(
                "A device needs an e-mail address of at most 320 bytes, an id of 1 to 64 of [A-Za-z0-9._-], "
                "and an epoch from 1.",
                reason="DEVICE_INVALID",
            )
        if any(len(seed) != SEED_BYTES for seed in seeds):
            raise InvalidInput("Each seed of a device has 32 bytes.", reason="DEVICE_INVALID")
        self.principal = principal
        self.device_id = device_id
        self.epoch = epoch
        self.serves = serves
        self.admin = admin
        self._signing_seed, self._dh_seed, self._xwing_seed = (bytes(seed) for seed in seeds)
        self._signing = Ed25519PrivateKey.from_private_bytes(self._signing_seed)

    @classmethod
    def generate(
        cls,
        principal: str,
        device_id: str,
        *,
        epoch: int = 1,
        serves: bool = False,
        admin: bool = False,
        random: Random = system_random,
    ) -> DeviceSecret:
        """Return a device with fresh keys.

        Raises:
            InvalidInput: DEVICE_INVALID.
        """
        seeds = (random(SEED_BYTES), random(SEED_BYTES), random(SEED_BYTES))
        return cls(principal, device_id, seeds, epoch=epoch, serves=serves, admin=admin)

    @classmethod
    def from_bytes(cls, data: bytes) -> DeviceSecret:
        """Return the device that `to_bytes` wrote.

        Raises:
            IntegrityFailure: ENCODING_INVALID.
            InvalidInput: DEVICE_INVALID.
        """
        reader = Reader("device-secret", data, max_bytes=MAX_DEVICE_BYTES)
        principal, device_id, epoch = reader.text(), reader.text(), reader.integer()
        seeds = (reader.raw(SEED_BYTES), reader.raw(SEED_BYTES), reader.raw(SEED_BYTES))
        serves, admin = reader.boolean(), reader.boolean()
        reader.end()
        return cls(principal, device_id, seeds, epoch=epoch, serves=serves, admin=admin)

    def to_bytes(self) -> bytes:
        """Return the device with its seeds, in the clear: for the key store, which encrypts it."""
        return encode(
            "device-secret",
            [
                self.principal,
                self.device_id,
                self.epoch,
                self._signing_seed,
                self._dh_seed,
                self._xwing_seed,
                self.serves,
                self.admin,
            ],
        )

    def public(self) -> DevicePublic:
        """Return the public half, signed by the device itself."""
        signing_key = self._signing.public_key().public_bytes_raw()
        dh_key = X25519PrivateKey.from_private_bytes(self._dh_seed).public_key().public_bytes_raw()
        xwing_key = xwing.public_from_seed(self._xwing_seed)
        body = encode(
            "device",
            [
                self.principal,
                self.device_id,
                self.epoch,
                signing_key,
                dh_key,
                xwing_key,
                self.serves,
                self.admin,
            ],
        )
        return DevicePublic(
            principal=self.principal,
            device_id=self.device_id,
            epoch=self.epoch,
            signing_key=signing_key,
            dh_key=dh_key,
            xwing_key=xwing_key,
            serves=self.serves,
            admin=self.admin,
            encoded=encode("device-signed", [body, self.sign(body)]),
        )

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`, 64 bytes."""
        return self._signing.sign(message)

    def dh_private_key(self) -> X25519PrivateKey:
        """Return the identity-DH key, for sessions."""
        return X25519PrivateKey.from_private_bytes(self._dh_seed)

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes | None:
        """Return the secret wrapped to this device's X-Wing key with `info`, or None when it stays shut."""
        return xwing.unwrap(wrapped, self._xwing_seed, info)

    def __repr__(self) -> str:
        return f"DeviceSecret(principal={self.principal!r}, device_id={self.device_id!r}, epoch={self.epoch})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a device secret is serialised by to_bytes, for the key store only")


def is_device_id(text: str) -> bool:
    """Return whether `text` may be a device id: 1 to 64 of ``[A-Za-z0-9._-]``."""
    return _DEVICE_ID.fullmatch(text) is not None


def is_principal(text: str) -> bool:
    """Return whether `text` may stand for a principal here: printable, with an ``@``, at most 320 bytes.

    Normalising and checking addresses is done where they enter; this keeps absurd ones out of signed bytes.
    """
    return "@" in text and text.isprintable() and len(text.encode()) <= MAX_PRINCIPAL_BYTES


def _is_sound_dh_key(key: bytes) -> bool:
    # A point of small order makes every exchange zero, which the library reports.
    probe = X25519PrivateKey.from_private_bytes(bytes([0x40]) + bytes(31))
    try:
        probe.exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The device is refused: {what}.", reason="DEVICE_INVALID")
