"""Where the read model gets the content of rule files from."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final, Protocol

import structlog
from syftmesh_core.errors import InvalidInput, NotFound
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.ruleset import RuleSet

from syftmesh_kit.filelog.entry import LogEntry, object_key

CLOSED: Final = RuleSet(terminal=True)
"""What stands for a rule file whose content is lost: nobody but the owner, here and further down."""

_log: Any = structlog.get_logger("syftmesh.filelog")


class RuleSource(Protocol):
    """Gives the rules of a live rule file's record."""

    async def rules(self, entry: LogEntry) -> RuleSet:
        """Return what the rule file of `entry` says.

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
    """Rule files out of the object store; what was parsed last is remembered by digest.

    Args:
        store: The object store.
        max_cached: Rule files remembered.
    """

    def __init__(self, store: ObjectReader, *, max_cached: int = 512) -> None:
        self._store = store
        self._max_cached = max_cached
        self._cache: OrderedDict[str, RuleSet] = OrderedDict()

    def remember(self, object_id: str, rules: RuleSet) -> None:
        """Keep the `rules` parsed from the object `object_id`, as a commit does before it appends."""
        self._cache[object_id] = rules
        self._cache.move_to_end(object_id)
        if len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)

    async def rules(self, entry: LogEntry) -> RuleSet:
        """Return what the rule file of `entry` says; one that is lost or damaged grants nothing to anybody.

        Raises:
            Unavailable: The store does not answer.
        """
        known = self._cache.get(entry.object_id)
        if known is not None:
            self._cache.move_to_end(entry.object_id)
            return known
        try:
            data = await self._store.get(object_key(entry.path.site, entry.object_id))
        except NotFound:
            _log.error("filelog.rules_lost", sequence=entry.sequence)
            return CLOSED
        if hashlib.sha256(data).hexdigest() != entry.object_id:
            _log.error("filelog.rules_damaged", sequence=entry.sequence)
            return CLOSED
        try:
            rules = parse_ruleset(data)
        except InvalidInput as error:
            # Commits refuse such a file, so another version of this program let it in.
            _log.error("filelog.rules_refused", sequence=entry.sequence, line=error.metadata.get("line"))
            return CLOSED
        self.remember(entry.object_id, rules)
        return rules
