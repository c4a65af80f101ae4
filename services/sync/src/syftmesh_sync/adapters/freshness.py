"""Reads that no replica answers by rules or groups of which an acknowledged change is newer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from syftmesh_core.errors import Unavailable
from syftmesh_core.parallel import in_parallel
from syftmesh_kit import subject
from syftmesh_kit.filelog import FileLog, fence_subject
from syftmesh_kit.message import StreamMessage

_AT_ONCE: Final = 16
_CATCH_UP_S: Final = 2.0


class FenceBus(Protocol):
    """The part of `syftmesh_kit.bus.Bus` that is needed here."""

    async def last_message(self, subject: str, *, stream: str = "") -> StreamMessage | None:
        """Return the newest message on `subject`, as the stream's leader has it."""
        ...


class Freshness:
    """Asks the bus for the newest policy fence of a datasite before others than its owner are answered.

    So a right that was revoked through one replica is gone at every other one with the acknowledgement, however far
    behind that one's model is. It costs a message to the bus and back for each datasite asked about.

    Args:
        bus: The bus.
        log: The read model.
    """

    def __init__(self, bus: FenceBus, log: FileLog) -> None:
        self._bus = bus
        self._log = log

    async def require(self, requester: str, sites: Iterable[str]) -> None:
        """Return once the model has the newest policy of `sites` (normalised) that `requester` does not own.

        Raises:
            Unavailable: The bus cannot be asked, or the model does not come up to it in two seconds (LOG_BEHIND).
        """
        asked = sorted(set(sites) - {requester})
        await in_parallel((self._catch_up(site) for site in asked), at_once=_AT_ONCE)

    async def _catch_up(self, site: str) -> None:
        newest = await self._bus.last_message(fence_subject(site), stream=subject.FILES)
        if newest is not None and not await self._log.wait_for(newest.sequence, _CATCH_UP_S):
            raise Unavailable("This replica is behind the log: ask again.", reason="LOG_BEHIND")
