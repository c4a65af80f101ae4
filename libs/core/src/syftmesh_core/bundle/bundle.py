"""Reads a Flower app bundle (FAB) as what a stranger wrote.

A bundle is a zip with the app's `pyproject.toml`, its files, and the list `.info/CONTENT` of their digests. Its
SHA-256 is what owners approve, so nothing of it is believed that the bytes do not show. The hub, the sites and the
aggregator read it with this one function: what one of them takes, all of them take.

Source: `flwr.cli.build` and `flwr.common.config` of Flower 1.41.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from syftmesh_core.bundle.archive import unpack
from syftmesh_core.bundle.config import ConfigValue
from syftmesh_core.bundle.manifest import MANIFEST, Manifest, parse_manifest
from syftmesh_core.bundle.refusal import MAX_BUNDLE_BYTES, bundle_invalid, bundle_too_large

CONTENT_LIST: Final = ".info/CONTENT"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was checked whole.

    Attributes:
        digest: SHA-256 of the bundle, hex.
        name: ``publisher/name`` of the app.
        version: Its version.
        server_app: Its ServerApp, as ``module:attribute``.
        client_app: Its ClientApp, as ``module:attribute``.
        config: The defaults of its run configuration, flat, as Flower flattens them.
        files: Path (with ``/``) to content, in order of the paths, without Flower's list of digests.
    """

    digest: str
    name: str
    version: str
    server_app: str
    client_app: str
    config: Mapping[str, ConfigValue]
    files: Mapping[str, bytes] = field(repr=False)


def read_bundle(data: bytes) -> Bundle:
    """Return the bundle in `data`, which may come from anybody.

    Raises:
        InvalidInput: BUNDLE_INVALID: not a zip of plain files with portable, unique names, a file that is not as
            Flower's list says, or an app that lacks something.
        LimitExceeded: BUNDLE_TOO_LARGE: over 4 MiB, 64 MiB unpacked, or 2,000 files.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise bundle_too_large(f"it has {len(data)} bytes")
    files = unpack(data)
    listed = files.pop(CONTENT_LIST, None)
    if listed is None:
        raise bundle_invalid(f"it has no list {CONTENT_LIST}")
    lines = listed.decode(errors="replace").split("\n")
    if sorted(lines) != sorted(_content_line(name, content) for name, content in files.items()):
        raise bundle_invalid(f"its files are not those of its list {CONTENT_LIST}")
    if MANIFEST not in files:
        raise bundle_invalid(f"it has no {MANIFEST}")
    manifest = parse_manifest(files[MANIFEST])
    _check_components(manifest, files)
    return Bundle(
        digest=hashlib.sha256(data).hexdigest(),
        name=f"{manifest.publisher}/{manifest.name}",
        version=manifest.version,
        server_app=manifest.server_app,
        client_app=manifest.client_app,
        config=MappingProxyType(manifest.config),
        files=MappingProxyType({name: files[name] for name in sorted(files)}),
    )


def _content_line(name: str, content: bytes) -> str:
    return f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"


def _check_components(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    for component in (manifest.server_app, manifest.client_app):
        module = component.partition(":")[0].replace(".", "/")
        if f"{module}.py" not in files and f"{module}/__init__.py" not in files:
            raise bundle_invalid(
                f"the module of the component {component} is not in it, so nobody could review it"
            )
