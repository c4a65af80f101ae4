"""What changed for one reader between two places of the log, rights gained and lost included."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from syftmesh_core.errors import WrongState
from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import Question, decide
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleTree

from syftmesh_kit.filelog.entry import LogEntry
from syftmesh_kit.filelog.model import FileLog, LogPosition
from syftmesh_kit.filelog.site import SiteIndex

_SLICE: Final = 256
"""Decisions between two chances for other work of the same thread."""


class ChangeKind(Enum):
    """What a change is to the reader."""

    UPDATED = "updated"
    DELETED = "deleted"
    ACCESS_LOST = "access_lost"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the feed.

    Attributes:
        kind: What happened.
        entry: The newest record; of ACCESS_LOST the reader may know the path only.
        sequence: Where in the log it happened: place of the record, or of the rules that changed the right.
    """

    kind: ChangeKind
    entry: LogEntry
    sequence: int


@dataclass(frozen=True, slots=True)
class FeedReader:
    """Who reads.

    Attributes:
        requester: As `parse_requester` gives it.
        prefixes: Canonical paths; only what is below one of them, or one of them, counts. Empty for all.
    """

    requester: str
    prefixes: tuple[str, ...] = ()

    def may_read(self, tree: RuleTree, path: MeshPath, now_ms: int) -> bool:
        """Return whether the reader may read `path` under the rules `tree`."""
        if path.site == self.requester:
            return True
        return decide(tree, Question(self.requester, path, Level.READ, now_ms)).allowed

    def wants(self, path: str) -> bool:
        """Return whether `path` lies within the prefixes."""
        if not self.prefixes:
            return True
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self.prefixes)


async def changes_since(
    log: FileLog, reader: FeedReader, since: int, now_ms: int
) -> tuple[list[Change], LogPosition]:
    """Return what changed for `reader` behind the sequence `since`, in log order, and the place it leads to.

    With `since` 0 that is everything live that may be read. A record that was replaced meanwhile is left out:
    the newest state of each path is what counts.

    Raises:
        WrongState: (CURSOR_EXPIRED) the rules at `since` are not known any more, so nobody can tell what was
            lost.
    """
    to = log.position
    newer = _everything(log, reader) if since == 0 else log.newer_than(since)
    before = {} if since == 0 else _trees_before(log, reader, since)
    trees: dict[str, RuleTree] = {site.site: site.tree for site in log.sites()}
    regraded = [] if since == 0 else _regraded(log, reader, since)
    found: list[Change] = []
    for number, (entry, sequence) in enumerate([*((e, e.sequence) for e in newer), *regraded]):
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)
        if not reader.wants(entry.text) or entry.sequence > to.sequence:
            continue
        now = reader.may_read(trees[entry.path.site], entry.path, now_ms)
        had = _had(reader, before, trees, entry, since, now_ms)
        if kind := _kind(entry, since, had=had, now=now):
            found.append(Change(kind, entry, sequence))
    found.sort(key=lambda change: change.sequence)
    return found, to


def _everything(log: FileLog, reader: FeedReader) -> list[LogEntry]:
    if not reader.prefixes:
        return log.newer_than(0)
    found: dict[str, LogEntry] = {}
    for prefix in reader.prefixes:
        site = log.site(prefix.partition("/")[0])
        at = site.live(prefix)
        found.update((entry.text, entry) for entry in ([at] if at else []))
        found.update((entry.text, entry) for entry in site.below(prefix))
    return list(found.values())


def _trees_before(log: FileLog, reader: FeedReader, since: int) -> Mapping[str, RuleTree]:
    before = {}
    for site in log.sites_with_rules_newer_than(since):
        if site.site == reader.requester or not _touches(site, reader):
            continue
        tree = site.rules_at(since)
        if tree is None:
            raise WrongState(
                "The rules at this cursor are not known any more: list once, then watch from the new cursor.",
                reason="CURSOR_EXPIRED",
                metadata={"sequence": str(since)},
            )
        before[site.site] = tree
    return before


def _touches(site: SiteIndex, reader: FeedReader) -> bool:
    return not reader.prefixes or any(p.partition("/")[0] == site.site for p in reader.prefixes)


def _regraded(log: FileLog, reader: FeedReader, since: int) -> list[tuple[LogEntry, int]]:
    """Return the files that lie where rules changed, unchanged themselves, and the place of that change."""
    found: dict[str, tuple[LogEntry, int]] = {}
    for site in log.sites_with_rules_newer_than(since):
        if site.site == reader.requester or not _touches(site, reader):
            continue
        for change in site.rules_changed_since(since):
            prefix = "/".join((site.site, *(change.directory or ())))
            for entry in site.below(prefix):
                if entry.sequence <= since:
                    found[entry.text] = (entry, change.sequence)
    return list(found.values())


def _had(
    reader: FeedReader,
    before: Mapping[str, RuleTree],
    trees: Mapping[str, RuleTree],
    entry: LogEntry,
    since: int,
    now_ms: int,
) -> bool:
    """Return whether the reader can have known the path at `since`."""
    if since == 0 or entry.live_since > since:
        return False
    site = entry.path.site
    return reader.may_read(before.get(site, trees[site]), entry.path, now_ms)


def _kind(entry: LogEntry, since: int, *, had: bool, now: bool) -> ChangeKind | None:
    if now and entry.is_live:
        return None if had and entry.sequence <= since else ChangeKind.UPDATED
    if now and since:
        return ChangeKind.DELETED
    return ChangeKind.ACCESS_LOST if had else None
