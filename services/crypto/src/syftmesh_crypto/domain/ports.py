"""What the use cases of the key directory need from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from syftmesh_core.identity.device_list import DeviceList


@dataclass(frozen=True, slots=True)
class Chain:
    """The verified device lists of one principal as the log has them now.

    Attributes:
        lists: Every version in order, the last is the newest; never empty.
        sequence: Log sequence of the newest: what an append must find unchanged.
    """

    lists: tuple[DeviceList, ...] = field(repr=False)
    sequence: int

    @property
    def newest(self) -> DeviceList:
        """The newest version."""
        return self.lists[-1]


class DeviceListLog(Protocol):
    """The append-only log of device lists.

    Every method raises Unavailable when the log cannot be asked or has not been read to its end.
    """

    async def chain(self, principal: str) -> Chain | None:
        """Return the chain of `principal` as the log has it at this moment, None when it holds nothing.

        Raises:
            IntegrityFailure: It holds entries that do not verify (KEYLOG_DAMAGED).
        """
        ...

    async def append(self, new: DeviceList, expected_sequence: int) -> int:
        """Append `new` if the principal's newest entry has `expected_sequence` (0: none yet).

        Returns its sequence once it is on disk; repeating the append of the same bytes gives the same answer.

        Raises:
            Conflict: Another version was appended in between (any reason).
        """
        ...

    async def wait_durable(self, sequence: int) -> None:
        """Return once the log's journal holds `sequence` too.

        Raises:
            DeadlineExceeded: Not within the time allowed (JOURNAL_LAGS).
        """
        ...
