"""Whether the site needs a SuperNode: while a run is approved and not over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from syftmesh_core.federated import ProposalState

from syftmesh_runner.domain.federated_port import ProposalStore
from syftmesh_runner.domain.wake import Wake


@dataclass(frozen=True, slots=True)
class RuntimeApi:
    """Where the SuperNode's Runtime API is to be, on loopback, and the file of the secret that it asks for."""

    port: int
    secret_file: Path


class SuperNodeNeed:
    """Tells whoever starts SuperNodes.

    Args:
        proposals: Where proposals are.
    """

    def __init__(self, proposals: ProposalStore) -> None:
        self._proposals = proposals
        self._watchers: set[Wake] = set()
        self._is_closed = False

    @property
    def is_needed(self) -> bool:
        """Whether a run is approved now."""
        return bool(self._proposals.in_state(ProposalState.APPROVED))

    def changed(self) -> None:
        """Look again; any thread may call it."""
        for watcher in tuple(self._watchers):
            watcher.set()

    def close(self) -> None:
        """End every watch."""
        self._is_closed = True
        self.changed()

    async def watch(self) -> AsyncIterator[bool]:
        """Give whether one is needed, at once and whenever that changes, until `close`."""
        watcher, last = Wake(), None
        self._watchers.add(watcher)
        try:
            while not self._is_closed:
                watcher.clear()
                needed = self.is_needed
                if needed is not last:
                    last = needed
                    yield needed
                await watcher.wait()
        finally:
            self._watchers.discard(watcher)
