"""The run configuration of an app: flat, of four types, with overrides that keep the type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from syftmesh_core.bundle.refusal import bundle_invalid, config_invalid, shown

if TYPE_CHECKING:
    from syftmesh_core.bundle.bundle import Bundle

ConfigValue = bool | int | float | str
"""A value of a run configuration."""

_TABLE = "[tool.flwr.app.config]"


def flat_config(raw: object) -> dict[str, ConfigValue]:
    """Return the table as Flower flattens it: ``section.key`` to value.

    Raises:
        InvalidInput: BUNDLE_INVALID: no table of numbers, texts, truth values and tables of those.
    """
    if not isinstance(raw, dict):
        raise bundle_invalid("tool.flwr.app.config is no table")
    try:
        return dict(_flat(raw, ""))
    except RecursionError:
        raise bundle_invalid(f"{_TABLE} is too deep") from None


def fused_config(bundle: Bundle, overrides: Mapping[str, object]) -> dict[str, ConfigValue]:
    """Return the run configuration that an app gets: its defaults, with `overrides` put over them.

    Flower takes a value of any type; here the type of the default decides, since the app was reviewed with it. A
    whole number for a float becomes a float: RFC 8785 JSON writes 1.0 as 1.

    Args:
        bundle: The app.
        overrides: Flat, as ``section.key``.

    Raises:
        InvalidInput: CONFIG_INVALID: a key that the app does not have, or a value of another type; metadata `key`.
    """
    fused = dict(bundle.config)
    for key, value in overrides.items():
        if key not in fused:
            raise config_invalid(key, "is no key of the app's configuration")
        fused[key] = _override(key, fused[key], value)
    return fused


def _flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, ConfigValue]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        elif not isinstance(value, bool | int | float | str):
            raise bundle_invalid(f"{shown(key)} of {_TABLE} is neither number, text nor boolean")
        elif isinstance(value, int) and not _is_int64(value):
            raise bundle_invalid(f"{shown(key)} of {_TABLE} is no 64-bit integer")
        else:
            yield key, value


def _override(key: str, default: ConfigValue, value: object) -> ConfigValue:
    if type(default) is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise config_invalid(key, "is too large for a float") from None
    if not isinstance(value, type(default)) or type(value) is not type(default):
        raise config_invalid(key, f"has to be {type(default).__name__}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise config_invalid(key, "is not finite")
    if type(value) is int and not _is_int64(value):
        raise config_invalid(key, "is no 64-bit integer")
    return value


def _is_int64(value: int) -> bool:
    return -(1 << 63) <= value < 1 << 63
