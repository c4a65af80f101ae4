"""Waiting for the code of a run, whose start takes as long as the executor needs."""

from __future__ import annotations

import asyncio
from typing import Any

from syftmesh_executor import Executor

CLUSTER_S = 30.0


def on_cluster(executor: Executor) -> bool:
    """Whether runs are pods of a cluster."""
    return hasattr(executor, "jobs")


def on_gvisor(executor: Any) -> bool:
    """Whether the kernel below the code is gVisor's."""
    return on_cluster(executor) and executor._settings.runtime_class == "gvisor"


async def until_up(executor: Any, run_id: str = "run-1", settle_s: float = 1.0) -> None:
    """Wait until the code of a run is running."""
    if on_cluster(executor):
        async with asyncio.timeout(CLUSTER_S):
            while run_id not in getattr(executor, "runs", {}):
                await asyncio.sleep(0.05)
            await executor.runs[run_id].staged.wait()
        settle_s += 1.5
    await asyncio.sleep(settle_s)
