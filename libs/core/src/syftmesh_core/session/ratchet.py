"""The double ratchet of the `doubleratchet` package as pure functions of an immutable state.

The library keeps a mutable object with coroutines that never suspend. Here it lives for one call: made from
the state, driven to its end, and read out again, so that a failed call leaves nothing behind. Skipped message
keys stay outside: one goes in when it is the key wanted, the new ones come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from doubleratchet import AuthenticationFailedException, EncryptedMessage, Header
from doubleratchet.models import (
    DiffieHellmanRatchetModel,
    DoubleRatchetModel,
    KDFChainModel,
    SkippedMessageKeyModel,
    SymmetricKeyRatchetModel,
)

from syftmesh_core.clock import Random
from syftmesh_core.session.ratchet_primitive import (
    CHAIN_CONSTANT,
    ChainKdf,
    CurveRatchet,
    MeshRatchet,
    MessageAead,
    RootKdf,
    drive,
)

MAX_SKIP = 1000
"""Messages of one chain that one message may skip."""

# One message skips at most twice: the rest of the previous chain, and the start of the new one.
_MAX_HELD = 2 * MAX_SKIP + 1


@dataclass(frozen=True, slots=True)
class Chain:
    """A sending or receiving chain: its key, and how many message keys it gave."""

    key: bytes = field(repr=False)
    length: int


@dataclass(frozen=True, slots=True)
class RatchetState:
    """The double ratchet's part of a state.

    Attributes:
        own_private: Own ratchet key, private.
        peer_key: The peer's ratchet key, public.
        root: Key of the root chain.
        receiving: The receiving chain; None until the initiator got its first answer.
        sending: The sending chain.
        previous: Length of the sending chain before this one; None when there was none.
    """

    own_private: bytes = field(repr=False)
    peer_key: bytes = field(repr=False)
    root: bytes = field(repr=False)
    receiving: Chain | None
    sending: Chain
    previous: int | None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ratchet message: header fields in the clear, salt, ciphertext and tag."""

    ratchet_key: bytes = field(repr=False)
    previous: int
    number: int
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """The key of a message that was skipped, and which message that is."""

    ratchet_key: bytes = field(repr=False)
    number: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """The state after a message, its plaintext, and the keys it skipped."""

    state: RatchetState
    plaintext: bytes = field(repr=False)
    skipped: tuple[Skipped, ...]


class CannotOpen(Exception):
    """A message does not open; why is nobody's business."""


def start(
    secret: bytes, peer_key: bytes, plaintext: bytes, data: bytes, random: Random
) -> tuple[RatchetState, Sealed]:
    """Return the initiator's state and first message.

    Args:
        secret: SK, 32 bytes.
        peer_key: The responder's signed prekey, the first ratchet key.
        plaintext: The message.
        data: Binding (32 bytes) and envelope header.
        random: Source of ratchet keys and salts.
    """
    call = MeshRatchet.encrypt_initial_message(
        CurveRatchet,
        RootKdf,
        ChainKdf,
        CHAIN_CONSTANT,
        MAX_SKIP,
        _MAX_HELD,
        MessageAead,
        secret,
        peer_key,
        plaintext,
        data,
    )
    ratchet, encrypted = drive(call, random)
    return _extract(ratchet), _sealed(encrypted)


def join(secret: bytes, own_private: bytes, sealed: Sealed, data: bytes, random: Random) -> Opened:
    """Return the responder's state after the first message that reached it.

    Args:
        secret: SK, 32 bytes.
        own_private: Private half of the signed prekey.
        sealed: The message.
        data: Binding (32 bytes) and envelope header.
        random: Source of ratchet keys.

    Raises:
        CannotOpen: It skips too many messages, is forged, or its ratchet key is of small order.
    """
    if sealed.previous != 0 or not 0 <= sealed.number <= MAX_SKIP:
        raise CannotOpen
    call = MeshRatchet.decrypt_initial_message(
        CurveRatchet,
        RootKdf,
        ChainKdf,
        CHAIN_CONSTANT,
        MAX_SKIP,
        _MAX_HELD,
        MessageAead,
        secret,
        own_private,
        _encrypted(sealed),
        data,
    )
    try:
        ratchet, plaintext = drive(call, random)
    except (AuthenticationFailedException, ValueError):  # ValueError: a ratchet key of small order
        raise CannotOpen from None
    return Opened(_extract(ratchet), plaintext, _skipped(ratchet))


