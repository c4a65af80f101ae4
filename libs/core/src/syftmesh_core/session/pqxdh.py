"""PQXDH: how two devices agree on the secret a session starts from, one of them away.

``SK = HKDF-SHA-512(salt 64 zero bytes, 0xFF x 32 | DH(IKa,SPKb) | DH(EKa,IKb) | DH(EKa,SPKb) [| DH(EKa,OPKb)]
| ML-KEM-1024 secret, info 'SyftMesh/v1/pqxdh/x25519+mlkem1024', 32)``. Source: Signal, "The PQXDH Key
Agreement Protocol", revision 3, section 3.3.

Both sides bind the session to who they are: AD = ``ENC('ad', suite, initiator then responder: root key,
e-mail, device id, signing key, identity-DH key; SPK id, OPK id, KEM key id, KEM public key)``, and what every
message authenticates is the binding ``SHA-256(ENC('session', [AD, first-message header]))``. The digest keeps
a stored session small (AD alone has 2 KiB), and takes EKa, the KEM ciphertext and the flags in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from syftmesh_core.clock import Random
from syftmesh_core.enc import Value, encode
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.session.curve import (
    X25519_BYTES,
    decapsulate,
    encapsulate,
    kem_public,
    x25519,
    x25519_public,
)
from syftmesh_core.session.message import SESSION_ID_BYTES, FirstHeader, message_invalid
from syftmesh_core.session.prekey import SUITE, PrekeyBundle
from syftmesh_core.session.prekey_secret import PrekeySecret

SECRET_BYTES = 32

_PREFIX = b"\xff" * 32
_SALT = bytes(64)
_INFO = b"SyftMesh/v1/pqxdh/x25519+mlkem1024"


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a session.

    Attributes:
        root_key: Pinned account root of the principal, 32 bytes.
        device: The device, from a verified device list.
    """

    root_key: bytes = field(repr=False)
    device: DevicePublic

    def ad_fields(self) -> list[Value]:
        """Return what the session's AD says of this end."""
        device = self.device
        return [self.root_key, device.principal, device.device_id, device.signing_key, device.dh_key]


@dataclass(frozen=True, slots=True)
class Own:
    """The own end of a session: who it is, and its private keys."""

    party: Party
    secret: DeviceSecret = field(repr=False)

    @classmethod
    def of(cls, root_key: bytes, secret: DeviceSecret) -> Own:
        """Return the own end for `secret`."""
        return cls(Party(root_key, secret.public()), secret)


@dataclass(frozen=True, slots=True)
class Link:
    """Both ends of the sessions between two devices, as this side sees them."""

    own: Own
    peer: Party


@dataclass(frozen=True, slots=True)
class ResponderKeys:
    """The private prekeys a first message names; `one_time` is there exactly when it names one."""

    signed: PrekeySecret
    one_time: PrekeySecret | None
    kem: PrekeySecret


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides hold after the agreement.

    Attributes:
        secret: SK, 32 bytes.
        binding: What every message of the session authenticates, 32 bytes; its start is the session id.
        first: The first-message header.
    """

    secret: bytes = field(repr=False)
    binding: bytes = field(repr=False)
    first: FirstHeader


def session_id(binding: bytes) -> bytes:
    """Return the id of the session with `binding`, 16 bytes."""
    return binding[:SESSION_ID_BYTES]


def initiate(link: Link, bundle: PrekeyBundle, *, now_ms: int, reset: bool, random: Random) -> Agreed:
    """Return the initiator's side of a new session with the device of `bundle`.

    The KEM's randomness is the library's own; EKa comes from `random`.

    Raises:
        IntegrityFailure: PREKEY_INVALID when the bundle is another device's.
    """
    own, peer = link.own, link.peer
    if bundle.device != peer.device:
        raise IntegrityFailure("The prekey bundle is another device's.", reason="PREKEY_INVALID")
    ephemeral = random(X25519_BYTES)
    kem_secret, kem_ciphertext = encapsulate(bundle.kem)
    first = FirstHeader(
        ephemeral=x25519_public(ephemeral),
        spk_id=bundle.weekly.spk_id,
        opk_id=None if bundle.one_time is None else bundle.one_time.key_id,
        kem_id=bundle.kem_id,
        kem_ciphertext=kem_ciphertext,
        started_ms=now_ms,
        reset=reset,
    )
    parts = [
        own.secret.dh_private_key().exchange(X25519PublicKey.from_public_bytes(bundle.weekly.spk)),
        x25519(ephemeral, peer.device.dh_key),
        x25519(ephemeral, bundle.weekly.spk),
    ]
    if bundle.one_time is not None:
        parts.append(x25519(ephemeral, bundle.one_time.key))
    return _agreed([*parts, kem_secret], own.party, peer, first, bundle.kem)


def respond(link: Link, first: FirstHeader, keys: ResponderKeys) -> Agreed:
    """Return the responder's side of the session that `first` starts.

    Raises:
        IntegrityFailure: SESSION_MESSAGE_INVALID when a key of `first` is of small order. A forged KEM
            ciphertext shows only in that no message opens.
    """
    own, peer, signed = link.own, link.peer, keys.signed.secret
    try:
        parts = [
            x25519(signed, peer.device.dh_key),
            own.secret.dh_private_key().exchange(X25519PublicKey.from_public_bytes(first.ephemeral)),
            x25519(signed, first.ephemeral),
        ]
        if keys.one_time is not None:
            parts.append(x25519(keys.one_time.secret, first.ephemeral))
        parts.append(decapsulate(keys.kem.secret, first.kem_ciphertext))
    except ValueError:
        raise message_invalid() from None
    return _agreed(parts, peer, own.party, first, kem_public(keys.kem.secret))


def derive_secret(parts: list[bytes]) -> bytes:
    """Return SK of the shared secrets in their order."""
    return HKDF(SHA512(), SECRET_BYTES, salt=_SALT, info=_INFO).derive(_PREFIX + b"".join(parts))


def _agreed(
    parts: list[bytes], initiator: Party, responder: Party, first: FirstHeader, kem_key: bytes
) -> Agreed:
    ids: list[Value] = [first.spk_id, first.opk_id, first.kem_id]
    ad = encode("ad", [SUITE, *initiator.ad_fields(), *responder.ad_fields(), *ids, kem_key])
    binding = hashlib.sha256(encode("session", [ad, first.to_bytes()])).digest()
    return Agreed(derive_secret(parts), binding, first)
