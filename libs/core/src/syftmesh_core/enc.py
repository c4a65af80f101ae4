"""`ENC`, the one encoding of whatever is signed, authenticated or hashed.

``ENC(label, fields) = "SyftMesh/v1/" label 0x00``, then per field a big-endian 32-bit length and that many
bytes. Integers are unsigned 64-bit big-endian, text is UTF-8 in NFC, booleans one byte (0 or 1), a list a
32-bit count and then each item as length and bytes, parameters RFC 8785 JSON; an absent field has the length
0xFFFFFFFF and no bytes. Every value has exactly one encoding, and `Reader` refuses all others.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NoReturn

import rfc8785

from syftmesh_core.errors import IntegrityFailure, InvalidInput

PREFIX = b"SyftMesh/v1/"
"""Product and version of the encoding, in front of every label."""

ABSENT = 0xFFFFFFFF
"""Length that marks a field without a value."""

MAX_INTEGER = (1 << 64) - 1
"""Largest integer of a field."""

_MAX_LABEL_BYTES = 64

Json = Mapping[str, object]
"""A JSON object: what a field of parameters holds."""

Value = int | str | bytes | bool | Json | Sequence["Value"] | None
"""What a field may be; `None` is absent, a list or tuple is a list field."""


def encode(label: str, fields: Sequence[Value]) -> bytes:
    """Return ``ENC(label, fields)``.

    Args:
        label: Domain of the bytes, e.g. ``device``; printable ASCII, at most 64 bytes.
        fields: The values in order; the Python type decides the kind of each field.

    Raises:
        InvalidInput: ENCODING_INVALID when a value has no encoding: a negative or too large integer, text
            that is not UTF-8, an absent list item, JSON outside RFC 8785.
    """
    out = bytearray(_head(label))
    for value in fields:
        if value is None:
            out += ABSENT.to_bytes(4, "big")
        else:
            _append(out, _body(value))
    return bytes(out)


def canonical_json(value: Json) -> bytes:
    """Return `value` as RFC 8785 JSON.

    Raises:
        InvalidInput: ENCODING_INVALID when RFC 8785 cannot express it (integers beyond 2^53, NaN, no text
            keys).
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(
            "The parameters are not expressible as RFC 8785 JSON: use text, booleans, lists, objects, and "
            "numbers up to 2^53.",
            reason="ENCODING_INVALID",
        ) from error


def parse_json(data: bytes) -> dict[str, object]:
    """Return the JSON object in `data`, which must be in its RFC 8785 form.

    Raises:
        IntegrityFailure: ENCODING_INVALID when it is not JSON, no object, or not in canonical form (which
            also refuses duplicate names).
    """
    try:
        value = json.loads(data.decode())
        canonical = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError, RecursionError):
        _refuse("the parameters are not RFC 8785 JSON")
    if not isinstance(value, dict) or canonical != data:
        _refuse("the parameters are not an object in RFC 8785 form")
    return value


