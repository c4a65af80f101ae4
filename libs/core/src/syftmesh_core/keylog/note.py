"""Signed notes: text with Ed25519 signatures that name their key.

Source: C2SP signed-note. Verified before anything of the text is used; signatures of unknown keys count for
nothing, a wrong one of a known key refuses the note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.identity import ed25519

KEY_ID_BYTES = 4

MAX_SIGNATURES = 16
"""Most signatures of a note: what every verifier must take, and no more."""

MAX_NOTE_BYTES = 128 * 1024
"""Longest note; 16 post-quantum signatures of others fit."""

_ED25519_TYPE = b"\x01"
_LINE_START = "\u2014 "
_FIRST_PRINTABLE = " "


class Signer(Protocol):
    """Holds the private key: a file, a device or a service."""

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`, 64 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key and the name that its signatures carry.

    Attributes:
        name: Not empty, without spaces and plus, e.g. ``hub.example/keys``.
        key: Ed25519 public key, raw, 32 bytes.

    Raises:
        InvalidInput: LOG_KEY_INVALID for another name or an unusable key.
    """

    name: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not is_key_name(self.name) or not ed25519.is_sound_key(self.key):
            raise InvalidInput(
                "The key of the log is refused: it needs a name without spaces and plus, and a sound Ed25519 key.",
                reason="LOG_KEY_INVALID",
            )

    @property
    def key_id(self) -> bytes:
        """The id that its signatures carry, 4 bytes: to find the key, not to trust it."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519_TYPE + self.key).digest()[:KEY_ID_BYTES]


def is_key_name(name: str) -> bool:
    """Return whether `name` may be a key's: UTF-8, not empty, without space, plus and control characters."""
    return bool(name) and _is_plain(name) and "+" not in name and not any(each.isspace() for each in name)


def sign_note(text: str, key: NoteKey, signer: Signer) -> bytes:
    """Return `text`, which ends in a newline, as a note signed by `key`.

    Raises:
        InvalidInput: LOG_HEAD_INVALID for a text without a newline at its end, or with control characters.
        IntegrityFailure: SIGNATURE_INVALID when `signer` signs by another key.
    """
    if not text.endswith("\n") or not _is_plain(text.replace("\n", "")):
        raise InvalidInput("A note is lines of text, the last one ended too.", reason="LOG_HEAD_INVALID")
    signature = signer.sign(text.encode())
    if not ed25519.is_signed_by(key.key, signature, text.encode()):
        raise IntegrityFailure(
            f"The signer of the key log does not hold the key {key.name}: nothing was signed.",
            reason="SIGNATURE_INVALID",
            metadata={"key": key.name},
        )
    encoded = base64.b64encode(key.key_id + signature).decode()
    return f"{text}\n{_LINE_START}{key.name} {encoded}\n".encode()


def open_note(data: bytes, key: NoteKey) -> str:
    """Return the text of the note in `data`, newline at its end included, once `key` signed it.

    Raises:
        IntegrityFailure: LOG_HEAD_INVALID when the form of the note or of any signature line is another, when
            `key` did not sign it, or when one of the signatures in its name does not hold.
    """
    if len(data) > MAX_NOTE_BYTES:
        _refuse(f"it is longer than {MAX_NOTE_BYTES} bytes")
    text, lines = _split(data)
    signatures = [signature for name, key_id, signature in lines if (name, key_id) == (key.name, key.key_id)]
    if not signatures:
        _refuse("it is not signed by the key of the log")
    message = text.encode()
    if not all(ed25519.is_signed_by(key.key, signature, message) for signature in signatures):
        _refuse("its signature does not hold")
    return text


def decode_base64(text: str) -> bytes | None:
    """Return the bytes in `text`, or None where it is not their one encoding (RFC 4648, section 4)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None


def _split(data: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    try:
        note = data.decode()
    except UnicodeDecodeError:
        _refuse("it is not UTF-8")
    if not _is_plain(note.replace("\n", "")):
        _refuse("it holds control characters")
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not head or not tail.endswith("\n"):
        _refuse("it has no text, no signatures, or no newline at its end")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        _refuse(f"it has more than {MAX_SIGNATURES} signatures")
    return head + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, separator, encoded = line.removeprefix(_LINE_START).partition(" ")
    data = decode_base64(encoded)
    formed = line.startswith(_LINE_START) and separator and is_key_name(name)
    if not formed or data is None or len(data) <= KEY_ID_BYTES:
        _refuse("a line of its signatures has another form")
    return name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:]


def _is_plain(text: str) -> bool:
    """Whether `text` is without control characters of ASCII and encodable."""
    surrogate = any("\ud800" <= each <= "\udfff" for each in text)
    return not surrogate and all(each >= _FIRST_PRINTABLE for each in text)


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The head of the key log is refused: {what}.", reason="LOG_HEAD_INVALID")
