"""A node whose datasites lie in memory; the file client's behaviour where rules and groups are concerned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from syftmesh_core.errors import Conflict, NotFound
from syftmesh_core.path import GROUPS_FILE, MeshPath, parse_path
from syftmesh_core.permission import RuleTree, parse_groups, parse_ruleset
from syftmesh_kit.testing import FakeClock


@dataclass
class MemoryFiles:
    """Files by path with their revisions.

    Attributes:
        content: Revision and bytes.
        before_write: Called before each write: what somebody else does meanwhile.
        resealed: Paths that were sealed anew.
    """

    content: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    before_write: Callable[[], None] | None = None
    resealed: list[str] = field(default_factory=list)

    @property
    def rules(self) -> Any:
        return SimpleNamespace(tree=self._tree)

    def put(self, path: str, text: str = "x") -> None:
        self.content[path] = (self.content.get(path, (0, b""))[0] + 1, text.encode())

    def text(self, path: str) -> str:
        return self.content[path][1].decode()

    async def read(self, path: str) -> Any:
        if path not in self.content:
            raise NotFound(f"There is no file {path}, or you may not read it.", reason="FILE_MISSING")
        revision, data = self.content[path]
        return SimpleNamespace(data=data, record=SimpleNamespace(revision=revision))

    async def write(self, path: str, data: bytes, *, expected_revision: int | None = None) -> Any:
        if self.before_write is not None:
            self.before_write()
        revision = self.content.get(path, (0, b""))[0]
        if expected_revision not in (None, revision):
            raise Conflict("Somebody wrote it.", reason="STALE_PREVIOUS")
        self.content[path] = (revision + 1, data)
        return SimpleNamespace(revision=revision + 1)

    async def stat(self, path: str) -> Any:
        return SimpleNamespace(path=path) if path in self.content else None

    async def list(self, prefix: str) -> Any:
        return [SimpleNamespace(path=path) for path in sorted(self.content) if path.startswith(f"{prefix}/")]

    async def reseal(self, path: str) -> None:
        self.resealed.append(path)

    async def _tree(self, path: MeshPath) -> RuleTree:
        """Return the rules of the directories above `path`, as the file client does."""
        found = []
        for name, (revision, data) in self.content.items():
            file = parse_path(name)
            if file.is_rules_file and path.segments[: len(file.segments) - 1] == file.parent.segments:
                found.append((file.parent.segments, parse_ruleset(data), revision))
        groups = self.content.get(f"{path.site}/{GROUPS_FILE}")
        return RuleTree.build(path.site, found, parse_groups(groups[1] if groups else b"").resolved)


def memory_node(principal: str, files: MemoryFiles, now_ms: int) -> Any:
    """Return a node of `principal` that works on `files`."""
    return SimpleNamespace(principal=principal, files=files, clock=FakeClock(now_ms=now_ms))
