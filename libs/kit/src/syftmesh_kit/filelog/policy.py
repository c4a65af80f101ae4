"""Rules and groups of one datasite: those of now, those of earlier places of the log, and when they turn."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from typing import Final, NamedTuple

from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.ruleset import RuleSet
from syftmesh_core.permission.tree import NO_GROUPS, Directory, RuleTree

from syftmesh_kit.filelog.rule_source import CLOSED

ROOT: Final[Directory] = ()

_KEPT: Final = 64
_MS_PER_DAY: Final = 86_400_000
_DATES: Final = (".Year", ".Month", ".Date")


class PolicyAt(NamedTuple):
    """Rules and groups from one place of the log on.

    Attributes:
        sequence: Sequence of the record that made them so.
        tree: Rules and groups.
        directory: Below which directory rights may have changed, None where that is not known.
    """

    sequence: int
    tree: RuleTree
    directory: Directory | None


class SitePolicy:
    """What decides about the paths of one datasite.

    Args:
        site: Principal who owns it, normalised.

    Attributes:
        fence: Sequence of the newest `PolicyFence` of the datasite, 0 when there is none.
    """

    def __init__(self, site: str) -> None:
        self.fence = 0
        self._site = site
        self._rules = RuleTree(site)
        self._groups_lost = False
        self._history: list[PolicyAt] = [PolicyAt(0, self._rules, None)]
        self._ends: list[tuple[int, Directory]] = []
        self._dated: set[Directory] = set()

    @property
    def tree(self) -> RuleTree:
        """Rules and groups of now."""
        return self._history[-1].tree

    @property
    def changed_at(self) -> int:
        """Sequence of the newest change, 0 when there was none."""
        return self._history[-1].sequence

    @property
    def turns(self) -> bool:
        """Whether rights change by the clock alone, now or later."""
        return bool(self._ends or self._dated)

    def at(self, sequence: int) -> RuleTree | None:
        """Return rules and groups as they were at `sequence`, None where that is not known any more."""
        return next((past.tree for past in reversed(self._history) if past.sequence <= sequence), None)

    def changed_since(self, sequence: int) -> list[PolicyAt]:
        """Return the known changes behind `sequence`, oldest first."""
        return [past for past in self._history if past.sequence > sequence]

    def load(
        self, files: Iterable[tuple[Directory, RuleSet, int]], groups: Groups | None, sequence: int
    ) -> None:
        """Set everything at once, as it is at `sequence`; what was before is not known.

        `groups` as in `change_groups`.
        """
        known = list(files)
        self._ends.clear()
        self._dated.clear()
        for directory, rules, _ in known:
            self._note_turns(directory, rules)
        self._rules = RuleTree.build(self._site, known, groups or NO_GROUPS)
        self._groups_lost = groups is None
        self._history = [PolicyAt(sequence, self._effective(), None)]

    def change_rules(self, sequence: int, directory: Directory, rules: RuleSet | None, revision: int) -> None:
        """Set the rules of `directory`, None when its rule file is deleted."""
        self._ends = [end for end in self._ends if end[1] != directory]
        self._dated.discard(directory)
        if rules is None:
            self._rules = self._rules.without_rules(directory)
        else:
            self._rules = self._rules.with_rules(directory, rules, revision)
            self._note_turns(directory, rules)
        self._keep(sequence, directory)

    def change_groups(self, sequence: int, groups: Groups | None) -> None:
        """Set the owner's groups; None when their file is lost.

        A rule may deny a group, so that without its members too much would be granted: the whole datasite is
        shut to everybody but its owner then.
        """
        self._groups_lost = groups is None
        self._rules = self._rules.with_groups(groups or NO_GROUPS)
        self._keep(sequence, ROOT)

    def next_turn(self, after_ms: int) -> int | None:
        """Return the first moment behind `after_ms` at which a right changes by the clock alone, None if none.

        That is the end of a rule that `expires`, and midnight (UTC) where a pattern holds a date.
        """
        index = bisect_right(self._ends, after_ms, key=lambda end: end[0])
        moments = [self._ends[index][0]] if index < len(self._ends) else []
        if self._dated:
            moments.append((after_ms // _MS_PER_DAY + 1) * _MS_PER_DAY)
        return min(moments, default=None)

    def turned(self, after_ms: int, to_ms: int) -> set[Directory]:
        """Return below which directories rights may have changed by the clock, behind `after_ms` up to `to_ms`."""
        first = bisect_right(self._ends, after_ms, key=lambda end: end[0])
        last = bisect_right(self._ends, to_ms, key=lambda end: end[0])
        found = {directory for _, directory in self._ends[first:last]}
        return found | self._dated if after_ms // _MS_PER_DAY < to_ms // _MS_PER_DAY else found

    def _note_turns(self, directory: Directory, rules: RuleSet) -> None:
        for moment in {rule.expires_ms for rule in rules.rules if rule.expires_ms is not None}:
            insort(self._ends, (moment, directory))
        texts = (rule.pattern.text for rule in rules.rules)
        if any("{{" in text and any(date in text for date in _DATES) for text in texts):
            self._dated.add(directory)

    def _effective(self) -> RuleTree:
        return RuleTree(self._site).with_rules(ROOT, CLOSED, 0) if self._groups_lost else self._rules

    def _keep(self, sequence: int, directory: Directory) -> None:
        self._history.append(PolicyAt(sequence, self._effective(), directory))
        del self._history[:-_KEPT]
