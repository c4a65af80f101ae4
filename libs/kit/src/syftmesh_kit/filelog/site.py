"""What one datasite holds: records by path, files in path order, its policy, counts for limits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Final

from syftmesh_core.clock import to_datetime
from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import RuleKey, deciding_rule_key
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.ruleset import RuleSet
from syftmesh_core.permission.tree import Directory, RuleTree
from syftmesh_core.principal import ANONYMOUS

from syftmesh_kit.filelog.entry import LogEntry
from syftmesh_kit.filelog.policy import PolicyAt, SitePolicy

_KEPT_COUNTS: Final = 256
_FEW: Final = 64


class SiteIndex:
    """The index of one datasite.

    Args:
        site: Principal who owns it, normalised.

    Attributes:
        policy: Its rules and groups.
    """

    def __init__(self, site: str) -> None:
        self.site = site
        self.policy = SitePolicy(site)
        self._entries: dict[str, LogEntry] = {}
        self._live: list[str] = []
        self._added: list[str] = []
        self._objects: dict[str, set[str]] = {}
        self._counts: dict[RuleKey, tuple[int, int]] = {}

    @property
    def tree(self) -> RuleTree:
        """Rules and groups of now."""
        return self.policy.tree

    @property
    def rules_changed_at(self) -> int:
        """Sequence of the newest change of rules or groups, 0 when there was none."""
        return self.policy.changed_at

    @property
    def fence(self) -> int:
        """Sequence of the newest policy fence, 0 when there is none."""
        return self.policy.fence

    @property
    def live_count(self) -> int:
        """Number of live files."""
        return len(self._live) + len(self._added)

    def rules_at(self, sequence: int) -> RuleTree | None:
        """Return rules and groups as they were at `sequence`, None where that is not known any more."""
        return self.policy.at(sequence)

    def rules_changed_since(self, sequence: int) -> list[PolicyAt]:
        """Return the known changes of rules and groups behind `sequence`, oldest first."""
        return self.policy.changed_since(sequence)

    def find(self, path: str) -> LogEntry | None:
        """Return the newest record of `path`, a tombstone too."""
        return self._entries.get(path)

    def live(self, path: str) -> LogEntry | None:
        """Return the live file at `path`."""
        entry = self._entries.get(path)
        return entry if entry is not None and entry.is_live else None

    def below(self, prefix: str, *, after: str = "") -> Iterator[LogEntry]:
        """Iterate over the live files below the directory `prefix` in path order, those behind `after` only.

        The order is that of code points. The index must not change meanwhile.
        """
        self._sort()
        start = bisect_left(self._live, f"{prefix}/")
        if after:
            start = max(start, bisect_right(self._live, after))
        end = bisect_left(self._live, f"{prefix}0")  # "0" is the character behind "/"
        for index in range(start, end):
            yield self._entries[self._live[index]]

    def named_by(self, object_id: str) -> list[LogEntry]:
        """Return the live files whose content is the object `object_id`."""
        return [self._entries[path] for path in self._objects.get(object_id, ())]

    def collision(self, path: MeshPath) -> str:
        """Return a live file above or below `path` that makes it impossible, empty when there is none."""
        for depth in range(1, len(path.segments)):
            above = str(MeshPath(path.site, path.segments[:depth]))
            if self.live(above) is not None:
                return above
        return next((entry.text for entry in self.below(str(path))), "")

    def count(self, key: RuleKey, now_ms: int, *, excluding: str = "") -> int:
        """Return how many live files, `excluding` not counted, have `key` towards `maxFiles`.

        Counted once per key and day (templates of dates decide by the day), then kept current.
        """
        day = to_datetime(now_ms).toordinal()
        known = self._counts.get(key)
        if known is None or known[0] != day:
            prefix = "/".join((self.site, *key.directory))
            total = sum(self._has_key(entry.path, key, now_ms) for entry in self.below(prefix))
            if len(self._counts) >= _KEPT_COUNTS:
                self._counts.pop(next(iter(self._counts)))
            self._counts[key] = known = (day, total)
        entry = self.live(excluding)
        return known[1] - (entry is not None and self._has_key(entry.path, key, now_ms))

    def put(self, entry: LogEntry) -> LogEntry:
        """Take in a newer record of a path, its rules excepted, and return it with its life's beginning."""
        old = self._entries.get(entry.text)
        if old is not None and (old.is_live or not entry.is_live):
            entry = entry.living_since(old.live_since)
        elif entry.is_live and old is not None:
            entry = entry.living_since(entry.sequence)
        self._entries[entry.text] = entry
        was_live = old is not None and old.is_live
        if was_live and old is not None:
            self._forget_object(old)
        if entry.is_live:
            self._objects.setdefault(entry.object_id, set()).add(entry.text)
        if entry.is_live and not was_live:
            self._added.append(entry.text)
        elif was_live and not entry.is_live:
            self._sort()
            del self._live[bisect_left(self._live, entry.text)]
        if entry.is_live != was_live:
            # A count is cheap to take again, and one that is wrong by one would let a limit be passed.
            for key in [k for k in self._counts if self._is_below(entry.path, k.directory)]:
                del self._counts[key]
        return entry

    def load_policy(
        self, files: Iterable[tuple[Directory, RuleSet, int]], groups: Groups | None, sequence: int
    ) -> None:
        """Set rules and groups at once; see `SitePolicy.load`."""
        self.policy.load(files, groups, sequence)
        self._counts.clear()

    def change_rules(self, entry: LogEntry, rules: RuleSet | None) -> None:
        """Set the rules of the rule file of `entry`, None when it is deleted."""
        self.policy.change_rules(entry.sequence, entry.path.parent.segments, rules, entry.revision)
        self._counts.clear()

    def change_groups(self, entry: LogEntry, groups: Groups | None) -> None:
        """Set the groups that the groups file of `entry` says; see `SitePolicy.change_groups`."""
        self.policy.change_groups(entry.sequence, groups)
        self._counts.clear()

    def _sort(self) -> None:
        """Bring the files added since the last look into their places: few one by one, many by one sort."""
        if len(self._added) > _FEW:
            self._live.extend(self._added)
            self._live.sort()
        else:
            for path in self._added:
                insort(self._live, path)
        self._added.clear()

    def _forget_object(self, entry: LogEntry) -> None:
        paths = self._objects.get(entry.object_id, set())
        paths.discard(entry.text)
        if not paths:
            self._objects.pop(entry.object_id, None)

    def _has_key(self, path: MeshPath, key: RuleKey, now_ms: int) -> bool:
        return deciding_rule_key(self.tree, path, key.principal or ANONYMOUS, now_ms) == key

    @staticmethod
    def _is_below(path: MeshPath, directory: Directory) -> bool:
        return path.segments[: len(directory)] == directory
