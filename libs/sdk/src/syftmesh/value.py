"""Values of calls as bytes with a content type, and back. Pickle is never read."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from pydantic import BaseModel, TypeAdapter, ValidationError
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.quote import quoted

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

T = TypeVar("T")


def encode(value: object, content_type: str | None = None) -> tuple[bytes, str]:
    """Return a value's bytes and content type.

    Args:
        value: None, bytes, a protobuf message, a pydantic model, a dataclass, or what JSON can say.
        content_type: What to call bytes.

    Raises:
        InvalidInput: It cannot be encoded exactly (VALUE_UNENCODABLE); the message names the type.
    """
    if value is None:
        return b"", content_type or BYTES
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), content_type or BYTES
    if isinstance(value, Message):
        return value.SerializeToString(), PROTOBUF
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode(), JSON
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return TypeAdapter(type(value)).dump_json(value), JSON
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode(), JSON
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"A {type(value).__name__} cannot be sent exactly: {quoted(str(error))}.",
            reason="VALUE_UNENCODABLE",
            metadata={"type": type(value).__name__},
            hint="Send bytes, JSON values, a dataclass, a pydantic model or a protobuf message.",
        ) from error


def decode(data: bytes, content_type: str, wanted: type[T]) -> T:
    """Return `data` as a `wanted`.

    Raises:
        IntegrityFailure: It is none (DECODE_FAILED); metadata ``field`` names the first wrong field.
    """
    if wanted is bytes:
        return cast("T", data)
    try:
        if issubclass(wanted, Message):
            message = wanted()
            message.ParseFromString(data)
            return message
        return TypeAdapter(wanted).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise _undecodable(content_type, wanted.__name__, field, first["msg"]) from error
    except (DecodeError, ValueError) as error:
        raise _undecodable(content_type, wanted.__name__, "", "it is malformed") from error


def decode_by_type(data: bytes, content_type: str) -> Any:
    """Return JSON values for JSON, text for text, else the bytes.

    Raises:
        IntegrityFailure: It is not what its content type says (DECODE_FAILED).
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == JSON or kind.endswith("+json"):
            return json.loads(data)
        if kind.startswith("text/"):
            return data.decode()
    except ValueError as error:
        raise _undecodable(content_type, kind, "", "it is malformed") from error
    return data


def _undecodable(content_type: str, wanted: str, field: str, why: str) -> IntegrityFailure:
    where = f" in the field {quoted(field)}" if field else ""
    return IntegrityFailure(
        f"The reply ({quoted(content_type)}) is no {wanted}{where}: {why}.",
        reason="DECODE_FAILED",
        metadata={"field": quoted(field), "type": wanted},
    )
