"""One session: start it, accept it, send and receive on it.

Every function is pure: it returns the new state beside the message or plaintext, and the caller stores all of
it in one transaction (before it publishes, or before it acknowledges). A failed call has changed nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from syftmesh_core.clock import Random, system_random
from syftmesh_core.errors import InvalidInput
from syftmesh_core.session import ratchet
from syftmesh_core.session.message import MAX_PLAINTEXT_BYTES, Message, message_invalid
from syftmesh_core.session.ports import SessionReader, SkippedId, SkippedKey
from syftmesh_core.session.pqxdh import Agreed, Link, ResponderKeys, initiate, respond, session_id
from syftmesh_core.session.prekey import PrekeyBundle
from syftmesh_core.session.prekey_secret import PrekeyKind
from syftmesh_core.session.state import SessionState


@dataclass(frozen=True, slots=True)
class Sent:
    """A message to publish once `state` is stored."""

    state: SessionState
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Received:
    """A plaintext, and all that must be stored with it.

    Attributes:
        state: The session after it.
        plaintext: What the sender gave; never shown by `repr`.
        skipped: Keys of messages that have not come yet, to be stored.
        used_skipped: The skipped key that opened it, to be deleted.
        used_one_time: One-time X25519 prekey to be destroyed.
        used_kem: One-time KEM prekey to be destroyed.
        remember: Last-resort KEM key id whose first messages must now include this session's id.
    """

    state: SessionState
    plaintext: bytes = field(repr=False)
    skipped: tuple[SkippedKey, ...] = ()
    used_skipped: SkippedId | None = None
    used_one_time: int | None = None
    used_kem: int | None = None
    remember: int | None = None


def begin(
    link: Link,
    bundle: PrekeyBundle,
    plaintext: bytes,
    *,
    envelope: bytes,
    now_ms: int,
    reset: bool = False,
    random: Random = system_random,
) -> Sent:
    """Return a new session with the device of `bundle`, and its first message.

    Args:
        link: Both ends.
        bundle: A fetched bundle of the peer.
        plaintext: At most 1 MiB.
        envelope: The encoded envelope header, authenticated with the message.
        now_ms: Unix milliseconds.
        reset: Whether the peer must give up the session before it.
        random: Source of all keys and salts but the KEM's.

    Raises:
        IntegrityFailure: PREKEY_INVALID when the bundle is another device's.
        WrongState: PREKEY_EXPIRED.
        InvalidInput: SESSION_MESSAGE_TOO_LARGE.
    """
    _check_size(plaintext)
    bundle.weekly.check_fresh(now_ms)
    agreed = initiate(link, bundle, now_ms=now_ms, reset=reset, random=random)
    ratcheted, sealed = ratchet.start(
        agreed.secret, bundle.weekly.spk, plaintext, agreed.binding + envelope, random
    )
    state = _new_state(agreed, ratcheted, is_initiator=True, now_ms=now_ms)
    return Sent(state, _message(state, sealed))


def accept(
    link: Link,
    message: Message,
    store: SessionReader,
    *,
    envelope: bytes,
    now_ms: int,
    random: Random = system_random,
) -> Received:
    """Return the session that the peer's first message starts, and its plaintext.

    Raises:
        IntegrityFailure: SESSION_MESSAGE_INVALID, one answer for all that does not hold: a prekey that is
            unknown, used or destroyed, a first message seen before, a skip beyond 1,000, a forgery.
    """
    first = message.first_header()
    if first is None:
        raise message_invalid()
    keys = _responder_keys(first.spk_id, first.opk_id, first.kem_id, store, now_ms)
    agreed = respond(link, first, keys)
    found_id = session_id(agreed.binding)
    is_last_resort = keys.kem.kind is PrekeyKind.KEM_LAST_RESORT
    seen = is_last_resort and store.is_remembered(first.kem_id, found_id)
    if seen or found_id != message.session_id:
        raise message_invalid()
    data = agreed.binding + envelope
    try:
        opened = ratchet.join(agreed.secret, keys.signed.secret, _sealed(message), data, random)
    except ratchet.CannotOpen:
        raise message_invalid() from None
    state = _new_state(agreed, opened.state, is_initiator=False, now_ms=now_ms)
    return Received(
        state=state,
        plaintext=opened.plaintext,
        skipped=_skipped(state, opened),
        used_one_time=first.opk_id,
        used_kem=None if is_last_resort else first.kem_id,
        remember=first.kem_id if is_last_resort else None,
    )


def encrypt(
    state: SessionState, plaintext: bytes, *, envelope: bytes, random: Random = system_random
) -> Sent:
    """Return the next message of the session.

    Raises:
        InvalidInput: SESSION_MESSAGE_TOO_LARGE.
    """
    _check_size(plaintext)
    ratcheted, sealed = ratchet.seal(state.ratchet, plaintext, state.binding + envelope, random)
    after = replace(state, messages=state.messages + 1, ratchet=ratcheted)
    return Sent(after, _message(after, sealed))


def decrypt(
    state: SessionState,
    message: Message,
    store: SessionReader,
    *,
    envelope: bytes,
    random: Random = system_random,
) -> Received:
    """Return the plaintext of a message of this session.

    Raises:
        IntegrityFailure: SESSION_MESSAGE_INVALID, one answer for all that does not hold.
    """
    if not _belongs(message, state):
        raise message_invalid()
    wanted = SkippedId(state.session_id, message.ratchet_key, message.number)
    key = store.skipped_key(wanted)
    data = state.binding + envelope
    try:
        opened = ratchet.open_with(state.ratchet, _sealed(message), data, skipped_key=key, random=random)
    except ratchet.CannotOpen:
        raise message_invalid() from None
    after = replace(state, first=None, messages=state.messages + 1, ratchet=opened.state)
    return Received(
        state=after,
        plaintext=opened.plaintext,
        skipped=_skipped(after, opened),
        used_skipped=None if key is None else wanted,
    )


def _check_size(plaintext: bytes) -> None:
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise InvalidInput(
            f"A message of a session has at most {MAX_PLAINTEXT_BYTES} bytes: seal the body apart and send "
            "its key.",
            reason="SESSION_MESSAGE_TOO_LARGE",
            metadata={"limit_bytes": str(MAX_PLAINTEXT_BYTES)},
        )


def _belongs(message: Message, state: SessionState) -> bool:
    if message.session_id != state.session_id:
        return False
    if message.first is None:
        return True
    # The initiator repeats it until it is answered; the AEAD sees it only through the binding.
    return hashlib.sha256(message.first).digest() == state.first_digest


def _responder_keys(
    spk_id: int, opk_id: int | None, kem_id: int, store: SessionReader, now_ms: int
) -> ResponderKeys:
    signed, kem = store.signed_prekey(spk_id), store.kem_prekey(kem_id)
    one_time = None if opk_id is None else store.one_time_prekey(opk_id)
    if signed is None or kem is None or (opk_id is not None and one_time is None):
        raise message_invalid()
    if not signed.is_kept(now_ms) or not kem.is_kept(now_ms):
        raise message_invalid()
    return ResponderKeys(signed, one_time, kem)


def _new_state(
    agreed: Agreed, ratcheted: ratchet.RatchetState, *, is_initiator: bool, now_ms: int
) -> SessionState:
    first = agreed.first.to_bytes()
    return SessionState(
        binding=agreed.binding,
        is_initiator=is_initiator,
        ephemeral=agreed.first.ephemeral,
        started_ms=agreed.first.started_ms,
        created_ms=now_ms,
        messages=1,
        first_digest=None if is_initiator else hashlib.sha256(first).digest(),
        first=first if is_initiator else None,
        ratchet=ratcheted,
    )


def _message(state: SessionState, sealed: ratchet.Sealed) -> bytes:
    return Message(
        session_id=state.session_id,
        first=state.first,
        ratchet_key=sealed.ratchet_key,
        previous=sealed.previous,
        number=sealed.number,
        ciphertext=sealed.ciphertext,
    ).to_bytes()


def _sealed(message: Message) -> ratchet.Sealed:
    return ratchet.Sealed(message.ratchet_key, message.previous, message.number, message.ciphertext)


def _skipped(state: SessionState, opened: ratchet.Opened) -> tuple[SkippedKey, ...]:
    made = opened.skipped
    return tuple(
        SkippedKey(SkippedId(state.session_id, one.ratchet_key, one.number), one.key) for one in made
    )
