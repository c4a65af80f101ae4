"""What changed for one reader between two places of the log, rights gained and lost included.

A right is lost by a record, of rules or groups, or by the clock: a place of the log alone does not say what a
reader could read there, so the moment at which it was there counts too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from syftmesh_core.errors import WrongState
from syftmesh_core.path import GROUPS_FILE, MeshPath
from syftmesh_core.permission.right import may_read
from syftmesh_core.permission.tree import Directory, RuleTree

from syftmesh_kit.filelog.entry import LogEntry
from syftmesh_kit.filelog.model import FileLog
from syftmesh_kit.filelog.position import LogPosition
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
        sequence: Where in the log it happened: place of the record, or of the rules or groups that changed the
            right; of a right that the clock changed the newest place.
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
        return may_read(tree, self.requester, path, now_ms)

    def wants(self, path: str) -> bool:
        """Return whether `path` lies within the prefixes."""
        if not self.prefixes:
            return True
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self.prefixes)

    def is_judged_in(self, site: SiteIndex) -> bool:
        """Return whether rules decide for the reader in `site`: it wants paths there and is not the owner."""
        if site.site == self.requester:
            return False
        return not self.prefixes or any(p.partition("/")[0] == site.site for p in self.prefixes)


async def changes_since(
    log: FileLog, reader: FeedReader, since: int, now_ms: int, seen_ms: int = 0
) -> tuple[list[Change], LogPosition]:
    """Return what changed for `reader` behind the sequence `since`, in log order, and the place it leads to.

    With `since` 0 that is everything live that may be read. A record that was replaced meanwhile is left out:
    the newest state of each path is what counts.

    Args:
        log: The read model.
        reader: Who reads.
        since: Last sequence that the reader has seen.
        now_ms: Moment of the decisions, Unix milliseconds.
        seen_ms: Moment up to which the reader has been told what the clock takes; 0 where it does not say. It is
            not believed to lie before the log was at `since`.

    Raises:
        WrongState: (CURSOR_EXPIRED) the rules at `since` are not known any more, so nobody can tell what was
            lost.
    """
    to = log.position
    seen_ms = min(max(seen_ms, log.earliest_ms(since)), now_ms)
    newer = _everything(log, reader) if since == 0 else log.newer_than(since)
    before = {} if since == 0 else _trees_before(log, reader, since)
    trees: dict[str, RuleTree] = {site.site: site.tree for site in log.sites()}
    regraded: dict[str, tuple[LogEntry, int]] = {}
    if since:
        regraded = _turned(log, reader, since, seen_ms, now_ms) | _regraded(log, reader, since)
    found: list[Change] = []
    for number, (entry, sequence) in enumerate([*((e, e.sequence) for e in newer), *regraded.values()]):
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)
        if not reader.wants(entry.text) or entry.sequence > to.sequence:
            continue
        now = reader.may_read(trees[entry.path.site], entry.path, now_ms)
        had = _had(reader, before, trees, entry, since, seen_ms)
        if kind := _kind(entry, since, had=had, now=now):
            found.append(Change(kind, entry, sequence))
    found.sort(key=lambda change: change.sequence)
    return found, to


def next_turn(log: FileLog, reader: FeedReader, after_ms: int) -> int | None:
    """Return the first moment behind `after_ms` at which the clock may change what `reader` may read."""
    moments = (site.policy.next_turn(after_ms) for site in log.turning_sites() if reader.is_judged_in(site))
    return min((moment for moment in moments if moment is not None), default=None)


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
        if not reader.is_judged_in(site):
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


def _regraded(log: FileLog, reader: FeedReader, since: int) -> dict[str, tuple[LogEntry, int]]:
    """Return the files that lie where rules or groups changed, unchanged themselves, and the place of that change."""
    found: dict[str, tuple[LogEntry, int]] = {}
    for site in log.sites_with_rules_newer_than(since):
        if reader.is_judged_in(site):
            for change in site.rules_changed_since(since):
                affected = _below(site, [change.directory or ()])
                found |= {e.text: (e, change.sequence) for e in affected if e.sequence <= since}
    return found


def _turned(
    log: FileLog, reader: FeedReader, since: int, seen_ms: int, now_ms: int
) -> dict[str, tuple[LogEntry, int]]:
    """Return the files that lie where the clock may have changed a right, unchanged themselves."""
    found: dict[str, tuple[LogEntry, int]] = {}
    for site in log.turning_sites():
        directories = site.policy.turned(seen_ms, now_ms) if reader.is_judged_in(site) else ()
        affected = _below(site, directories)
        found |= {e.text: (e, log.position.sequence) for e in affected if e.sequence <= since}
    return found


def _below(site: SiteIndex, directories: Iterable[Directory]) -> list[LogEntry]:
    """Return the live files below `directories`, and the groups file, which every rule of the datasite bears on."""
    found: list[LogEntry] = []
    for directory in directories:
        found += site.below("/".join((site.site, *directory)))
        groups = site.live(f"{site.site}/{GROUPS_FILE}")
        found += [groups] if groups is not None else []
    return found


def _had(
    reader: FeedReader,
    before: Mapping[str, RuleTree],
    trees: Mapping[str, RuleTree],
    entry: LogEntry,
    since: int,
    seen_ms: int,
) -> bool:
    """Return whether the reader can have known the path at `since`, which it reached at `seen_ms`."""
    if since == 0 or entry.live_since > since:
        return False
    site = entry.path.site
    if entry.sequence <= since:
        seen_ms = max(seen_ms, entry.stored_ms)  # `since` is no older than what lies before it
    return reader.may_read(before.get(site, trees[site]), entry.path, seen_ms)


def _kind(entry: LogEntry, since: int, *, had: bool, now: bool) -> ChangeKind | None:
    if now and entry.is_live:
        return None if had and entry.sequence <= since else ChangeKind.UPDATED
    if now and since:
        return ChangeKind.DELETED
    return ChangeKind.ACCESS_LOST if had else None
