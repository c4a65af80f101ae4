"""All sessions with one peer device: the current one, and up to five older ones that still receive.

Several sessions arise when both sides start at once, when one is renewed, or after a reset. What is sent goes
on the current one. Of two started at once, both sides go on with the one of the lower EKa.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import Reader, Value, encode, item_fields
from syftmesh_core.errors import IntegrityFailure, WrongState
from syftmesh_core.session import session
from syftmesh_core.session.message import Message
from syftmesh_core.session.ports import SessionReader
from syftmesh_core.session.pqxdh import Link
from syftmesh_core.session.prekey import DAY_MS, PrekeyBundle
from syftmesh_core.session.session import Received, Sent
from syftmesh_core.session.state import MAX_STATE_BYTES, STATE_VERSION, SessionState, state_invalid

MAX_OLD_SESSIONS = 5
OLD_KEPT_MS = 45 * DAY_MS
AT_ONCE_MS = 60 * 60 * 1000
"""How long after its start an answered session may still meet one that the peer started at the same time."""


@dataclass(frozen=True, slots=True)
class OldSession:
    """A session that receives only, and when it stopped to be the current one, Unix milliseconds."""

    state: SessionState
    retired_ms: int


@dataclass(frozen=True, slots=True)
class PeerSessions:
    """The sessions with one peer device.

    Attributes:
        current: The one to send on.
        old: Those that still receive, newest first.
    """

    current: SessionState | None = None
    old: tuple[OldSession, ...] = ()

    def find(self, session_id: bytes) -> SessionState | None:
        """Return the session of that id."""
        return next((state for state in self.states() if state.session_id == session_id), None)

    def states(self) -> tuple[SessionState, ...]:
        """Return all sessions, the current one first."""
        older = tuple(old.state for old in self.old)
        return older if self.current is None else (self.current, *older)

    def with_state(self, state: SessionState) -> PeerSessions:
        """Return the sessions with `state` in the place of the one of its id."""
        if self.current is not None and self.current.session_id == state.session_id:
            return replace(self, current=state)
        old = (replace(o, state=state) if o.state.session_id == state.session_id else o for o in self.old)
        return replace(self, old=tuple(old))

    def with_current(self, state: SessionState, now_ms: int) -> PeerSessions:
        """Return the sessions with the new `state` as the current one."""
        retired = () if self.current is None else (OldSession(self.current, now_ms),)
        return PeerSessions(state, _kept((*retired, *self.old), now_ms))

    def with_old(self, state: SessionState, now_ms: int) -> PeerSessions:
        """Return the sessions with the new `state` among those that receive only."""
        return replace(self, old=_kept((OldSession(state, now_ms), *self.old), now_ms))

    def to_bytes(self) -> bytes:
        """Return all states in the clear: for the key store, which encrypts them."""
        current = None if self.current is None else self.current.to_bytes()
        old: list[Value] = [[old.state.to_bytes(), old.retired_ms] for old in self.old]
        return encode("peer-sessions", [STATE_VERSION, current, old])

    @classmethod
    def from_bytes(cls, data: bytes) -> PeerSessions:
        """Return the sessions that `to_bytes` wrote.

        Raises:
            IntegrityFailure: SESSION_STATE_INVALID when they are damaged or of an unknown version.
        """
        try:
            reader = Reader("peer-sessions", data, max_bytes=(MAX_OLD_SESSIONS + 1) * (MAX_STATE_BYTES + 64))
            version, current = reader.integer(), reader.optional_raw()
            items = reader.items(MAX_OLD_SESSIONS)
            reader.end()
            old = tuple(_old(item) for item in items)
        except IntegrityFailure:
            raise state_invalid() from None
        if version != STATE_VERSION:
            raise state_invalid()
        return cls(None if current is None else SessionState.from_bytes(current), old)


@dataclass(frozen=True, slots=True)
class SentTo:
    """A message to publish once `sessions` is stored.

    Attributes:
        sessions: The sessions after it.
        message: The bytes to publish.
        dropped: Ids of sessions no longer kept, whose skipped keys are to be deleted.
    """

    sessions: PeerSessions
    message: bytes = field(repr=False)
    dropped: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceivedFrom:
    """A plaintext, and all that must be stored with it in one transaction.

    Attributes:
        sessions: The sessions after it.
        received: Plaintext, skipped keys and used prekeys.
        dropped: As for `SentTo`.
    """

    sessions: PeerSessions
    received: Received
    dropped: tuple[bytes, ...] = ()


def start(
    sessions: PeerSessions,
    link: Link,
    bundle: PrekeyBundle,
    plaintext: bytes,
    *,
    envelope: bytes,
    now_ms: int,
    reset: bool = False,
    random: Random = system_random,
) -> SentTo:
    """Return the first message of a new current session; the one before receives a while longer.

    Args:
        sessions: The sessions so far; empty at first contact or after the store was lost.
        link: Both ends.
        bundle: A fetched bundle of the peer.
        plaintext: At most 1 MiB.
        envelope: The encoded envelope header, authenticated with the message.
        now_ms: Unix milliseconds.
        reset: Whether the peer must go over to the new session whatever it holds.
        random: Source of all keys and salts but the KEM's.

    Raises:
        IntegrityFailure: PREKEY_INVALID.
        WrongState: PREKEY_EXPIRED.
        InvalidInput: SESSION_MESSAGE_TOO_LARGE.
    """
    sent = session.begin(
        link, bundle, plaintext, envelope=envelope, now_ms=now_ms, reset=reset, random=random
    )
    after = sessions.with_current(sent.state, now_ms)
    return SentTo(after, sent.message, _dropped(sessions, after))


def send(
    sessions: PeerSessions, plaintext: bytes, *, envelope: bytes, random: Random = system_random
) -> SentTo:
    """Return the next message of the current session.

    Raises:
        WrongState: SESSION_MISSING when there is none: fetch a bundle and `start`.
        InvalidInput: SESSION_MESSAGE_TOO_LARGE.
    """
    if sessions.current is None:
        raise WrongState(
            "There is no session with this device yet: fetch its prekeys and start one.",
            reason="SESSION_MISSING",
        )
    sent: Sent = session.encrypt(sessions.current, plaintext, envelope=envelope, random=random)
    return SentTo(sessions.with_state(sent.state), sent.message)


def receive(
    sessions: PeerSessions,
    link: Link,
    data: bytes,
    store: SessionReader,
    *,
    envelope: bytes,
    now_ms: int,
    random: Random = system_random,
) -> ReceivedFrom:
    """Return the plaintext of a message of the peer, on whichever session it came.

    Raises:
        IntegrityFailure: SESSION_MESSAGE_INVALID, one answer for all that does not hold.
        WrongState: SESSION_MISSING when it is of a session this side does not have, and starts none: answer
            with a reset.
    """
    message = Message.from_bytes(data)
    state = sessions.find(message.session_id)
    if state is not None:
        received = session.decrypt(state, message, store, envelope=envelope, random=random)
        return ReceivedFrom(sessions.with_state(received.state), received)
    first = message.first_header()
    if first is None:
        raise WrongState(
            "The message belongs to a session this device does not hold any more: start a new one with reset.",
            reason="SESSION_MISSING",
        )
    received = session.accept(link, message, store, envelope=envelope, now_ms=now_ms, random=random)
    if first.reset or _is_preferred(received.state, sessions.current, now_ms):
        after = sessions.with_current(received.state, now_ms)
    else:
        after = sessions.with_old(received.state, now_ms)
    return ReceivedFrom(after, received, _dropped(sessions, after))


def _is_preferred(new: SessionState, current: SessionState | None, now_ms: int) -> bool:
    if current is None:
        return True
    if not current.is_initiator:
        return new.started_ms >= current.started_ms  # the peer's newer one, in whatever order they come
    at_once = current.first is not None or now_ms < current.created_ms + AT_ONCE_MS
    return not at_once or new.ephemeral < current.ephemeral


def _kept(old: tuple[OldSession, ...], now_ms: int) -> tuple[OldSession, ...]:
    return tuple(o for o in old if now_ms < o.retired_ms + OLD_KEPT_MS)[:MAX_OLD_SESSIONS]


def _dropped(before: PeerSessions, after: PeerSessions) -> tuple[bytes, ...]:
    kept = {state.session_id for state in after.states()}
    return tuple(state.session_id for state in before.states() if state.session_id not in kept)


def _old(item: bytes) -> OldSession:
    fields = item_fields(item, 2)
    if len(fields) != 2 or len(fields[1]) != 8:
        raise state_invalid()
    return OldSession(SessionState.from_bytes(fields[0]), int.from_bytes(fields[1], "big"))
