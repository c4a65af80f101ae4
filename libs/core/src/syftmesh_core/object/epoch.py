"""Epochs of a reader set: what starts a new one, what is stale, and what is a step back.

One state stands for one place whose readers follow one another (a rule's paths). It only goes forward: a
lower epoch is never taken again, and one epoch has one list of readers and one secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from syftmesh_core.errors import Conflict, IntegrityFailure, Unavailable
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.object.reader_secret import ReaderSetId, refuse_set_input
from syftmesh_core.object.reader_set import ReaderSet


@dataclass(frozen=True, slots=True)
class EpochState:
    """The newest reader set known for one place.

    Attributes:
        set_id: Datasite, epoch and readers.
        commitment: What the epoch's secret must fit, 32 bytes.
    """

    set_id: ReaderSetId
    commitment: bytes = field(repr=False)

    @classmethod
    def first(cls, reader_set: ReaderSet) -> EpochState:
        """Return the state that knows `reader_set` and nothing before it."""
        return cls(reader_set.set_id, reader_set.commitment)

    def after(self, reader_set: ReaderSet) -> EpochState:
        """Return the state that knows `reader_set` too; the same state for the same set.

        Raises:
            IntegrityFailure: EPOCH_ROLLBACK for a lower epoch; READER_SET_FORKED for a second list of readers
                or secret in this epoch.
            InvalidInput: READER_SET_REFUSED for a set of another datasite.
        """
        new, old = reader_set.set_id, self.set_id
        self._check_site(new)
        if new.epoch < old.epoch:
            raise IntegrityFailure(
                f"The reader set is of epoch {new.epoch}, and epoch {old.epoch} is known: it was rolled back.",
                reason="EPOCH_ROLLBACK",
                metadata={"epoch": str(new.epoch), "known_epoch": str(old.epoch)},
            )
        if new.epoch > old.epoch:
            return EpochState.first(reader_set)
        if new != old or reader_set.commitment != self.commitment:
            raise IntegrityFailure(
                f"Epoch {old.epoch} has two reader sets: not all readers were given the same one.",
                reason="READER_SET_FORKED",
                metadata={"epoch": str(old.epoch)},
            )
        return self

    def check_commit(self, used: ReaderSetId) -> None:
        """Check that what was sealed for the set `used` may be committed now.

        Raises:
            Conflict: STALE_READERS for an older epoch, or other readers in this one.
            Unavailable: EPOCH_AHEAD for a newer epoch: fetch its reader set, then check again.
            InvalidInput: READER_SET_REFUSED for a set of another datasite.
        """
        self._check_site(used)
        metadata = {"epoch": str(used.epoch), "current_epoch": str(self.set_id.epoch)}
        if used.epoch > self.set_id.epoch:
            raise Unavailable(
                f"The content is sealed for epoch {used.epoch}, whose reader set is not known here yet.",
                reason="EPOCH_AHEAD",
                metadata=metadata,
            )
        if used != self.set_id:
            raise Conflict(
                f"The content is sealed for the readers of epoch {used.epoch}, and they have changed: seal it for "
                f"those of epoch {self.set_id.epoch}.",
                reason="STALE_READERS",
                metadata=metadata,
            )

    def _check_site(self, set_id: ReaderSetId) -> None:
        if set_id.site != self.set_id.site:
            refuse_set_input("it is of another datasite")


@dataclass(frozen=True, slots=True)
class Readership:
    """Who holds the secret of a reader set.

    Attributes:
        principals: The readers.
        holders: E-mail address, device id and epoch of each of their devices: new keys make another holder.
    """

    principals: frozenset[str]
    holders: frozenset[tuple[str, str, int]]

    @classmethod
    def of(cls, principals: Collection[str], devices: Iterable[DevicePublic]) -> Readership:
        """Return the readership of `principals` with their `devices`, from verified device lists."""
        holders = frozenset((device.principal, device.device_id, device.epoch) for device in devices)
        return cls(frozenset(principals), holders)


def next_epoch(epoch: int, *, before: Readership, after: Readership) -> int:
    """Return the epoch that a change of readers needs: `epoch` itself when it only adds devices, or nothing.

    A reader more is a new epoch too, for a secret is bound to its list of readers.
    """
    kept = before.principals == after.principals and before.holders <= after.holders
    return epoch if kept else epoch + 1
