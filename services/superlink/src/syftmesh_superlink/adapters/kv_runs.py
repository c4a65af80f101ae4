"""Runs in the JetStream key-value bucket ``runs``, changed by compare-and-set."""

from __future__ import annotations

from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.topology import bucket

from syftmesh_superlink.adapters import codec
from syftmesh_superlink.domain.ports import RunStore, StoredRun
from syftmesh_superlink.domain.run import Run


class KvRuns(RunStore):
    """The runs on a bus; `declare` makes their bucket."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kv = bus.kv(subject.KV_RUNS)

    async def declare(self) -> None:
        """Declare the bucket.

        Raises:
            Unavailable: The bus does not answer.
        """
        await self._bus.ensure_kv(bucket(subject.KV_RUNS))

    async def list(self) -> list[StoredRun]:
        """Return every run; raises as `RunStore.list`."""
        return [
            StoredRun(codec.decode(entry.value), entry.revision)
            async for entry in self._kv.entries()
            if entry.value is not None
        ]

    async def get(self, run_id: str) -> StoredRun | None:
        """Return a run, None when there is none."""
        found = await self._kv.get(subject.kv_key(run_id))
        if found is None or found.value is None:
            return None
        return StoredRun(codec.decode(found.value), found.revision)

    async def create(self, run: Run) -> int:
        """Write a new run; raises as `RunStore.create`."""
        return await self._kv.create(subject.kv_key(run.run_id), codec.encode(run))

    async def replace(self, run: Run, revision: int) -> int:
        """Write a run over a revision; raises as `RunStore.replace`."""
        return await self._kv.update(subject.kv_key(run.run_id), codec.encode(run), revision)
