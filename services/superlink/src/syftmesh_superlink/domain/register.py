"""All runs in memory, each change of one first in the store, then told to who watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import Conflict, NotFound, Unavailable

from syftmesh_superlink.domain.ports import Members, Nodes, RunStore, StoredRun
from syftmesh_superlink.domain.run import Run

_ATTEMPTS: Final = 3

Change = Callable[[Run], Run]
Listener = Callable[[Run], None]


class Register:
    """The runs.

    Args:
        store: Where they are kept.
        members: The files of federations, kept in step.
        nodes: Whose SuperNode is which.
        clock: Time.
    """

    def __init__(self, store: RunStore, members: Members, nodes: Nodes, clock: Clock) -> None:
        self._store = store
        self._members = members
        self._nodes = nodes
        self._clock = clock
        self._runs: dict[str, StoredRun] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: dict[str, str] = {}
        self._listeners: set[Listener] = set()
        self._is_loaded = False

    async def load(self) -> None:
        """Read every run; the members' files are written anew."""
        for stored in await self._store.list():
            self._keep(stored)
            if not stored.run.closed:
                await self._write_members(stored.run)
        self._is_loaded = True

    def require_loaded(self) -> None:
        """Refuse to answer of runs that were not read yet.

        Raises:
            Unavailable: STARTING.
        """
        if not self._is_loaded:
            raise Unavailable("The runs are being read. Try again in a moment.", reason="STARTING")

    def find(self, run_id: str) -> Run | None:
        """Return a run, None when there is none."""
        self.require_loaded()
        stored = self._runs.get(run_id)
        return stored.run if stored is not None else None

    def visible(self, principal: str, run_id: str) -> Run:
        """Return a run that a principal has a part in.

        Raises:
            NotFound: There is none, or the principal has no part in it (RUN_UNKNOWN).
        """
        found = self.find(run_id)
        if found is None or not found.has(principal):
            raise unknown_run()
        return found

    def all(self) -> Iterable[Run]:
        """Return every run."""
        self.require_loaded()
        return [stored.run for stored in self._runs.values()]

    def of_task(self, task_digest: str) -> Run | None:
        """Return the run whose task token has this digest."""
        self.require_loaded()
        return self.find(self._tasks.get(task_digest, ""))

    async def add(self, run: Run) -> Run:
        """Write a new run.

        Raises:
            Conflict: There is one of that id (KV_CONFLICT).
        """
        revision = await self._store.create(run)
        self._keep(StoredRun(run, revision))
        self._tell(run)
        return run

    async def change(self, run_id: str, change: Change) -> Run:
        """Return a run after `change`; what `change` raises comes through and nothing is changed.

        Raises:
            NotFound: There is no such run (RUN_UNKNOWN).
            Conflict: It is written by somebody else all the time (KV_CONFLICT).
        """
        async with self._locks.setdefault(run_id, asyncio.Lock()):
            for attempt in range(_ATTEMPTS):
                stored = self._runs.get(run_id)
                if stored is None:
                    raise unknown_run()
                wanted = change(stored.run)
                if wanted == stored.run:
                    return stored.run
                wanted = self._dated(stored.run, wanted)
                try:
                    revision = await self._store.replace(wanted, stored.revision)
                except Conflict:
                    # It may be our own write, whose answer was lost.
                    await self._read_again(run_id)
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                self._keep(StoredRun(wanted, revision))
                await self._followed(stored.run, wanted)
                return wanted
        raise unknown_run()

    async def node_changed(self, site: str) -> list[str]:
        """Bring the federations of a site up to its node, and return the runs concerned."""
        concerned = [run for run in self.all() if not run.is_final and site in run.approved]
        for run in concerned:
            await self._write_members(run)
        return [run.run_id for run in concerned]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every run that changes, until what is returned is called."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def touch(self, run: Run) -> None:
        """Tell who watches a run that something about it is different which is not stored."""
        self._tell(run)

    def _dated(self, before: Run, after: Run) -> Run:
        now_ms = self._clock.now_ms()
        ended_ms = now_ms if after.is_final and not before.is_final else after.ended_ms
        return replace(after, updated_ms=now_ms, ended_ms=ended_ms)

    async def _read_again(self, run_id: str) -> None:
        stored = await self._store.get(run_id)
        if stored is None:
            self._runs.pop(run_id, None)
        else:
            self._keep(stored)

    async def _followed(self, before: Run, after: Run) -> None:
        if before.approved != after.approved or (after.is_final and not before.is_final):
            await self._write_members(after)
        self._tell(after)

    async def _write_members(self, run: Run) -> None:
        nodes = () if run.is_final else [node for site in run.approved if (node := self._nodes.of(site))]
        await self._members.write(run.federation, run.aggregator, nodes)

    def _keep(self, stored: StoredRun) -> None:
        known = self._runs.get(stored.run.run_id)
        if known is not None and known.run.task_digest != stored.run.task_digest:
            self._tasks.pop(known.run.task_digest, None)
        self._runs[stored.run.run_id] = stored
        if stored.run.task_digest:
            self._tasks[stored.run.task_digest] = stored.run.run_id

    def _tell(self, run: Run) -> None:
        for listener in list(self._listeners):
            listener(run)


def unknown_run() -> NotFound:
    """Return the one answer for runs that do not exist and for those of others."""
    return NotFound("There is no such run among yours.", reason="RUN_UNKNOWN")
