"""Keys for other purposes than signing, derived from the one secret file that the service is given."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32


def derived_key(root: Ed25519PrivateKey, purpose: str) -> bytes:
    """Return the key of `purpose` by HKDF-SHA256 (RFC 5869): the same in every replica and after a restart.

    Args:
        root: The key of the signing key file, 256 random bits.
        purpose: Names what the key is for; keys of two purposes tell nothing of each other, nor of the root.
    """
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"syftmesh/identity/{purpose}/v1".encode()).derive(
        root.private_bytes_raw()
    )
