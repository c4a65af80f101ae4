"""The chart of a datasite as the tests of it render it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chart_render import CHARTS, Chart, Manifest, Program

FOLDER = CHARTS / "datasite"
EMAIL = "alice@hospital.example"
STATE = "/var/lib/syftmesh"
AUTHORITY = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
TOKEN = "one-time-token-of-alice"

# Helm that was not released says that it is of an old Kubernetes.
FLAGS = ("--kube-version", "1.34.0")

GIVEN: dict[str, Any] = {
    "email": EMAIL,
    "hub": {"url": "https://mesh.example"},
    "joinToken": {"value": f"{TOKEN}\n"},
}


def site_chart(helm: Program) -> Chart:
    """Return the chart as release and namespace ``alice``."""
    return Chart(helm, FOLDER, release="alice", namespace="alice")


def render_site(helm: Program, *files: Path, **values: Any) -> list[Manifest]:
    """Return what is rendered with what must be given, values files, and `values` over them.

    Raises:
        ProgramFailed: Helm refuses.
    """
    return site_chart(helm).render(*files, values=merged(GIVEN, values), flags=FLAGS)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid over it, map by map."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        nested = isinstance(value, dict) and isinstance(inner, dict)
        result[key] = merged(inner, value) if nested else value
    return result
