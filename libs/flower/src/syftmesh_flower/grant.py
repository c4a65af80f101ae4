"""What an owner's approval lets a task have, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syftmesh_executor.port import RunOutcome

from syftmesh_flower.gate import GateLimits
from syftmesh_flower.seal import RunKey


@dataclass(frozen=True, slots=True)
class Grant:
    """What the owner's approval lets a task have.

    Attributes:
        run_id: The run.
        app_digest: SHA-256 of the bundle, hex.
        bundle: File of the approved bundle.
        data: Folder of the approved version of the dataset.
        dataset: Its name.
        rows: Its number of rows.
        aggregator: Who proposed the run.
        run_config: The approved overrides of the app's configuration.
        run_key: Secret of run and site.
        limits: What the gate lets through.
        partition: Number of this site in the run.
        partitions: Number of sites asked.
        task_s: Seconds that one task may take.
    """

    run_id: str
    app_digest: str
    bundle: Path
    data: Path
    dataset: str
    rows: int
    aggregator: str
    run_config: Mapping[str, object]
    run_key: RunKey
    limits: GateLimits
    partition: int
    partitions: int
    task_s: float


class Approvals(Protocol):
    """The site's decisions, as the executor needs them."""

    async def authorise(self, run_id: str, app_digest: str, kind: str) -> Grant:
        """Return what one more task of that kind may have.

        Raises:
            MeshError: RUN_UNKNOWN, NOT_APPROVED, APPROVAL_MISMATCH, APPROVAL_EXPIRED, DATASET_CHANGED,
                TASKS_EXHAUSTED.
        """
        ...

    def record_task(self, run_id: str, kind: str, reason: str, sent_bytes: int) -> None:
        """Count and audit a task: `reason` is empty when its answer left the site."""
        ...

    def keep_log(self, run_id: str, outcome: RunOutcome) -> None:
        """Keep what an app printed, for the owner."""
        ...
