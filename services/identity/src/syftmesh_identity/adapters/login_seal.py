"""Device codes of logins under way, sealed under a key that only the service's replicas have."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from syftmesh_core.clock import Random
from syftmesh_core.errors import IntegrityFailure

from syftmesh_identity.domain.ports import CodeSeal

_NONCE_BYTES = 12


class LoginSeal(CodeSeal):
    """AES-256-GCM (NIST SP 800-38D).

    Whoever reads the bus could otherwise finish other people's logins at the provider. The key of a login is
    authenticated with its code, so that no code can be moved to another login.

    Args:
        key: 32 secret bytes, the same in every replica and after a restart.
        random: Source of nonces.
    """

    def __init__(self, key: bytes, random: Random) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def seal(self, code: str, login: str) -> str:
        """Return `code` sealed for the login of this key alone."""
        nonce = self._random(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, code.encode(), login.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, login: str) -> str:
        """Return the code; raises as `CodeSeal.open`."""
        try:
            data = base64.b64decode(sealed, validate=True)
            nonce, text = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, text, login.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise IntegrityFailure(
                "A login under way cannot be read: every replica needs the same signing key file.",
                reason="RECORD_DAMAGED",
            ) from error
