"""A device's own watch over the log: every entry is read, and those of its principal must be its own.

The scan keeps O(log n) state, and ends at a signed head only when the entries served were all of the log up
to there: leaving one out is noticed as much as adding one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.entry import ChainTip, LogEntry, follow, principal_digest, tip_of
from syftmesh_core.keylog.merkle import CompactRange, TreeHead
from syftmesh_core.keylog.proof import refuse_fork

IsOurs = Callable[[LogEntry], bool]
"""Whether the root or a device of the principal signed what the entry publishes."""


class AlarmReason(StrEnum):
    """Why an entry of the principal is no good."""

    FOREIGN = "LOG_ENTRY_FOREIGN"
    """Nobody of the principal signed it."""
    CHAIN = "LOG_CHAIN_BROKEN"
    """It does not follow the principal's entry before it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One entry that the log holds for the principal and should not.

    Attributes:
        index: Its place in the log, from 0.
        entry: The entry.
        reason: Why.
    """

    index: int
    entry: LogEntry
    reason: AlarmReason


@dataclass(frozen=True, slots=True)
class Monitor:
    """How far the log was read, and the principal's newest entry there.

    Attributes:
        principal_digest: Whom it watches for.
        read: The tree of all entries read so far.
        tip: The principal's newest entry among them, None where it has none.
    """

    principal_digest: bytes
    read: CompactRange = field(default_factory=CompactRange)
    tip: ChainTip | None = None

    @classmethod
    def of(cls, principal: str) -> Monitor:
        """Return the watch of `principal` that has read nothing yet.

        Raises:
            InvalidInput: LOG_ENTRY_INVALID when it is no e-mail address.
        """
        return cls(principal_digest(principal))

    @property
    def next_index(self) -> int:
        """Place of the next entry to read."""
        return self.read.size

    def scan(self, entries: Iterable[LogEntry], is_ours: IsOurs) -> tuple[Monitor, tuple[Alarm, ...]]:
        """Return the watch after these entries, and what they hold that nobody of the principal did.

        Alarms count at once; that the entries are those of the log says `confirm` only.

        Args:
            entries: What the log serves from `next_index` on, in order.
            is_ours: Checks the payload of an entry of the principal.
        """
        alarms, hashes, tip = list[Alarm](), list[bytes](), self.tip
        for index, entry in enumerate(entries, start=self.next_index):
            hashes.append(merkle.leaf_hash(entry.leaf()))
            if entry.principal_digest == self.principal_digest:
                alarms += (Alarm(index, entry, reason) for reason in _faults(tip, entry, is_ours))
                tip = tip_of(entry)
        return replace(self, read=self.read.extend(hashes), tip=tip), tuple(alarms)

    def confirm(self, head: TreeHead) -> None:
        """Check that what was read is the log of `head`, whose signature was checked.

        Raises:
            IntegrityFailure: LOG_SCAN_INCOMPLETE when more or fewer entries were read than it has; LOG_FORKED
                when they were others.
        """
        if head.size != self.read.size:
            raise IntegrityFailure(
                f"{self.read.size} entries of the key log were read, and its head has {head.size}: read on to it.",
                reason="LOG_SCAN_INCOMPLETE",
                metadata={"read": str(self.read.size), "size": str(head.size)},
            )
        if self.read.head() != head:
            refuse_fork(self.read.head(), head)


def _faults(tip: ChainTip | None, entry: LogEntry, is_ours: IsOurs) -> list[AlarmReason]:
    faults = []
    try:
        follow(tip, entry)
    except IntegrityFailure:
        faults.append(AlarmReason.CHAIN)
    if not is_ours(entry):
        faults.append(AlarmReason.FOREIGN)
    return faults
