"""Rules, groups and live files of a place in a datasite, verified: what a change is worked out on."""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_client.files import FileClient
from syftmesh_core.errors import NotFound
from syftmesh_core.parallel import in_parallel
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.ruleset import RuleSet
from syftmesh_core.permission.tree import RuleTree

from syftmesh.reach import MAX_FILES

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds at a directory and below.

    Attributes:
        tree: Rule files above the directory, in it and below, and the owner's groups.
        files: Live files below, rule files and the file of groups apart.
        left_out: How many more files there are than were looked at.
    """

    tree: RuleTree
    files: tuple[MeshPath, ...]
    left_out: int


async def load_policy(files: FileClient, directory: MeshPath) -> Policy:
    """Return what holds at `directory`.

    Raises:
        IntegrityFailure: RULES_UNTRUSTED, RULES_WITHHELD, and those of records and objects.
        Unavailable: Hub or store cannot be asked.
    """
    tree = await files.rules.tree(directory.child("file"))
    paths = [parse_path(view.path) for view in await files.list(str(directory))]
    rule_files = [path for path in paths if path.is_rules_file and path.parent != directory]
    found = await in_parallel([_rules(files, path) for path in rule_files], at_once=_AT_ONCE)
    for path, rules in zip(rule_files, found, strict=True):
        if rules is not None:
            tree = tree.with_rules(path.parent.segments, *rules)
    live = [path for path in paths if not path.is_policy_file]
    return Policy(tree, tuple(live[:MAX_FILES]), max(0, len(live) - MAX_FILES))


async def read_policy_file(files: FileClient, path: MeshPath) -> tuple[bytes, int]:
    """Return content and revision of a rule file or the file of groups; nothing and 0 when there is none.

    Raises:
        MeshError: As `FileClient.read`, NotFound apart.
    """
    try:
        found = await files.read(str(path))
    except NotFound:
        return b"", 0
    return found.data, found.record.revision


async def _rules(files: FileClient, path: MeshPath) -> tuple[RuleSet, int] | None:
    data, revision = await read_policy_file(files, path)
    return (parse_ruleset(data), revision) if revision else None


def unified_diff(before: bytes, after: bytes, path: MeshPath) -> str:
    """Return the difference of two versions of the file `path`; empty when there is none."""
    from difflib import unified_diff as difference

    lines = difference(_lines(before), _lines(after), fromfile=str(path), tofile=str(path), n=3)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(data: bytes) -> list[str]:
    *whole, rest = data.decode().split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])
