"""Principals: who can be named, and how a name is brought to its one form."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.quote import quoted

GUEST: Final = "guest"
"""A requester known to be a person, not who."""

ANONYMOUS: Final = ""
"""A requester of whom nothing is known."""

MAX_PRINCIPAL_BYTES: Final = 254
"""RFC 5321, section 4.5.3.1.3, without the angle brackets."""

MAX_LOCAL_BYTES: Final = 64
MAX_LABEL_BYTES: Final = 63
USER_HASH_DIGITS: Final = 16

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PRINCIPAL = re.compile(rf"[a-z0-9._%+-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+")


def is_principal(text: str) -> bool:
    """Return whether `text` is a principal in its normalised form."""
    return len(text) <= MAX_PRINCIPAL_BYTES and _PRINCIPAL.fullmatch(text) is not None


def normalise_principal(text: str) -> str:
    """Return the e-mail address `text` in NFC and lower case; nothing is trimmed.

    The local part is ``[a-z0-9._%+-]{1,64}``, the domain has LDH labels (RFC 1123, section 2.1;
    internationalised ones as A-labels, RFC 5890) and at least one dot, the whole at most 254 bytes.

    Raises:
        InvalidInput: (PRINCIPAL_INVALID) `text` is no such address.
    """
    if isinstance(text, str) and len(text) <= MAX_PRINCIPAL_BYTES:
        normal = unicodedata.normalize("NFC", text).lower()
        if is_principal(normal):
            return normal
    raise InvalidInput(
        f"{quoted(text)} is not an e-mail address that can be a principal; give one like name@example.org.",
        reason="PRINCIPAL_INVALID",
        metadata={"principal": quoted(text)},
    )


def parse_requester(text: str) -> str:
    """Return the requester that `text` names: a principal, `GUEST` or `ANONYMOUS` (the empty string).

    Raises:
        InvalidInput: (PRINCIPAL_INVALID) `text` is none of the three.
    """
    return text if text in (GUEST, ANONYMOUS) else normalise_principal(text)


def is_authenticated(requester: str) -> bool:
    """Return whether `requester`, as `parse_requester` gives it, is a principal."""
    return requester not in (ANONYMOUS, GUEST)


@lru_cache(maxsize=4096)
def user_hash(principal: str) -> str:
    """Return the first 16 hex digits of SHA-256 (FIPS 180-4) of a normalised principal."""
    return hashlib.sha256(principal.encode()).hexdigest()[:USER_HASH_DIGITS]
