"""Encryption of a key store: AES-256-GCM under a key from a key file or from a passphrase.

``file = ENC('keystore', [version, protection, passphrase salt, check, salt, ciphertext])``. The main key is
the key file's 32 bytes, or Argon2id of the passphrase (RFC 9106; t=3, m=64 MiB, p=4). Every writing draws a
fresh 32-byte salt; HKDF-SHA-256 of the main key with it, info ``SyftMesh/v1/keystore``, gives key and nonce,
so a store restored from a backup never meets the same key stream twice. The associated data is everything
before the ciphertext.
"""

from __future__ import annotations

import hmac
import unicodedata
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from syftmesh_core.clock import Random
from syftmesh_core.enc import Reader, Value, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, MeshError, Unauthenticated

KEY_BYTES = 32
SALT_BYTES = 32
ARGON2_PASSES = 3
ARGON2_MEMORY_KIB = 64 * 1024
ARGON2_LANES = 4

_VERSION = 1
_KEY_FILE, _PASSPHRASE = "key-file", "passphrase"
_CHECK_BYTES = 16


class StoreKey:
    """The main key of a key store, and how it came about. Made by the functions of this module."""

    __slots__ = ("_key", "protection", "salt")

    def __init__(self, key: bytes, protection: str, salt: bytes | None) -> None:
        self._key = key
        self.protection = protection
        self.salt = salt

    def seal(self, plaintext: bytes, random: Random) -> bytes:
        """Return the file that holds `plaintext`."""
        salt = random(SALT_BYTES)
        head: list[Value] = [_VERSION, self.protection, self.salt, self._check(), salt]
        ciphertext = self._cipher(salt).encrypt(self._nonce(salt), plaintext, encode("keystore-head", head))
        return encode("keystore", [*head, ciphertext])

    def open(self, data: bytes) -> bytes:
        """Return what the file `data` holds.

        Raises:
            Unauthenticated: KEYSTORE_PASSPHRASE when the passphrase is wrong.
            IntegrityFailure: KEYSTORE_DAMAGED.
        """
        protection, passphrase_salt, check, salt, ciphertext = _parse(data)
        if (protection, passphrase_salt) != (self.protection, self.salt):
            refuse_damaged()
        if not hmac.compare_digest(check, self._check()):
            if protection == _KEY_FILE:
                refuse_damaged()
            raise Unauthenticated(
                "The passphrase does not open the key store: type it again.", reason="KEYSTORE_PASSPHRASE"
            )
        head: list[Value] = [_VERSION, protection, passphrase_salt, check, salt]
        try:
            return self._cipher(salt).decrypt(self._nonce(salt), ciphertext, encode("keystore-head", head))
        except InvalidTag:
            refuse_damaged()

    def __repr__(self) -> str:
        return f"StoreKey(protection={self.protection!r})"

    def _check(self) -> bytes:
        # Tells a wrong passphrase from a damaged file; as hard to invert as the tag itself.
        return _derive(self._key, b"", b"SyftMesh/v1/keystore-check", _CHECK_BYTES)

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(_derive(self._key, salt, b"SyftMesh/v1/keystore", 44)[:32])

    def _nonce(self, salt: bytes) -> bytes:
        return _derive(self._key, salt, b"SyftMesh/v1/keystore", 44)[32:]


def from_key_file(key: bytes) -> StoreKey:
    """Return the main key that the bytes of a key file are.

    Raises:
        IntegrityFailure: KEYSTORE_DAMAGED when they are not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        refuse_damaged()
    return StoreKey(key, _KEY_FILE, None)


def from_new_passphrase(passphrase: str, random: Random) -> StoreKey:
    """Return the main key of a new store under `passphrase`. Takes a fraction of a second and 64 MiB.

    Raises:
        InvalidInput: PASSPHRASE_INVALID when it is empty.
    """
    return _from_passphrase(passphrase, random(SALT_BYTES))


def from_passphrase(passphrase: str, data: bytes) -> StoreKey:
    """Return the main key of the store in the file `data` under `passphrase`.

    Raises:
        InvalidInput: PASSPHRASE_INVALID when it is empty.
        IntegrityFailure: KEYSTORE_DAMAGED.
    """
    salt = _parse(data)[1]
    if salt is None:
        refuse_damaged()
    return _from_passphrase(passphrase, salt)


def needs_passphrase(data: bytes) -> bool:
    """Return whether the store in the file `data` is under a passphrase.

    Raises:
        IntegrityFailure: KEYSTORE_DAMAGED.
    """
    return _parse(data)[0] == _PASSPHRASE


def refuse_damaged() -> NoReturn:
    """Raise the one error for a store that is there and does not hold.

    Raises:
        IntegrityFailure: KEYSTORE_DAMAGED.
    """
    raise IntegrityFailure(
        "The key store is damaged, or its key file is not the one it was written with: restore both from a "
        "backup.",
        reason="KEYSTORE_DAMAGED",
        hint="syftmesh keys recover restores the account from its phrase, on a new device.",
    ) from None


def _from_passphrase(passphrase: str, salt: bytes) -> StoreKey:
    if not passphrase:
        raise InvalidInput("A passphrase has one character or more.", reason="PASSPHRASE_INVALID")
    kdf = Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=ARGON2_PASSES,
        lanes=ARGON2_LANES,
        memory_cost=ARGON2_MEMORY_KIB,
    )
    text = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    return StoreKey(kdf.derive(text), _PASSPHRASE, salt)


def _parse(data: bytes) -> tuple[str, bytes | None, bytes, bytes, bytes]:
    try:
        reader = Reader("keystore", data)
        version, protection, salt = reader.integer(), reader.text(), reader.optional_raw(SALT_BYTES)
        found = protection, salt, reader.raw(_CHECK_BYTES), reader.raw(SALT_BYTES), reader.raw()
        reader.end()
    except MeshError:
        refuse_damaged()
    if version != _VERSION or (protection, salt is None) not in ((_KEY_FILE, True), (_PASSPHRASE, False)):
        refuse_damaged()
    return found


def _derive(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(key)
