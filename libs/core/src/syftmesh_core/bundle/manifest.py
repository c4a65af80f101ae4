"""The manifest of an app: the parts of its `pyproject.toml` that are used.

What else Flower asks of a manifest (its list of dependencies, its patterns of files) Flower checks itself, where a
bundle is built and where the hub's SuperLink takes it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any, Final

from syftmesh_core.bundle.config import ConfigValue, flat_config
from syftmesh_core.bundle.refusal import bundle_invalid

MANIFEST: Final = "pyproject.toml"
MAX_MANIFEST_BYTES: Final = 64 * 1024

_MAX_TEXT_CHARACTERS: Final = 255
# Python's reader of TOML needs the square of a dotted key's parts, in time and in memory.
_DEEP_KEY: Final = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")
# Flower makes a folder's name of the first three, and checks the name only.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
_PUBLISHER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9](?:[.+!_-]?[A-Za-z0-9]){0,63}")
_COMPONENT: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of an app's manifest that are used.

    Attributes:
        publisher: Who publishes it.
        name: Of the project.
        version: Of the project.
        server_app: As ``module:attribute``.
        client_app: As ``module:attribute``.
        config: Defaults of the run configuration, flat.
    """

    publisher: str
    name: str
    version: str
    server_app: str
    client_app: str
    config: dict[str, ConfigValue]


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`.

    Raises:
        InvalidInput: BUNDLE_INVALID: no TOML, too large or too deep, or something is missing.
    """
    document = _toml(data)
    app = _table(document, "tool.flwr.app")
    components = _table(document, "tool.flwr.app.components")
    project = _table(document, "project")
    if "agentapp" in components:
        raise bundle_invalid("it has an agentapp, and only apps with a serverapp and a clientapp run here")
    return Manifest(
        publisher=_text(app, "publisher", _PUBLISHER),
        name=_text(project, "name", _NAME),
        version=_text(project, "version", _VERSION),
        server_app=_text(components, "serverapp", _COMPONENT),
        client_app=_text(components, "clientapp", _COMPONENT),
        config=flat_config(app.get("config", {})),
    )


def _toml(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode()
        if len(data) > MAX_MANIFEST_BYTES or _DEEP_KEY.search(text):
            raise bundle_invalid(
                f"its {MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes, or too deep a key"
            )
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        raise bundle_invalid(f"its {MANIFEST} is no TOML") from None


def _table(document: dict[str, Any], path: str) -> dict[str, Any]:
    table: object = document
    for key in path.split("."):
        table = table.get(key) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise bundle_invalid(f"its {MANIFEST} has no table [{path}]")
    return table


def _text(table: dict[str, Any], key: str, form: re.Pattern[str]) -> str:
    value = table.get(key)
    if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARACTERS or not form.fullmatch(value):
        raise bundle_invalid(
            f'"{key}" in its {MANIFEST} is missing, or is no such thing: {ascii(value)[:200]}'
        )
    return value