class Reader:
    """Reads the fields of one ``ENC`` in order, and refuses whatever is not the one encoding.

    Call one method per field, then `end`. Each raises `IntegrityFailure` ENCODING_INVALID for a field that is
    truncated, absent where it must not be, or not canonical.

    Args:
        label: The label the bytes must carry.
        data: The bytes as received.
        max_bytes: Longest input accepted, in bytes; None for no limit.

    Raises:
        IntegrityFailure: ENCODING_INVALID for another label or version, or more than `max_bytes`.
    """

    def __init__(self, label: str, data: bytes | memoryview, *, max_bytes: int | None = None) -> None:
        if max_bytes is not None and len(data) > max_bytes:
            _refuse(f"it is longer than {max_bytes} bytes")
        head = _head(label)
        self._view = memoryview(data)
        if self._view[: len(head)] != head:
            _refuse("its label or version is another one")
        self._at = len(head)

    def optional_view(self) -> memoryview | None:
        """Return the next field's bytes without copying them, or None where it is absent."""
        size = self._size()
        if size == ABSENT:
            return None
        return self._take(size)

    def view(self) -> memoryview:
        """Return the next field's bytes without copying them."""
        found = self.optional_view()
        if found is None:
            _refuse("a field is absent that must be there")
        return found

    def raw(self, size_bytes: int | None = None) -> bytes:
        """Return the next field's bytes, which must be `size_bytes` long where that is given."""
        return _sized(bytes(self.view()), size_bytes)

    def optional_raw(self, size_bytes: int | None = None) -> bytes | None:
        """Return the next field's bytes, or None where it is absent."""
        found = self.optional_view()
        return None if found is None else _sized(bytes(found), size_bytes)

    def integer(self) -> int:
        """Return the next field as an unsigned 64-bit integer."""
        return int.from_bytes(self.raw(8), "big")

    def optional_integer(self) -> int | None:
        """Return the next field as an unsigned 64-bit integer, or None where it is absent."""
        found = self.optional_raw(8)
        return None if found is None else int.from_bytes(found, "big")

    def text(self) -> str:
        """Return the next field as text."""
        return _text(self.raw())

    def optional_text(self) -> str | None:
        """Return the next field as text, or None where it is absent."""
        found = self.optional_raw()
        return None if found is None else _text(found)

    def boolean(self) -> bool:
        """Return the next field as a boolean."""
        found = self.raw(1)
        if found not in (b"\0", b"\1"):
            _refuse("a boolean is neither 0 nor 1")
        return found == b"\1"

    def json(self) -> dict[str, object]:
        """Return the next field as a JSON object in RFC 8785 form."""
        return parse_json(self.raw())

    def items(self, max_items: int) -> tuple[bytes, ...]:
        """Return the items of the next field, a list of at most `max_items`, as bytes."""
        inner = Reader.__new__(Reader)
        inner._view = self.view()  # noqa: SLF001 - the same class
        inner._at = 0  # noqa: SLF001
        count = inner._size()  # noqa: SLF001
        if count > max_items:
            _refuse(f"a list holds more than {max_items} items")
        found = tuple(inner.raw() for _ in range(count))
        inner.end()
        return found

    def texts(self, max_items: int) -> tuple[str, ...]:
        """Return the items of the next field, a list of at most `max_items`, as text."""
        return tuple(_text(item) for item in self.items(max_items))

    def end(self) -> None:
        """Check that nothing follows the last field.

        Raises:
            IntegrityFailure: ENCODING_INVALID for surplus bytes.
        """
        if self._at != len(self._view):
            _refuse("bytes follow the last field")

    def _size(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._view):
            _refuse("it ends within a field")
        found = self._view[self._at : end]
        self._at = end
        return found


def item_fields(item: bytes, max_fields: int) -> tuple[bytes, ...]:
    """Return the items of `item`, itself an encoded list within a list.

    Raises:
        IntegrityFailure: ENCODING_INVALID.
    """
    reader = Reader("item", _head("item") + len(item).to_bytes(4, "big") + item)
    return reader.items(max_fields)


def as_text(data: bytes) -> str:
    """Return `data` as text in its one encoding.

    Raises:
        IntegrityFailure: ENCODING_INVALID when it is not UTF-8 in NFC.
    """
    return _text(data)


def _head(label: str) -> bytes:
    if not (0 < len(label) <= _MAX_LABEL_BYTES and label.isascii() and label.isprintable()):
        raise InvalidInput("A label is 1 to 64 printable ASCII characters.", reason="ENCODING_INVALID")
    return PREFIX + label.encode("ascii") + b"\0"


def _append(out: bytearray, body: bytes) -> None:
    if len(body) >= ABSENT:
        raise InvalidInput("A field is longer than 2^32 - 2 bytes.", reason="ENCODING_INVALID")
    out += len(body).to_bytes(4, "big")
    out += body


def _body(value: Value) -> bytes:
    if isinstance(value, bool):  # before int: a bool is an int
        return b"\1" if value else b"\0"
    if isinstance(value, int):
        if not 0 <= value <= MAX_INTEGER:
            raise InvalidInput("An integer is not within 0 and 2^64 - 1.", reason="ENCODING_INVALID")
        return value.to_bytes(8, "big")
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        return canonical_json(value)
    return _list(value)


def _list(items: Sequence[Value] | None) -> bytes:
    if not isinstance(items, list | tuple):
        raise InvalidInput("A field of this type has no encoding.", reason="ENCODING_INVALID")
    out = bytearray(len(items).to_bytes(4, "big"))
    for item in items:
        if item is None:
            raise InvalidInput("An item of a list cannot be absent.", reason="ENCODING_INVALID")
        _append(out, _body(item))
    return bytes(out)


def _utf8(value: str) -> bytes:
    try:
        return unicodedata.normalize("NFC", value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput("Text holds a lone surrogate.", reason="ENCODING_INVALID") from error


def _text(data: bytes) -> str:
    try:
        value = data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("text is not UTF-8")
    if not unicodedata.is_normalized("NFC", value):
        _refuse("text is not in normal form C")
    return value


def _sized(data: bytes, size_bytes: int | None) -> bytes:
    if size_bytes is not None and len(data) != size_bytes:
        _refuse(f"a field of {size_bytes} bytes has another length")
    return data


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The encoded bytes are refused: {what}.", reason="ENCODING_INVALID")
