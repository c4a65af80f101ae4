"""The audit of a site: every decision and change of state, chained, with checkpoints signed by the runner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from syftmesh_core.audit_chain import Entry, entry_digest, sign_checkpoint, verify_chain
from syftmesh_core.audit_chain import append as next_entry
from syftmesh_core.clock import Clock
from syftmesh_core.errors import IntegrityFailure, MeshError
from syftmesh_core.identity.device import DevicePublic, DeviceSecret

from syftmesh_runner.domain.ports import AuditStore, KeyDirectory, Unit

DEFAULT_CHECKPOINT_EVERY: Final = 50
MAX_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that holds: number of entries, digest of the last one, checkpoints."""

    entries: int
    root: bytes
    checkpoints: int


class AuditTrail:
    """Appends to the chain and checks it.

    Args:
        unit: Transactions.
        store: Where entries lie.
        device: The runner's device, which signs checkpoints.
        clock: Source of times.
        checkpoint_every: Entries between two checkpoints.
    """

    def __init__(
        self,
        unit: Unit,
        store: AuditStore,
        device: DeviceSecret,
        clock: Clock,
        *,
        checkpoint_every: int = DEFAULT_CHECKPOINT_EVERY,
    ) -> None:
        self._unit = unit
        self._store = store
        self._device = device
        self._clock = clock
        self._checkpoint_every = checkpoint_every

    @property
    def owner(self) -> str:
        """The principal whose site this is."""
        return self._device.principal

    def append(
        self, kind: str, actor: str, fields: Mapping[str, object], *, checkpoint: bool = False
    ) -> Entry:
        """Add an entry, in the transaction that is open or in one of its own.

        Args:
            kind: What happened, e.g. ``job.approved``.
            actor: Who did it.
            fields: Facts; never private values. Long texts are cut.
            checkpoint: Sign a checkpoint over it at once.
        """
        facts = {
            name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in fields.items()
        }
        with self._unit.transaction():
            entry = next_entry(
                self._store.last(), at_ms=self._clock.now_ms(), kind=kind, actor=actor, fields=facts
            )
            self._store.add(entry)
            if checkpoint or entry.sequence - self._store.last_checkpoint() >= self._checkpoint_every:
                self._store.add_checkpoint(
                    sign_checkpoint(self.owner, entry, self._clock.now_ms(), self._device)
                )
        return entry

    async def verify(self, keys: KeyDirectory) -> Verified:
        """Check the whole chain and every checkpoint.

        Raises:
            IntegrityFailure: AUDIT_BROKEN; metadata names the first bad entry and why.
        """
        own = self._device.public()
        devices: dict[str, DevicePublic] = {}
        with suppress(MeshError):  # without the hub the runner's own checkpoints can still be checked
            devices = {device.device_id: device for device in (await keys.devices_of(self.owner)).devices}
        devices[own.device_id] = own
        count, last = 0, None

        def counted() -> Iterator[Entry]:
            nonlocal count, last
            for entry in self._store.entries():
                count, last = entry.sequence, entry
                yield entry

        checkpoints = self._store.checkpoints()
        fault = verify_chain(counted(), checkpoints, site=self.owner, devices=devices)
        if fault is not None:
            raise broken(fault.sequence, fault.reason.value)
        return Verified(count, entry_digest(last) if last is not None else bytes(32), len(checkpoints))


def broken(sequence: int, why: str) -> IntegrityFailure:
    """Return the error for a chain that does not hold at `sequence`."""
    return IntegrityFailure(
        f"The audit chain does not hold at entry {sequence} ({why}): somebody changed the database.",
        reason="AUDIT_BROKEN",
        metadata={"sequence": str(sequence), "why": why},
    )
