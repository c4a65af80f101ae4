"""Small files in the state folder (0700), each replaced atomically: members, nodes, app bundles."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.text import safe_token

from syftmesh_superlink.domain.ports import Bundles, Members, Nodes

MEMBERS: Final = "members"
NODES: Final = "nodes"
BUNDLES: Final = "bundles"


def prepare(folder: Path) -> None:
    """Make the state folder and the folders in it."""
    for path in (folder, folder / MEMBERS, folder / NODES, folder / BUNDLES, folder / "home"):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


class MemberFiles(Members):
    """``members/<federation>.json``: what the SuperLink asks who belongs to a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / MEMBERS

    async def write(self, federation: str, account: str, nodes: Collection[int]) -> None:
        """Set owner and nodes of a federation."""
        document = {"account": account, "nodes": sorted(nodes)}
        await asyncio.to_thread(_write, self._folder / f"{federation}.json", json.dumps(document).encode())


class BundleFiles(Bundles):
    """``bundles/<digest>.fab``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / BUNDLES

    async def put(self, digest: str, data: bytes) -> None:
        """Keep a bundle."""
        await asyncio.to_thread(_write, self._folder / f"{digest}.fab", data)

    async def get(self, digest: str) -> bytes:
        """Return a bundle; raises as `Bundles.get`."""
        try:
            data = await asyncio.to_thread((self._folder / f"{digest}.fab").read_bytes)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityFailure(
                "The app bundle of this run is missing or damaged at the hub.", reason="RECORD_DAMAGED"
            )
        return data


class NodeBook(Nodes):
    """``nodes/<site>.json``: which SuperNode a site registered last, and with which key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / NODES
        self._known: dict[str, tuple[int, str]] = {}

    def load(self) -> None:
        """Read what was written before; a damaged file counts as no node, the site then registers anew."""
        for path in self._folder.glob("*.json"):
            try:
                found: dict[str, Any] = json.loads(path.read_bytes())
                self._known[str(found["site"])] = (int(found["node"]), str(found["key"]))
            except (ValueError, KeyError, TypeError):
                continue

    def of(self, principal: str) -> int | None:
        """Return the node of a site, None before it registered one."""
        found = self._known.get(principal)
        return found[0] if found is not None else None

    def has_key(self, principal: str, public_key: bytes) -> bool:
        """Return whether the site registered its node with this key."""
        found = self._known.get(principal)
        return found is not None and found[1] == _digest(public_key)

    async def set(self, principal: str, node_id: int, public_key: bytes) -> None:
        """Remember the node of a site instead of the one before."""
        entry = (node_id, _digest(public_key))
        self._known[principal] = entry
        document = {"site": principal, "node": entry[0], "key": entry[1]}
        path = self._folder / f"{_digest(safe_token(principal).encode())[:40]}.json"
        await asyncio.to_thread(_write, path, json.dumps(document).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(path)
