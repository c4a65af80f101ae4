"""Compose files as plain data, with the variables of a host filled in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
HOST = {
    "SYFTMESH_HUB_HOST": "hub.example.org",
    "SYFTMESH_HUB_URL": "https://hub.example.org",
    "SYFTMESH_EMAIL": "owner@example.org",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def loaded(name: str) -> dict[str, Any]:
    """Return the compose file `name` below docker/.

    Raises:
        KeyError: It uses a variable that has no default and that `HOST` does not give.
    """

    def value(found: re.Match[str]) -> str:
        variable, kind, default = found.groups()
        return default if kind == "-" and variable not in HOST else HOST[variable]

    text = "\n".join(
        line for line in (DOCKER / name).read_text().splitlines() if not line.lstrip().startswith("#")
    )
    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text))
    return document


def mounts(service: dict[str, Any]) -> list[tuple[str, str, str | None, bool]]:
    """Return volume, place, part of the volume and whether it is read-only, of each mount of a service."""
    found: list[tuple[str, str, str | None, bool]] = []
    for mount in service.get("volumes", []):
        if isinstance(mount, str):
            source, target = mount.split(":")
            found.append((source, target, None, False))
        else:
            subpath = mount.get("volume", {}).get("subpath")
            found.append((mount["source"], mount["target"], subpath, mount.get("read_only", False)))
    return found
