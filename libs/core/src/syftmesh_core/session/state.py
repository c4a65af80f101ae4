"""The state of one session: an immutable value, and the compact bytes it is stored as.

Stored bytes are ``ENC('session-state', [version, fields..., digest])``, where the digest is the first 16 bytes
of the SHA-256 of all before it. The digest finds damage; the key store encrypts. Message keys that were skipped
are no part of it: they are rows of a table of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from syftmesh_core.enc import Reader, Value, encode
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.session.curve import X25519_BYTES
from syftmesh_core.session.pqxdh import session_id
from syftmesh_core.session.prekey import DAY_MS
from syftmesh_core.session.ratchet import Chain, RatchetState
from syftmesh_core.session.ratchet_primitive import BINDING_BYTES

STATE_VERSION = 1
MAX_STATE_BYTES = 4096
RENEW_AFTER_MESSAGES = 1000
RENEW_AFTER_MS = DAY_MS

_KEY_BYTES = 32
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class SessionState:
    """Everything a session is between two messages. Lives in the key store only.

    Attributes:
        binding: What every message authenticates; its start is the session id.
        is_initiator: Whether this side started it.
        ephemeral: EKa, which decides between two sessions started at once.
        started_ms: When it was started by the initiator's clock, Unix milliseconds.
        created_ms: When this side made it, Unix milliseconds.
        messages: Messages sent and received on it.
        first_digest: SHA-256 of the encoded first-message header (responder only).
        first: The first-message header, as long as no answer came (initiator only).
        ratchet: The double ratchet.
    """

    binding: bytes = field(repr=False)
    is_initiator: bool
    ephemeral: bytes = field(repr=False)
    started_ms: int
    created_ms: int
    messages: int
    first_digest: bytes | None = field(repr=False)
    first: bytes | None = field(repr=False)
    ratchet: RatchetState

    @property
    def session_id(self) -> bytes:
        """Id of the session, 16 bytes, the same on both sides."""
        return session_id(self.binding)

    def is_due_for_renewal(self, now_ms: int) -> bool:
        """Return whether new key material is due: after 1,000 messages or a day."""
        return self.messages >= RENEW_AFTER_MESSAGES or now_ms >= self.created_ms + RENEW_AFTER_MS

    def to_bytes(self) -> bytes:
        """Return the state in the clear: for the key store, which encrypts it."""
        ratchet = self.ratchet
        fields: list[Value] = [
            *(STATE_VERSION, self.binding, self.is_initiator, self.ephemeral, self.started_ms),
            *(self.created_ms, self.messages, self.first_digest, self.first),
            *(ratchet.own_private, ratchet.peer_key, ratchet.root),
            *_chain_fields(ratchet.receiving),
            *_chain_fields(ratchet.sending),
            ratchet.previous,
        ]
        return encode("session-state", [*fields, _digest(encode("session-state", fields))])

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionState:
        """Return the state that `to_bytes` wrote.

        Raises:
            IntegrityFailure: SESSION_STATE_INVALID when it is damaged or of an unknown version.
        """
        try:
            return cls._read(data)
        except IntegrityFailure:
            raise state_invalid() from None

    @classmethod
    def _read(cls, data: bytes) -> SessionState:
        reader = Reader("session-state", data, max_bytes=MAX_STATE_BYTES)
        if reader.integer() != STATE_VERSION:
            raise state_invalid()
        found = cls(
            binding=reader.raw(BINDING_BYTES),
            is_initiator=reader.boolean(),
            ephemeral=reader.raw(X25519_BYTES),
            started_ms=reader.integer(),
            created_ms=reader.integer(),
            messages=reader.integer(),
            first_digest=reader.optional_raw(_KEY_BYTES),
            first=reader.optional_raw(),
            ratchet=_ratchet(reader),
        )
        digest = reader.raw(_DIGEST_BYTES)
        reader.end()
        if digest != _digest(data[: -4 - _DIGEST_BYTES]):
            raise state_invalid()
        return found


def state_invalid() -> IntegrityFailure:
    """Return the answer to stored bytes that are no state."""
    return IntegrityFailure(
        "The stored session is damaged or from a newer version: reset the session with this device.",
        reason="SESSION_STATE_INVALID",
    )


def _ratchet(reader: Reader) -> RatchetState:
    return RatchetState(
        own_private=reader.raw(X25519_BYTES),
        peer_key=reader.raw(X25519_BYTES),
        root=reader.raw(_KEY_BYTES),
        receiving=_chain(reader),
        sending=_present(_chain(reader)),
        previous=reader.optional_integer(),
    )


def _chain_fields(chain: Chain | None) -> tuple[Value, Value]:
    return (None, None) if chain is None else (chain.key, chain.length)


def _chain(reader: Reader) -> Chain | None:
    key, length = reader.optional_raw(_KEY_BYTES), reader.optional_integer()
    if key is None and length is None:
        return None
    if key is None or length is None:
        raise state_invalid()
    return Chain(key, length)


def _present(chain: Chain | None) -> Chain:
    if chain is None:
        raise state_invalid()
    return chain


def _digest(encoded: bytes) -> bytes:
    return hashlib.sha256(encoded).digest()[:_DIGEST_BYTES]