def seal(state: RatchetState, plaintext: bytes, data: bytes, random: Random) -> tuple[RatchetState, Sealed]:
    """Return the state after the next message, and that message."""
    ratchet = _restore(state, None)
    encrypted = drive(ratchet.encrypt_message(plaintext, data), random)
    return _extract(ratchet), _sealed(encrypted)


def open_with(
    state: RatchetState, sealed: Sealed, data: bytes, *, skipped_key: bytes | None, random: Random
) -> Opened:
    """Return the state after `sealed`, and its plaintext.

    Args:
        state: The state before it.
        sealed: The message.
        data: Binding (32 bytes) and envelope header.
        skipped_key: Its message key, where that was skipped before.
        random: Source of ratchet keys.

    Raises:
        CannotOpen: It skips too many messages, was opened before, is forged, or its ratchet key is of small
            order.
    """
    wanted = None
    if skipped_key is not None:
        wanted = Skipped(sealed.ratchet_key, sealed.number, skipped_key)
    elif not _is_within_limits(state, sealed):
        raise CannotOpen
    ratchet = _restore(state, wanted)
    try:
        plaintext = drive(ratchet.decrypt_message(_encrypted(sealed), data), random)
    except (AuthenticationFailedException, ValueError):  # ValueError: a ratchet key of small order
        raise CannotOpen from None
    return Opened(_extract(ratchet), plaintext, _skipped(ratchet))


def _is_within_limits(state: RatchetState, sealed: Sealed) -> bool:
    # Before the library: it steps that many chain keys, and for the previous chain it only warns.
    received = 0 if state.receiving is None else state.receiving.length
    if sealed.ratchet_key == state.peer_key:
        return state.receiving is not None and 0 <= sealed.number - received <= MAX_SKIP
    # Before its first answer the initiator has no previous chain of the peer, and the peer none that counts.
    rest = 0 if state.receiving is None else sealed.previous - received
    return 0 <= sealed.number <= MAX_SKIP and 0 <= rest <= MAX_SKIP


def _restore(state: RatchetState, wanted: Skipped | None) -> MeshRatchet:
    chains = SymmetricKeyRatchetModel(
        receiving_chain=None if state.receiving is None else _chain_model(state.receiving),
        sending_chain=_chain_model(state.sending),
        previous_sending_chain_length=state.previous,
    )
    curve = DiffieHellmanRatchetModel(
        own_ratchet_priv=state.own_private,
        other_ratchet_pub=state.peer_key,
        root_chain=KDFChainModel(length=0, key=state.root),
        symmetric_key_ratchet=chains,
    )
    held = []
    if wanted is not None:
        key = SkippedMessageKeyModel(
            ratchet_pub=wanted.ratchet_key, index=wanted.number, message_key=wanted.key
        )
        held.append(key)
    model = DoubleRatchetModel(diffie_hellman_ratchet=curve, skipped_message_keys=held)
    return MeshRatchet.from_model(
        model, CurveRatchet, RootKdf, ChainKdf, CHAIN_CONSTANT, MAX_SKIP, _MAX_HELD, MessageAead
    )


def _extract(ratchet: MeshRatchet) -> RatchetState:
    curve = ratchet.model.diffie_hellman_ratchet
    chains = curve.symmetric_key_ratchet
    if chains.sending_chain is None:
        raise RuntimeError("the ratchet library gave a state without a sending chain")
    return RatchetState(
        own_private=curve.own_ratchet_priv,
        peer_key=curve.other_ratchet_pub,
        root=curve.root_chain.key,
        receiving=None if chains.receiving_chain is None else _chain(chains.receiving_chain),
        sending=_chain(chains.sending_chain),
        previous=chains.previous_sending_chain_length,
    )


def _skipped(ratchet: MeshRatchet) -> tuple[Skipped, ...]:
    keys = ratchet.model.skipped_message_keys
    return tuple(Skipped(key.ratchet_pub, key.index, key.message_key) for key in keys)


def _chain(model: KDFChainModel) -> Chain:
    return Chain(model.key, model.length)


def _chain_model(chain: Chain) -> KDFChainModel:
    return KDFChainModel(length=chain.length, key=chain.key)


def _sealed(encrypted: EncryptedMessage) -> Sealed:
    header = encrypted.header
    numbers = (header.previous_sending_chain_length, header.sending_chain_length)
    return Sealed(header.ratchet_pub, *numbers, encrypted.ciphertext)


def _encrypted(sealed: Sealed) -> EncryptedMessage:
    return EncryptedMessage(Header(sealed.ratchet_key, sealed.previous, sealed.number), sealed.ciphertext)
