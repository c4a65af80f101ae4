"""What the domain needs of storage and of Flower."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from syftmesh_superlink.domain.run import Run


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run and the revision to change it by."""

    run: Run
    revision: int


class RunStore(Protocol):
    """Runs, changed by compare-and-set."""

    async def list(self) -> list[StoredRun]:
        """Return every run."""
        ...

    async def get(self, run_id: str) -> StoredRun | None:
        """Return a run, None when there is none."""
        ...

    async def create(self, run: Run) -> int:
        """Write a new run and return its revision.

        Raises:
            Conflict: It is there (KV_CONFLICT).
        """
        ...

    async def replace(self, run: Run, revision: int) -> int:
        """Write a run only if its revision is still `revision`, and return the new one.

        Raises:
            Conflict: Somebody else wrote it (KV_CONFLICT).
        """
        ...


class FlowerStatus(StrEnum):
    """Where a run is at Flower."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    STOPPED = "stopped"


class Flower(Protocol):
    """Flower's SuperLink. Every method raises Unavailable (SUPERLINK_AWAY) when it does not answer."""

    @property
    def is_started(self) -> bool:
        """Return whether it was started."""
        ...

    async def start_run(self, account: str, federation: str, bundle: bytes, config: Mapping[str, Any]) -> str:
        """Create a run that waits for its ServerApp, and return its id.

        Raises:
            InvalidInput: Flower does not take the bundle (BUNDLE_INVALID).
        """
        ...

    async def stop_run(self, run_id: str) -> None:
        """End a run and forget its messages; nothing happens when it is over or unknown."""
        ...

    async def claim(self, run_id: str) -> str | None:
        """Return a fresh token of the ServerApp's task, None when it is taken or over."""
        ...

    async def statuses(self, run_ids: Collection[str]) -> Mapping[str, FlowerStatus]:
        """Return where these runs are; unknown ones are missing."""
        ...

    async def forget_node(self, node_id: int) -> None:
        """Let a node count as gone at once, so that what was sent to it fails fast."""
        ...


class Members(Protocol):
    """Who belongs to the federation of a run, as Flower reads it."""

    async def write(self, federation: str, account: str, nodes: Collection[int]) -> None:
        """Set owner and nodes, atomically."""
        ...


class Bundles(Protocol):
    """App bundles by digest."""

    async def put(self, digest: str, data: bytes) -> None:
        """Keep a bundle."""
        ...

    async def get(self, digest: str) -> bytes:
        """Return a bundle.

        Raises:
            IntegrityFailure: It is missing or damaged (RECORD_DAMAGED).
        """
        ...


class Nodes(Protocol):
    """Which SuperNode is whose."""

    def of(self, principal: str) -> int | None:
        """Return the node of a site, None before it registered one."""
        ...
