"""The primitives of the double ratchet, as classes of the `doubleratchet` package.

Root KDF: HKDF-SHA-256, info ``SyftMesh/v1/root``. Chains: HMAC-SHA-256, constant 1 for the message key and 2
for the next chain key. Each message has a fresh 32-byte salt, sent in front of the ciphertext:
``HKDF-SHA-256(message key, salt, 'SyftMesh/v1/msg', 44)`` gives AES-256-GCM key and nonce, so that a state
rolled back to an earlier one never reuses a key stream. Authenticated: ``ENC('msg', [binding, ratchet key, PN,
n, envelope header])``. Source: Signal, "The Double Ratchet Algorithm", revision 4.
"""

from __future__ import annotations

import hmac
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from doubleratchet import (
    AEAD,
    KDF,
    AuthenticationFailedException,
    DiffieHellmanRatchet,
    DoubleRatchet,
    Header,
)

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import encode
from syftmesh_core.session.curve import X25519_BYTES, x25519, x25519_public
from syftmesh_core.session.message import SALT_BYTES

CHAIN_CONSTANT = b"\x02\x01"
"""Inputs of the two HMACs of a chain step, in the library's order: next chain key, then message key."""

BINDING_BYTES = 32

_ROOT_INFO = b"SyftMesh/v1/root"
_MESSAGE_INFO = b"SyftMesh/v1/msg"
_KEY_BYTES = 32
_NONCE_BYTES = 12

# The library asks for randomness in static methods: what the caller injected reaches them only this way.
_random: ContextVar[Random] = ContextVar("ratchet_random", default=system_random)

Result = TypeVar("Result")


def drive(coroutine: Coroutine[Any, Any, Result], random: Random) -> Result:
    """Return the result of a coroutine of the library, which never suspends.

    Args:
        coroutine: A call of the library.
        random: Source of ratchet keys and salts.

    Raises:
        RuntimeError: It suspended after all: another version of the library.
    """
    token = _random.set(random)
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        coroutine.close()
        _random.reset(token)
    raise RuntimeError("the ratchet library suspended a coroutine")


class RootKdf(KDF):
    """KDF of the root chain."""

    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        """Return ``HKDF-SHA-256(data, salt = key)``."""
        return HKDF(SHA256(), length, salt=key, info=_ROOT_INFO).derive(data)


class ChainKdf(KDF):
    """KDF of the sending and receiving chains."""

    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        """Return one HMAC-SHA-256 under `key` for each byte of `data`, joined."""
        joined = b"".join(hmac.digest(key, bytes([constant]), "sha256") for constant in data)
        if len(joined) != length:
            raise ValueError(f"a chain step gives {len(joined)} bytes, not {length}")
        return joined


class MessageAead(AEAD):
    """AES-256-GCM under a key and nonce that the message key and a fresh salt give."""

    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        """Return ``salt | ciphertext | tag``."""
        salt = _random.get()(SALT_BYTES)
        cipher, nonce = _cipher(key, salt)
        return salt + cipher.encrypt(nonce, plaintext, associated_data)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            AuthenticationFailedException: It does not open.
        """
        cipher, nonce = _cipher(key, ciphertext[:SALT_BYTES])
        try:
            return cipher.decrypt(nonce, ciphertext[SALT_BYTES:], associated_data)
        except InvalidTag:
            raise AuthenticationFailedException("the message does not open") from None


class CurveRatchet(DiffieHellmanRatchet):
    """Diffie-Hellman ratchet over X25519; a point of small order raises ValueError."""

    @staticmethod
    def _generate_priv() -> bytes:
        return _random.get()(X25519_BYTES)

    @staticmethod
    def _derive_pub(priv: bytes) -> bytes:
        return x25519_public(priv)

    @staticmethod
    def _perform_diffie_hellman(own_priv: bytes, other_pub: bytes) -> bytes:
        return x25519(own_priv, other_pub)


class MeshRatchet(DoubleRatchet):
    """The double ratchet; its associated data is the session's binding and then the envelope header."""

    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        binding, envelope = associated_data[:BINDING_BYTES], associated_data[BINDING_BYTES:]
        numbers = [header.previous_sending_chain_length, header.sending_chain_length]
        return encode("msg", [binding, header.ratchet_pub, *numbers, envelope])


def _cipher(key: bytes, salt: bytes) -> tuple[AESGCM, bytes]:
    derived = HKDF(SHA256(), _KEY_BYTES + _NONCE_BYTES, salt=salt, info=_MESSAGE_INFO).derive(key)
    return AESGCM(derived[:_KEY_BYTES]), derived[_KEY_BYTES:]
