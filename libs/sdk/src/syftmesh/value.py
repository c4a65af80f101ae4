"""Values of calls as bytes with a content type, and back. Pickle is never read.

JSON is written as RFC 8259 has it: what it cannot say exactly (NaN, infinities, bytes that are no text, unknown
types) is an error that names the field, never something else in its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Final, NoReturn, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.quote import quoted

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
BYTES: Final = "application/octet-stream"

T = TypeVar("T")


def encode(value: object, content_type: str | None = None) -> tuple[bytes, str]:
    """Return a value's bytes and content type.

    Args:
        value: None, bytes, a protobuf message, a pydantic model, a dataclass, or what JSON can say.
        content_type: What to call bytes, and text that is to be sent as it is.

    Raises:
        InvalidInput: It cannot be encoded exactly (VALUE_UNENCODABLE); metadata `field` says where in it.
    """
    if value is None:
        return b"", content_type or BYTES
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), content_type or BYTES
    if isinstance(value, Message):
        return value.SerializeToString(), content_type or PROTOBUF
    if isinstance(value, str) and content_type is not None and content_type.startswith("text/"):
        return value.encode(), content_type
    return _json(value), content_type or JSON


def decode(data: bytes, content_type: str, wanted: type[T]) -> T:
    """Return `data` as a `wanted`: bytes, a protobuf message, or any type that pydantic reads from JSON.

    Raises:
        IntegrityFailure: It is none (DECODE_FAILED); metadata `field` names the first wrong field.
    """
    if wanted is bytes:
        return cast("T", data)
    if isinstance(wanted, type) and issubclass(wanted, Message):
        try:
            return cast("T", wanted.FromString(data))
        except DecodeError as error:
            raise _undecodable(content_type, wanted, "", "it is malformed") from error
    try:
        return TypeAdapter(wanted).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise _undecodable(content_type, wanted, field, first["msg"]) from error


def decode_by_type(data: bytes, content_type: str) -> Any:
    """Return JSON values for JSON, text for text, None for nothing, else the bytes.

    Raises:
        IntegrityFailure: It is not what its content type says (DECODE_FAILED).
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == JSON or kind.endswith("+json"):
            return json.loads(data, parse_constant=_refuse_constant)
        if kind.startswith("text/"):
            return data.decode()
    except (ValueError, RecursionError) as error:
        raise _undecodable(content_type, kind, "", "it is malformed") from error
    return data if data or kind else None


def _json(value: object) -> bytes:
    try:
        _check(value, "")
        plain = to_jsonable_python(value)
        for field, number in _floats(plain, ""):
            if not math.isfinite(number):
                raise _unencodable(value, field, f"JSON has no {number}")
        return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        # Of a model, which says itself what it cannot write, or of a lone surrogate in a text.
        raise _unencodable(value, "", str(error)) from error


def _check(value: object, field: str) -> None:
    """Refuse what would come back as something else; models and dataclasses bring the types to read them by."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _unencodable(key, field, "a key in JSON is a text")
            _check(item, _joined(field, key))
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            _check(item, _joined(field, at))
    elif not (value is None or isinstance(value, str | int | float | BaseModel) or is_dataclass(value)):
        raise _unencodable(value, field, "JSON has nothing like it")


def _floats(value: object, field: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield field, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _floats(item, _joined(field, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _floats(item, _joined(field, at))


def _joined(field: str, key: object) -> str:
    return f"{field}.{key}" if field else str(key)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _unencodable(value: object, field: str, why: str) -> InvalidInput:
    where = f" in the field {quoted(field)}" if field else ""
    return InvalidInput(
        f"A {type(value).__name__} cannot be sent exactly{where}: {quoted(why)}.",
        reason="VALUE_UNENCODABLE",
        metadata={"field": quoted(field), "type": type(value).__name__},
        hint="Send bytes, JSON values, a dataclass, a pydantic model or a protobuf message.",
    )


def _undecodable(content_type: str, wanted: object, field: str, why: str) -> IntegrityFailure:
    name = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", str(wanted))
    where = f" in the field {quoted(field)}" if field else ""
    return IntegrityFailure(
        f"The reply ({quoted(content_type)}) is no {name}{where}: {why}.",
        reason="DECODE_FAILED",
        metadata={"field": quoted(field), "type": str(name)},
    )
