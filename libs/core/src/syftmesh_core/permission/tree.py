"""The rule files of one datasite as an immutable snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from syftmesh_core.path import RULES_FILE
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.ruleset import Rule, RuleSet

Directory = tuple[str, ...]
"""Segments of a directory below the datasite's root; empty for the root."""


class RuleRef(NamedTuple):
    """Where a rule stands.

    Attributes:
        file: Path of the rule file.
        line: Line at which the rule begins, from 1; 0 when the file as a whole is meant.
        pattern: The rule's pattern, empty when the file as a whole is meant.
    """

    file: str
    line: int
    pattern: str


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule file in its place.

    Attributes:
        path: Path of the file as text.
        rules: What it says.
        revision: Revision of the file in the datasite's log.
        depth: Number of segments of the directory it lies in.
    """

    path: str
    rules: RuleSet
    revision: int
    depth: int

    @property
    def directory(self) -> Directory:
        """The directory it lies in; made anew, for text is smaller than segments."""
        return tuple(self.path.split("/")[1:-1])

    def ref(self, rule: Rule | None) -> RuleRef:
        """Return the place of `rule`, or of the whole file."""
        return RuleRef(self.path, rule.line, rule.pattern.text) if rule else RuleRef(self.path, 0, "")


@dataclass(frozen=True, slots=True)
class _Directory:
    file: RuleFile | None
    children: Mapping[str, _Directory]


_NO_CHILDREN: Final[Mapping[str, _Directory]] = {}
_EMPTY: Final = _Directory(None, _NO_CHILDREN)

NO_GROUPS: Final[Groups] = MappingProxyType({})


class RuleTree:
    """All rule files and groups of the datasite of `site`; a change gives a new tree that shares what did not change.

    Args:
        site: Principal who owns the datasite, normalised.

    Attributes:
        site: The same.
        groups: The owner's groups, nested ones resolved.
    """

    __slots__ = ("_root", "groups", "site")

    def __init__(self, site: str) -> None:
        self.site = site
        self.groups: Groups = NO_GROUPS
        self._root = _EMPTY

    @classmethod
    def build(
        cls, site: str, files: Iterable[tuple[Directory, RuleSet, int]], groups: Groups = NO_GROUPS
    ) -> RuleTree:
        """Return the tree of many files at once (directory, rules, revision of each), as after a restart."""
        held = {
            directory: RuleFile(_path(site, directory), rules, revision, len(directory))
            for directory, rules, revision in files
        }
        children: dict[Directory, dict[str, _Directory]] = {}
        directories = {directory[:depth] for directory in held for depth in range(len(directory) + 1)}
        for directory in sorted(directories, key=len, reverse=True):
            node = _Directory(held.get(directory), children.get(directory, _NO_CHILDREN))
            if directory:
                children.setdefault(directory[:-1], {})[directory[-1]] = node
            else:
                return cls._of(site, node, groups)
        return cls._of(site, _EMPTY, groups)

    @classmethod
    def _of(cls, site: str, root: _Directory, groups: Groups) -> RuleTree:
        tree = cls(site)
        tree._root = root
        tree.groups = groups
        return tree

    def with_groups(self, groups: Groups) -> RuleTree:
        """Return the tree with these groups instead of any before; resolved, as `group.GroupList.resolved`."""
        return self._of(self.site, self._root, groups)

    def with_rules(self, directory: Directory, ruleset: RuleSet, revision: int) -> RuleTree:
        """Return the tree in which `ruleset` governs `directory`, instead of any file there before."""
        file = RuleFile(_path(self.site, directory), ruleset, revision, len(directory))
        return self._of(self.site, _replaced(self._root, directory, 0, file) or _EMPTY, self.groups)

    def without_rules(self, directory: Directory) -> RuleTree:
        """Return the tree without a rule file in `directory`; the same tree when there is none."""
        if self.rules_in(directory) is None:
            return self
        return self._of(self.site, _replaced(self._root, directory, 0, None) or _EMPTY, self.groups)

    def rules_in(self, directory: Directory) -> RuleFile | None:
        """Return the rule file that lies in `directory` itself."""
        node: _Directory | None = self._root
        for name in directory:
            node = node.children.get(name) if node else None
        return node.file if node else None

    def governing(self, segments: Directory) -> RuleFile | None:
        """Return the file that governs the path `segments` below the root: one of a directory above it.

        The deepest one, unless a higher one is terminal. Time in proportion to the depth.
        """
        if not segments:
            return None
        node = self._root
        governing = node.file
        for name in segments[:-1]:
            below = node.children.get(name)
            if below is None or (governing is not None and governing.rules.terminal):
                break
            node = below
            if node.file is not None:
                governing = node.file
        return governing

    def __iter__(self) -> Iterator[RuleFile]:
        """Iterate over all rule files, a directory before those in it."""
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node.file is not None:
                yield node.file
            waiting.extend(node.children.values())


def _path(site: str, directory: Directory) -> str:
    return "/".join((site, *directory, RULES_FILE))


def _replaced(node: _Directory, directory: Directory, depth: int, file: RuleFile | None) -> _Directory | None:
    """Return `node` with the file of `directory` set or taken away, None when nothing is left of it."""
    if depth == len(directory):
        changed = _Directory(file, node.children)
    else:
        name = directory[depth]
        child = _replaced(node.children.get(name, _EMPTY), directory, depth + 1, file)
        children = dict(node.children)
        if child is None:
            children.pop(name, None)
        else:
            children[name] = child
        changed = _Directory(node.file, children)
    return changed if changed.file is not None or changed.children else None
