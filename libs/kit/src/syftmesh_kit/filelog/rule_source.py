"""Where the read model gets the content of rule files and groups files from."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from syftmesh_core.errors import InvalidInput, NotFound
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.ruleset import RuleSet

from syftmesh_kit.filelog.entry import LogEntry, object_key

CLOSED: Final = RuleSet(terminal=True)
"""What stands for a rule file whose content is lost: nobody but the owner, here and further down."""

T = TypeVar("T")

_log: Any = structlog.get_logger("syftmesh.filelog")


class RuleSource(Protocol):
    """Gives what a live rule file or groups file says."""

    async def rules(self, entry: LogEntry) -> RuleSet:
        """Return what the rule file of `entry` says.

        Raises:
            Unavailable: It cannot be had now; asked again, it may.
        """
        ...

    async def groups(self, entry: LogEntry) -> Groups | None:
        """Return the groups in the groups file of `entry`, nested ones resolved; None when it is lost.

        Raises:
            Unavailable: It cannot be had now; asked again, it may.
        """
        ...


class ObjectReader(Protocol):
    """The part of an object store that is needed here."""

    async def get(self, key: str) -> bytes:
        """Return the object's bytes.

        Raises:
            NotFound: There is none.
            Unavailable: The store does not answer.
        """
        ...


class StoredRules:
    """Rule files and groups files out of the object store; what was parsed last is remembered by digest.

    Args:
        store: The object store.
        max_cached: Files of either kind remembered.
    """

    def __init__(self, store: ObjectReader, *, max_cached: int = 512) -> None:
        self._store = store
        self._rules: _Memory[RuleSet] = _Memory(max_cached)
        self._groups: _Memory[Groups] = _Memory(max_cached)

    def remember(self, object_id: str, rules: RuleSet) -> None:
        """Keep the `rules` parsed from the object `object_id`, as a commit does before it appends."""
        self._rules.keep(object_id, rules)

    def remember_groups(self, object_id: str, groups: Groups) -> None:
        """Keep the `groups` parsed from the object `object_id`."""
        self._groups.keep(object_id, groups)

    async def rules(self, entry: LogEntry) -> RuleSet:
        """Return what the rule file of `entry` says; one that is lost or damaged grants nothing to anybody.

        Raises:
            Unavailable: The store does not answer.
        """
        found = await self._parsed(entry, self._rules, parse_ruleset)
        return CLOSED if found is None else found

    async def groups(self, entry: LogEntry) -> Groups | None:
        """Return the groups in the groups file of `entry`; None when it is lost or damaged.

        Raises:
            Unavailable: The store does not answer.
        """
        return await self._parsed(entry, self._groups, lambda data: parse_groups(data).resolved)

    async def _parsed(self, entry: LogEntry, memory: _Memory[T], parse: Callable[[bytes], T]) -> T | None:
        known = memory.find(entry.object_id)
        if known is not None:
            return known
        try:
            data = await self._store.get(object_key(entry.path.site, entry.object_id))
        except NotFound:
            _log.error("filelog.rules_lost", sequence=entry.sequence)
            return None
        if hashlib.sha256(data).hexdigest() != entry.object_id:
            _log.error("filelog.rules_damaged", sequence=entry.sequence)
            return None
        try:
            found = parse(data)
        except InvalidInput as error:
            # Commits refuse such a file, so another version of this program let it in.
            _log.error("filelog.rules_refused", sequence=entry.sequence, line=error.metadata.get("line"))
            return None
        memory.keep(entry.object_id, found)
        return found


class _Memory(Generic[T]):
    """What was parsed last, by the digest of what it was parsed from."""

    def __init__(self, max_kept: int) -> None:
        self._max_kept = max_kept
        self._kept: OrderedDict[str, T] = OrderedDict()

    def find(self, object_id: str) -> T | None:
        found = self._kept.get(object_id)
        if found is not None:
            self._kept.move_to_end(object_id)
        return found

    def keep(self, object_id: str, value: T) -> None:
        self._kept[object_id] = value
        self._kept.move_to_end(object_id)
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
