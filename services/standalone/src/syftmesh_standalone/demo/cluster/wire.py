"""What goes over the lines between this program and a site's console: JSON that keeps our own types.

It runs on both ends; in the console its source arrives over the line, so it imports the standard library and what the
SDK stands on, no more. Nothing but data is built from what arrives: dataclasses, enumerations and errors of ours.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from importlib import import_module
from pathlib import PurePath, PurePosixPath
from typing import Any, Final

from syftmesh_core import errors
from syftmesh_core.errors import IntegrityFailure, MeshError

LINE_INVALID: Final = "LINE_INVALID"
_TAG: Final = "$"
_PACKAGES: Final = ("syftmesh.", "syftmesh_core.", "syftmesh_client.")


def encode(value: Any) -> Any:
    """Return `value` as JSON's types.

    Raises:
        TypeError: It has a part that no line carries.
    """
    if isinstance(value, Enum):
        return {_TAG: "enum", "class": _name_of(type(value)), "value": value.value}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray):
        return {_TAG: "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {_TAG: "time", "value": value.isoformat()}
    if isinstance(value, PurePath):
        return {_TAG: "path", "value": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {_TAG: "object", "class": _name_of(type(value)), "fields": fields}
    if isinstance(value, Mapping):
        return {_TAG: "map", "value": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TAG: "tuple", "value": [encode(item) for item in value]}
    if isinstance(value, AbstractSet):
        return {_TAG: "set", "value": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    raise TypeError(f"no line carries a {type(value).__qualname__}")


def decode(value: Any) -> Any:
    """Return what `encode` was given.

    Raises:
        IntegrityFailure: It is none of its forms, or names a type that is not ours (LINE_INVALID).
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        return _tagged(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityFailure("a line of the console cannot be read", reason=LINE_INVALID) from error


def _tagged(value: dict[str, Any]) -> Any:
    tag = value[_TAG]
    if tag == "bytes":
        return base64.b64decode(value["value"], validate=True)
    if tag == "time":
        return datetime.fromisoformat(value["value"])
    if tag == "path":
        return PurePosixPath(value["value"])
    if tag == "map":
        return {decode(key): decode(item) for key, item in value["value"]}
    if tag == "tuple":
        return tuple(decode(item) for item in value["value"])
    if tag == "set":
        return frozenset(decode(item) for item in value["value"])
    if tag == "enum":
        return _class_of(value["class"], Enum)(value["value"])
    if tag == "object":
        return _class_of(value["class"], None)(**{k: decode(item) for k, item in value["fields"].items()})
    raise ValueError(tag)


def encode_error(error: MeshError) -> dict[str, Any]:
    """Return one of our errors as JSON's types."""
    return {
        "class": type(error).__name__,
        "message": error.message,
        "reason": error.reason,
        "metadata": error.metadata,
        "hint": error.hint,
    }


def decode_error(value: Mapping[str, Any]) -> MeshError:
    """Return the error that `encode_error` was given, of the same class and reason.

    Raises:
        IntegrityFailure: It is none (LINE_INVALID).
    """
    found = getattr(errors, str(value.get("class")), None)
    if not (isinstance(found, type) and issubclass(found, MeshError)):
        raise IntegrityFailure("a line of the console cannot be read", reason=LINE_INVALID)
    metadata = {str(key): str(item) for key, item in dict(value.get("metadata") or {}).items()}
    told: dict[str, str] = {name: str(value.get(name)) for name in ("reason", "hint")}
    return found(str(value.get("message")), metadata=metadata, **told)


def _name_of(kind: type) -> str:
    if "." in kind.__qualname__ or not f"{kind.__module__}.".startswith(_PACKAGES):
        raise TypeError(f"no line carries a {kind.__qualname__}")
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(name: str, base: type | None) -> Any:
    module, _, attribute = name.partition(":")
    if not f"{module}.".startswith(_PACKAGES):
        raise ValueError(name)
    found = getattr(import_module(module), attribute)
    if not isinstance(found, type):
        raise TypeError(name)
    if not (issubclass(found, base) if base is not None else dataclasses.is_dataclass(found)):
        raise TypeError(name)
    return found
