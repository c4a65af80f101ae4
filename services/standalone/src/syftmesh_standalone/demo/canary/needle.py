"""Private values in every form in which they are looked for."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

RAW_BYTES: Final = 16
"""Length of a record identifier: 128 random bits, which nothing else in the world holds by chance."""
MIN_PATTERN_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Secret:
    """One private value.

    Attributes:
        label: What it is, for people; never the value.
        text: The value as text.
        is_identifier: Whether it is 128 bits in lower-case hexadecimal, which is then looked for as bytes too.
    """

    label: str
    text: str
    is_identifier: bool = True


@dataclass(frozen=True, slots=True)
class Needle:
    """A secret in one form.

    Attributes:
        label: Of the secret.
        form: The form's name.
        pattern: The bytes looked for, at least 8.
        folded: Whether case does not matter; the pattern is in lower case then.
    """

    label: str
    form: str
    pattern: bytes
    folded: bool


def needles_of(secrets: Iterable[Secret]) -> Iterator[Needle]:
    """Give all forms of all secrets.

    Identifiers: text in either case, also as UTF-16, backwards and with the dashes of a UUID (RFC 9562); the
    16 bytes, also backwards; text and bytes in base64 and base64url (RFC 4648) at each of the three places
    that a value can take in a stream that is encoded as a whole. Other text: as it is, as UTF-16, in base64.
    """
    for secret in secrets:
        if secret.is_identifier:
            yield from _identifier(secret)
        else:
            yield from _text(secret)


def _identifier(secret: Secret) -> Iterator[Needle]:
    text, raw = secret.text.encode(), bytes.fromhex(secret.text)
    if len(raw) != RAW_BYTES or secret.text != secret.text.lower():
        raise ValueError("an identifier is 32 hexadecimal digits in lower case")
    yield Needle(secret.label, "text", text, folded=True)
    yield Needle(secret.label, "text backwards", text[::-1], folded=True)
    yield Needle(secret.label, "UTF-16", _utf16(secret.text), folded=True)
    yield Needle(secret.label, "UTF-16 backwards", _utf16(secret.text[::-1]), folded=True)
    groups = (secret.text[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    yield Needle(secret.label, "UUID", "-".join(groups).encode(), folded=True)
    yield Needle(secret.label, "bytes", raw, folded=False)
    yield Needle(secret.label, "bytes backwards", raw[::-1], folded=False)
    yield from _base64(secret.label, "bytes in base64", raw)
    yield from _base64(secret.label, "text in base64", text)
    yield from _base64(secret.label, "upper-case text in base64", text.upper())


def _text(secret: Secret) -> Iterator[Needle]:
    data = secret.text.encode()
    yield Needle(secret.label, "text", data.lower(), folded=True)
    yield Needle(secret.label, "UTF-16", _utf16(secret.text.lower()), folded=True)
    yield from _base64(secret.label, "text in base64", data)


def _utf16(text: str) -> bytes:
    # Without the last zero it stands in both byte orders.
    return text.encode("utf-16-le")[:-1]


def _base64(label: str, form: str, data: bytes) -> Iterator[Needle]:
    """Give the characters that depend on `data` alone, for each of the three places in the stream."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + data)
        first = -(-shift * 8 // 6)
        last = (shift + len(data)) * 8 // 6
        inner = encoded[first:last]
        yield Needle(label, form, inner, folded=False)
        url = inner.translate(bytes.maketrans(b"+/", b"-_"))
        if url != inner:
            yield Needle(label, form, url, folded=False)
