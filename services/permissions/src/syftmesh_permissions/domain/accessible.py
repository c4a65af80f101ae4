"""Use case: walk over the live files that the caller may read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from syftmesh_core.clock import Clock
from syftmesh_core.path import MAX_SEGMENT_BYTES, MeshPath, parse_path
from syftmesh_core.permission.tree import RuleTree

from syftmesh_permissions.domain.consistency import Model, Token
from syftmesh_permissions.domain.cursor import decode_cursor, encode_cursor
from syftmesh_permissions.domain.hope import Hope
from syftmesh_permissions.domain.inquiry import Rules
from syftmesh_permissions.domain.pace import Pace
from syftmesh_permissions.domain.sight import may_read

PAGE_PATHS: Final = 500
PAGE_CHARACTERS: Final = 128 * 1024
PAGE_S: Final = 0.5
"""A page that is not full waits no longer for more."""

FEW_RULE_FILES: Final = 64
"""So many rule files are looked through before the files; more only after that many files in vain."""

_STEP: Final = 32
_BEHIND_ALL: Final = "\U0010ffff" * (MAX_SEGMENT_BYTES // 4 + 1)
"""Sorts behind every name that a directory can hold."""


class File(Protocol):
    """A live file."""

    @property
    def text(self) -> str:
        """The path as text."""
        ...

    @property
    def path(self) -> MeshPath:
        """Where it is."""
        ...


class Files(Protocol):
    """The live files of now."""

    def sites(self) -> Sequence[str]:
        """Return the owners of all datasites that hold a record."""
        ...

    def below(self, directory: str, after: str) -> Iterable[File]:
        """Iterate over the files below `directory` in path order, those behind `after` only.

        Not to be held while others work: the files may change then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the walk.

    Attributes:
        paths: Files that may be read, in order.
        cursor: Resumes behind the last of them.
        token: The point of the log that they were found at, or later ones.
    """

    paths: list[str]
    cursor: str
    token: Token


class ListAccessible:
    """Walks.

    Args:
        rules: The rules of now.
        files: The files of now.
        model: How fresh answers are.
        clock: Time.
    """

    def __init__(self, rules: Rules, files: Files, model: Model, clock: Clock) -> None:
        self._rules = rules
        self._files = files
        self._model = model
        self._clock = clock

    async def run(self, caller: str, prefix: str, cursor: str) -> AsyncIterator[Page]:
        """Iterate over pages of the live files below `prefix` (empty: everywhere) that `caller` may read.

        Sites come in the order of their owners, files in that of their paths. Files and rules are those of the
        moment at which the walk reaches a place. Other work gets its turn meanwhile.

        Raises:
            InvalidInput: PATH_INVALID; (PAGE_INVALID) the cursor is of another walk.
            Unavailable: The rules are not known now.
        """
        directory = str(parse_path(prefix, drop_trailing_slash=True)) if prefix else ""
        behind = decode_cursor(caller, directory, cursor) if cursor else None
        first = directory.partition("/")[0]
        sites = [first] if first else sorted(self._files.sites())
        page, pace = _Pages(self._model, self._clock, caller, directory), Pace(self._clock)
        for site in sites:
            if behind is not None and site < behind.site:
                continue
            after = str(behind) if behind is not None and site == behind.site else ""
            walk = _SiteWalk(self._rules, self._files, self._clock, caller, directory or site)
            async for paths in walk.run(after, pace):
                for found in page.add(paths):
                    yield found
            if pace.is_due:
                await pace.rest()
        for found in page.rest():
            yield found


class _SiteWalk:
    """The walk through one datasite."""

    def __init__(self, rules: Rules, files: Files, clock: Clock, reader: str, directory: str) -> None:
        self._rules = rules
        self._files = files
        self._clock = clock
        self._reader = reader
        self._directory = directory
        self._site = directory.partition("/")[0]
        self._hope: Hope | None = None
        self._in_vain = 0

    async def run(self, after: str, pace: Pace) -> AsyncIterator[list[str]]:
        """Iterate over the readable files behind `after`, in pieces between which other work had its turn."""
        while True:
            tree = self._rules.tree(self._site)
            if self._wants_hope(tree):
                self._hope = await Hope.find(tree, self._reader, self._clock.now_ms(), pace)
                tree = self._rules.tree(self._site)  # another one by now, maybe: then this stretch is plain
            paths, after, ended = self._stretch(tree, self._clock.now_ms(), after, pace)
            yield paths
            if ended:
                return
            await pace.rest()

    def _wants_hope(self, tree: RuleTree) -> bool:
        """Return whether it pays to look through the rules: when they are few, or much was in vain."""
        if self._reader == self._site or (self._hope is not None and self._hope.tree is tree):
            return False
        if self._in_vain >= FEW_RULE_FILES:
            return True
        return sum(1 for _ in islice(tree, FEW_RULE_FILES + 1)) <= FEW_RULE_FILES

    def _stretch(self, tree: RuleTree, now_ms: int, after: str, pace: Pace) -> tuple[list[str], str, bool]:
        """Return readable files behind `after`, the last place looked at, and whether that is the end."""
        hope = self._hope if self._hope is not None and self._hope.tree is tree else None
        paths: list[str] = []
        if hope is not None and hope.is_none:
            return paths, after, True
        for number, file in enumerate(self._files.below(self._directory, after), start=1):
            after = file.text
            if may_read(tree, self._reader, file.path, now_ms):
                paths.append(after)
            else:
                self._in_vain += 1
                hopeless = hope.hopeless(file.path.segments) if hope is not None else None
                if hopeless is not None:
                    return paths, "/".join((self._site, *hopeless, _BEHIND_ALL)), False
                if hope is None and self._in_vain == FEW_RULE_FILES:
                    return paths, after, False
            if len(paths) >= PAGE_PATHS or (number % _STEP == 0 and pace.is_due):
                return paths, after, False
        return paths, after, True


class _Pages:
    """Makes pages of what is found."""

    def __init__(self, model: Model, clock: Clock, caller: str, prefix: str) -> None:
        self._model = model
        self._clock = clock
        self._caller = caller
        self._prefix = prefix
        self._paths: list[str] = []
        self._characters = 0
        self._token = model.token()
        self._since_s = clock.monotonic_s()

    def add(self, paths: Sequence[str]) -> Iterable[Page]:
        """Take in `paths`, found just now, and give the pages that are full or have waited."""
        token, now_s = self._model.token(), self._clock.monotonic_s()
        for path in paths:
            if not self._paths:
                self._token, self._since_s = token, now_s
            self._paths.append(path)
            self._characters += len(path)
            if len(self._paths) >= PAGE_PATHS or self._characters >= PAGE_CHARACTERS:
                yield from self.rest()
        if self._paths and self._clock.monotonic_s() - self._since_s >= PAGE_S:
            yield from self.rest()

    def rest(self) -> Iterable[Page]:
        """Give what is left, if anything."""
        if self._paths:
            cursor = encode_cursor(self._caller, self._prefix, self._paths[-1])
            yield Page(self._paths, cursor, self._token)
            self._paths, self._characters = [], 0
