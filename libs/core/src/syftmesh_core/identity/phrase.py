"""Recovery phrase and account root.

A phrase is 24 English words with a checksum (BIP-39) and stands for 32 bytes of entropy. The account root is
an Ed25519 key derived from that entropy itself (not from BIP-39's stretched seed) by HKDF-SHA-512.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

from syftmesh_core.errors import InvalidInput

ENTROPY_BYTES = 32
WORD_COUNT = 24
_ROOT_INFO = b"SyftMesh/v1/account-root"


class AccountRoot:
    """The account's root key. Sign what must be signed, then drop it: it is never stored.

    Args:
        entropy: The 32 bytes that the phrase stands for.

    Raises:
        InvalidInput: PHRASE_INVALID when `entropy` has another length.
    """

    __slots__ = ("_key",)

    def __init__(self, entropy: bytes) -> None:
        _check_entropy(entropy)
        seed = HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=_ROOT_INFO).derive(entropy)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def from_phrase(cls, phrase: str | Sequence[str]) -> AccountRoot:
        """Return the root that `phrase` stands for.

        Raises:
            InvalidInput: PHRASE_INVALID, see `entropy_of`.
        """
        return cls(entropy_of(phrase))

    @property
    def public_key(self) -> bytes:
        """The public key, raw, 32 bytes: what others pin."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`, 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"AccountRoot(public_key={self.public_key.hex()})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an account root is never serialised")


def phrase_of(entropy: bytes) -> tuple[str, ...]:
    """Return the 24 words that stand for 32 bytes of `entropy` (BIP-39, English).

    Raises:
        InvalidInput: PHRASE_INVALID when `entropy` has another length.
    """
    _check_entropy(entropy)
    return tuple(_words().to_mnemonic(entropy).split(" "))


def entropy_of(phrase: str | Sequence[str]) -> bytes:
    """Return the 32 bytes that `phrase` stands for; case and spacing do not matter.

    Raises:
        InvalidInput: PHRASE_INVALID when it has not 24 words, a word is not in the list (the message names
            its place, never the word), or the checksum does not hold.
    """
    text = phrase if isinstance(phrase, str) else " ".join(phrase)
    words = unicodedata.normalize("NFKD", text).lower().split()
    if len(words) != WORD_COUNT:
        raise InvalidInput(
            f"A recovery phrase has {WORD_COUNT} words, this one has {len(words)}.", reason="PHRASE_INVALID"
        )
    known = _places()
    for place, word in enumerate(words, start=1):
        if word not in known:
            raise InvalidInput(
                f"Word {place} of the recovery phrase is not in the list of words: check its spelling.",
                reason="PHRASE_INVALID",
                metadata={"place": str(place)},
            ) from None
    try:
        return bytes(_words().to_entropy(words))
    except (ValueError, LookupError):
        raise InvalidInput(
            "The words of the recovery phrase do not fit together: check their order, or one word for "
            "another.",
            reason="PHRASE_INVALID",
        ) from None


@cache
def _words() -> Mnemonic:
    return Mnemonic("english")


@cache
def _places() -> frozenset[str]:
    return frozenset(_words().wordlist)


def _check_entropy(entropy: bytes) -> None:
    if len(entropy) != ENTROPY_BYTES:
        raise InvalidInput(f"A recovery phrase stands for {ENTROPY_BYTES} bytes.", reason="PHRASE_INVALID")
