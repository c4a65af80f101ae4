"""The bytes of a session's messages, read strictly; what does not hold gets one answer, whatever it is.

``ENC('session-message', [suite, session id 16, first-message header or absent, ratchet key 32, PN, n,
ciphertext])`` with ``ciphertext = salt 32 | AES-256-GCM output with tag``. The first-message header is
``ENC('session-first', [EKa 32, SPK id, OPK id or absent, KEM key id, KEM ciphertext 1568, started, reset])``
and stands in every message of the initiator until the first answer came.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from syftmesh_core.enc import Reader, Value, encode
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.session.curve import KEM_CIPHERTEXT_BYTES, X25519_BYTES
from syftmesh_core.session.prekey import SUITE

SESSION_ID_BYTES = 16
SALT_BYTES = 32
TAG_BYTES = 16
MAX_PLAINTEXT_BYTES = 1024 * 1024
"""Longest plaintext; larger bodies are sealed apart and only their key goes through the session."""

_MAX_FIRST_BYTES = 2048
_MAX_MESSAGE_BYTES = MAX_PLAINTEXT_BYTES + _MAX_FIRST_BYTES + 512


@dataclass(frozen=True, slots=True)
class FirstHeader:
    """What the receiver of a first message needs to agree on the session's secret.

    Attributes:
        ephemeral: EKa, the initiator's X25519 key made for this session.
        spk_id: Which signed prekey was used.
        opk_id: Which one-time prekey was used, if one.
        kem_id: Which KEM key was used.
        kem_ciphertext: Encapsulation to it.
        started_ms: When the initiator started, by its clock, Unix milliseconds.
        reset: Whether the initiator has lost or given up what was before.
    """

    ephemeral: bytes = field(repr=False)
    spk_id: int
    opk_id: int | None
    kem_id: int
    kem_ciphertext: bytes = field(repr=False)
    started_ms: int
    reset: bool

    @classmethod
    def from_bytes(cls, data: bytes) -> FirstHeader:
        """Return the header in `data`.

        Raises:
            IntegrityFailure: ENCODING_INVALID.
        """
        reader = Reader("session-first", data, max_bytes=_MAX_FIRST_BYTES)
        found = cls(
            ephemeral=reader.raw(X25519_BYTES),
            spk_id=reader.integer(),
            opk_id=reader.optional_integer(),
            kem_id=reader.integer(),
            kem_ciphertext=reader.raw(KEM_CIPHERTEXT_BYTES),
            started_ms=reader.integer(),
            reset=reader.boolean(),
        )
        reader.end()
        return found

    def to_bytes(self) -> bytes:
        """Return the encoding."""
        ids: list[Value] = [self.spk_id, self.opk_id, self.kem_id]
        return encode(
            "session-first", [self.ephemeral, *ids, self.kem_ciphertext, self.started_ms, self.reset]
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed message; nothing of it is authenticated yet.

    Attributes:
        session_id: Which session it belongs to.
        first: Encoded first-message header, if there.
        ratchet_key: X25519 ratchet key of the sender.
        previous: PN, the number of messages in the sender's previous chain.
        number: n, its number in the current chain, from 0.
        ciphertext: Salt, AES-GCM output and tag.
    """

    session_id: bytes
    first: bytes | None = field(repr=False)
    ratchet_key: bytes = field(repr=False)
    previous: int
    number: int
    ciphertext: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Message:
        """Return the message in `data`.

        Raises:
            IntegrityFailure: SESSION_MESSAGE_INVALID.
        """
        try:
            found = cls._read(data)
        except IntegrityFailure:
            raise message_invalid() from None
        if len(found.ciphertext) < SALT_BYTES + TAG_BYTES:
            raise message_invalid()
        return found

    @classmethod
    def _read(cls, data: bytes) -> Message:
        reader = Reader("session-message", data, max_bytes=_MAX_MESSAGE_BYTES)
        if reader.integer() != SUITE:
            raise message_invalid()
        found = cls(
            session_id=reader.raw(SESSION_ID_BYTES),
            first=reader.optional_raw(),
            ratchet_key=reader.raw(X25519_BYTES),
            previous=reader.integer(),
            number=reader.integer(),
            ciphertext=reader.raw(),
        )
        reader.end()
        return found

    def first_header(self) -> FirstHeader | None:
        """Return the first-message header, if there is one.

        Raises:
            IntegrityFailure: SESSION_MESSAGE_INVALID.
        """
        if self.first is None:
            return None
        try:
            return FirstHeader.from_bytes(self.first)
        except IntegrityFailure:
            raise message_invalid() from None

    def to_bytes(self) -> bytes:
        """Return the encoding."""
        chain: list[Value] = [self.ratchet_key, self.previous, self.number]
        return encode("session-message", [SUITE, self.session_id, self.first, *chain, self.ciphertext])


def message_invalid() -> IntegrityFailure:
    """Return the one answer to a message that cannot be read, so that nobody learns from the reason."""
    return IntegrityFailure(
        "The message of the session is refused: it is damaged, was read before, or is not from this device. "
        "Ask its sender to send it again.",
        reason="SESSION_MESSAGE_INVALID",
    )
