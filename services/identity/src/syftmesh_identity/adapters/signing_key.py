"""The issuer's first signing key, and the root of its other secrets, in a 0600 file of the service's state folder."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from syftmesh_core.errors import IntegrityFailure
from syftmesh_kit.private_file import read_private, write_private


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key and its name.

    Attributes:
        key: The private key; never leaves the process.
        kid: Its name, see `key_id`.
    """

    key: Ed25519PrivateKey = field(repr=False)
    kid: str


def load_or_create(path: Path) -> SigningKey:
    """Return the key in `path`, made at first start.

    Raises:
        IntegrityFailure: The file holds no Ed25519 key (SIGNING_KEY_DAMAGED).
        WrongState: The file is open to others (FILE_NOT_PRIVATE).
    """
    data = read_private(path)
    if data is None:
        fresh = Ed25519PrivateKey.generate()
        pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with suppress(FileExistsError):  # a second process was quicker: its key counts
            write_private(path, pem)
        data = read_private(path) or b""
    try:
        key = load_pem_private_key(data, password=None)
    except ValueError as error:
        raise _damaged() from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged()
    return SigningKey(key, key_id(key))


def key_id(key: Ed25519PrivateKey) -> str:
    """Return the name of a key: the first 16 hex digits of the SHA-256 of its public key."""
    return hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]


def _damaged() -> IntegrityFailure:
    return IntegrityFailure(
        "The signing key file of identity holds no Ed25519 key. Restore it from a backup, or remove it to "
        "make a new key, which ends all logins.",
        reason="SIGNING_KEY_DAMAGED",
    )
