"""Writing files again, so that those open them who may read them now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from syftmesh_client.files import FileClient
from syftmesh_core.errors import Unimplemented
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.engine import Deciding, find_deciding
from syftmesh_core.permission.reader import ReaderKind, readers_of
from syftmesh_core.permission.tree import RuleTree

from syftmesh.reach import Reach


def changed_files(found: Reach) -> list[str]:
    """Return the live files whose readers a change changes."""
    return sorted({*found.gained, *found.lost})


def decidings(
    tree: RuleTree, paths: Iterable[MeshPath], now_ms: int
) -> Iterator[tuple[MeshPath, Deciding | None]]:
    """Iterate over live files and what decides about each."""
    return ((path, find_deciding(tree, path, now_ms)) for path in paths)


def check_sealable(tree: RuleTree, paths: Iterable[str], now_ms: int) -> None:
    """Refuse to seal for readers who are not all known by name, before anything is written.

    Raises:
        Unimplemented: OPEN_READERS.
    """
    for path in paths:
        readers = readers_of(tree, parse_path(path), now_ms)
        if readers.kind is ReaderKind.OPEN:
            raise Unimplemented(
                f"{path} cannot be sealed for readers who are not known by name. {readers.why}",
                reason="OPEN_READERS",
                metadata={"path": path},
                hint="Name the readers, or leave --reseal away.",
            )


async def reseal(files: FileClient, paths: Sequence[str]) -> tuple[str, ...]:
    """Write `paths` again with the same content and return them; raises as `FileClient.reseal`."""
    for path in paths:
        await files.reseal(path)
    return tuple(paths)


def reseal_notes(found: Reach, left_out: int) -> Iterator[str]:
    """Iterate over what somebody should know who changes readers."""
    if count := len(changed_files(found)):
        yield (
            f"{count} live file{'' if count == 1 else 's'} changed readers: who gains one opens it from its next"
            " version on, and who loses one keeps what they have; --reseal writes them again now."
        )
    if left_out:
        yield f"{left_out} more files were not looked at."
