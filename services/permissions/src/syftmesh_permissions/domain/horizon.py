"""When an answer may change without a change of rules: by an expiry, or by the date in a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from syftmesh_core.path import MeshPath
from syftmesh_core.permission.ruleset import Rule
from syftmesh_core.permission.tree import RuleFile, RuleTree

_MS_PER_DAY: Final = 86_400_000
_DATES: Final = (".Year", ".Month", ".Date")


class Horizon:
    """The next moments of change behind one moment; each rule file is looked through once.

    Args:
        now_ms: The moment, Unix milliseconds.
    """

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._found: dict[int, tuple[RuleFile, int | None]] = {}

    def next_ms(self, tree: RuleTree, path: MeshPath) -> int | None:
        """Return when an answer about `path` may be another one, None when no clock can change it.

        That is as soon as any rule expires of the file that governs the path, which governs itself too, so that
        it also says who may read it; and at midnight (UTC) where its patterns hold dates.
        """
        file = tree.governing(path.segments)
        return None if file is None else self._next(file)

    def _next(self, file: RuleFile) -> int | None:
        known = self._found.get(id(file))
        if known is None:
            # The file is kept beside, so that nothing else can come to have its identity.
            known = self._found[id(file)] = (file, self._next_of(file.rules.rules))
        return known[1]

    def _next_of(self, rules: Sequence[Rule]) -> int | None:
        moments = [rule.expires_ms for rule in rules if rule.expires_ms is not None]
        if any(_holds_date(rule.pattern.text) for rule in rules):
            moments.append((self._now_ms // _MS_PER_DAY + 1) * _MS_PER_DAY)
        return min((moment for moment in moments if moment > self._now_ms), default=None)


def _holds_date(pattern: str) -> bool:
    """Return whether a template of a date may stand in `pattern`; a yes too many costs one look at midnight."""
    return "{{" in pattern and any(date in pattern for date in _DATES)
