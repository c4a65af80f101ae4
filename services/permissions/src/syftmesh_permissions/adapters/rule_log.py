"""The file log's read model as the domain sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syftmesh_core.permission.tree import RuleTree
from syftmesh_kit.filelog import FileLog, LogEntry

from syftmesh_permissions.domain.consistency import Token


class RuleLog:
    """See `domain.inquiry.Rules`, `domain.consistency.Model` and `domain.accessible.Files`."""

    def __init__(self, log: FileLog) -> None:
        self._log = log

    def tree(self, site: str) -> RuleTree:
        """Return the rules of a datasite; raises Unavailable while they may not be answered from."""
        self._log.check()
        return self._log.site(site).tree

    def token(self) -> Token:
        """Return the point that answers are as fresh as; raises Unavailable before there is one."""
        self._log.check()
        return Token(self._log.position.epoch, self._log.position.sequence)

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        """Return whether the model has seen `sequence`, waiting at most `timeout_s`."""
        return await self._log.wait_for(sequence, timeout_s)

    def sites(self) -> Sequence[str]:
        """Return the owners of all datasites that hold a record."""
        return [site.site for site in self._log.sites()]

    def below(self, directory: str, after: str) -> Iterator[LogEntry]:
        """Iterate over the live files below `directory` in path order, those behind `after` only."""
        return self._log.site(directory.partition("/")[0]).below(directory, after=after)
