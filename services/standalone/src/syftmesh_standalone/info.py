"""``hub/mesh.json``: what runs on a state, for the programs beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from syftmesh_client.profile import MESH_FILE, ProfileStore
from syftmesh_core.errors import MeshError
from syftmesh_kit.private_file import replace_private

_LAST_SERVER_FILE: Final = "server"


@dataclass(frozen=True, slots=True)
class MeshInfo:
    """A mesh that runs.

    Attributes:
        server: The hub's address.
        grpc: The address of its services.
        pid: The process that everything belongs to.
        version: Version of the product.
        processes: Whether each service has a process of its own.
        sites: E-mails of the sites.
        children: Process id by name of the child processes, 0 while one is being started again.
        started_at: When it became ready, RFC 3339.
    """

    server: str
    grpc: str
    pid: int
    version: str
    processes: bool
    sites: tuple[str, ...]
    children: Mapping[str, int] = field(default_factory=dict)
    started_at: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {**asdict(self), "sites": list(self.sites), "children": dict(self.children)}

    @classmethod
    def of_document(cls, found: Mapping[str, Any]) -> MeshInfo:
        """Return what a document says.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        return cls(
            server=str(found["server"]),
            grpc=str(found["grpc"]),
            pid=int(found["pid"]),
            version=str(found["version"]),
            processes=bool(found["processes"]),
            sites=tuple(map(str, found["sites"])),
            children={str(name): int(pid) for name, pid in found["children"].items()},
            started_at=str(found["started_at"]),
        )


def write_info(hub: Path, info: MeshInfo) -> None:
    """Write it for others, 0600, in one step."""
    replace_private(hub / MESH_FILE, json.dumps(info.document(), indent=1).encode())


def read_info(hub: Path) -> MeshInfo | None:
    """Return what was written last, None without anything that can be read."""
    try:
        return MeshInfo.of_document(json.loads((hub / MESH_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_info(hub: Path) -> None:
    """Remove it: nothing runs (any more)."""
    (hub / MESH_FILE).unlink(missing_ok=True)


def move_profiles(state: Path, hub: Path, server: str) -> None:
    """Let the profiles of this mesh find it under its address of today, which ports may have changed."""
    try:
        last = (hub / _LAST_SERVER_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        last = ""
    if last == server:
        return
    store = ProfileStore(state)
    for profile in store.list():
        if last and profile.server.rstrip("/") == last:
            try:
                store.save(profile.email, server)
            except MeshError:
                continue  # the profile's own commands say what is wrong with it
    replace_private(hub / _LAST_SERVER_FILE, f"{server}\n".encode())
